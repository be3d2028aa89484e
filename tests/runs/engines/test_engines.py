"""What every engine promises, on those that need nothing but this machine."""

from __future__ import annotations

import multiprocessing
import os
import sys

import pytest
import torch
import toy_work

from raptor.core.errors import MissingExtraError, UserError
from raptor.runs.engines import EngineConfig, LostWorkerWarning, make_engine

LOCAL, PROCESSES = EngineConfig(), EngineConfig(name="processes", num_workers=2)
both = pytest.mark.parametrize("config", [LOCAL, PROCESSES], ids=lambda config: config.name)


def never() -> bool:
    return False


@both
def test_results_and_reports_of_all_tasks_arrive(config, tmp_path, reports):
    tasks = {f"shard_{i}": {"until": 4, "step": i + 1} for i in range(3)}
    results = make_engine(config).run(toy_work.count, tasks, tmp_path, reports, never)
    assert list(results) == list(tasks)
    assert [result["sum"] for result in results.values()] == pytest.approx([1.0, 2.0, 3.0])
    for name in tasks:
        assert reports.of(name, "number") == [1, 2, 3, 4]


@both
def test_a_finished_task_is_not_run_again(config, tmp_path, reports):
    tasks = {"a": {"until": 2, "step": 1}, "b": {"until": 2, "step": 2}}
    first = make_engine(config).run(toy_work.count, tasks, tmp_path, reports, never)
    (tmp_path / "b" / "result.json").write_text("{")  # what no engine leaves behind
    reports.all.clear()
    assert make_engine(config).run(toy_work.count, tasks, tmp_path, reports, never) == first
    assert {name for name, _ in reports.all} == {"b"}


@both
def test_a_user_error_of_a_task_ends_the_run_with_its_sentence_and_keeps_what_has_finished(
    config, tmp_path, reports, checkpoint
):
    tasks = {
        "done": {"until": 2, "step": 2},
        "bad": {"until": 5, "step": 3, "refused_at": 3},
        "other": {"until": 2, "step": 4},
    }
    (tmp_path / "done").mkdir()
    (tmp_path / "done" / "result.json").write_text('{"sum": 1}')
    if config == PROCESSES:
        tasks["other"] |= {"wait_at": 1}  # forever, unless it is asked to stop
    with pytest.raises(UserError, match=r"^step must be even, got 3$"):
        make_engine(config).run(toy_work.count, tasks, tmp_path, reports, never)
    assert checkpoint("bad")["attempts"] == 1
    assert not (tmp_path / "other" / "result.json").exists()
    assert not multiprocessing.active_children()
    good = {name: {key: task[key] for key in ("until", "step")} for name, task in tasks.items()}
    results = make_engine(config).run(toy_work.count, good, tmp_path, reports, never)
    assert results["done"] == {"sum": 1}
    assert reports.of("bad", "from") == [0, 3]


@both
def test_a_stopped_run_leaves_checkpoints_and_no_process_and_goes_on_from_there(config, tmp_path, reports, checkpoint):
    engine = make_engine(config)
    names = ["a", "b"] if config == PROCESSES else ["a"]
    tasks = {name: {"until": 5, "step": 1, "wait_at": 3} for name in [*names, "not begun"]}
    reports.stop_at = {(name, 3) for name in names}
    assert engine.run(toy_work.count, tasks, tmp_path, reports, reports.stop) == {}
    assert not multiprocessing.active_children()
    assert [checkpoint(name)["number"] for name in names] == [3] * len(names)
    assert not reports.of("not begun", "from")
    results = engine.run(toy_work.count, {name: {"until": 5, "step": 1} for name in tasks}, tmp_path, reports, never)
    assert [result["sum"] for result in results.values()] == pytest.approx([1.5] * len(tasks))
    assert reports.of("a", "from") == [0, 3]


@both
def test_what_cannot_be_written_is_named(config, tmp_path, reports):
    engine = make_engine(config)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=f"^cannot write {tmp_path}/file/a: "):
        engine.run(toy_work.count, {"a": {}}, tmp_path / "file", reports, never)
    with pytest.raises(UserError, match=f"^cannot write {tmp_path}/a/checkpoint.json: File too large"):
        engine.run(toy_work.write_to_full_disk, {"a": {}}, tmp_path, reports, never)
    assert list((tmp_path / "a").iterdir()) == []
    (tmp_path / "b" / "result.json" / "in the way").mkdir(parents=True)
    with pytest.raises(UserError, match=f"^cannot write {tmp_path}/b/result.json: "):
        engine.run(toy_work.count, {"b": {"until": 1, "step": 1}}, tmp_path, reports, never)


def test_a_task_cannot_write_outside_its_folder_nor_its_own_result(tmp_path, reports):
    for name in ("../a", "/a", "", "result.json"):
        with pytest.raises(ValueError, match="a task cannot have a file"):
            make_engine(LOCAL).run(toy_work.write_outside, {"a": {"name": name}}, tmp_path, reports, never)


def test_a_task_whose_process_was_killed_goes_on_from_its_checkpoint(tmp_path, reports, checkpoint):
    tasks = {"a": {"until": 5, "step": 1, "killed_at": 3}, "b": {"until": 5, "step": 2}}
    (tmp_path / "a").mkdir()
    half_written = tmp_path / "a" / ".checkpoint.json.0a1b2c3d.tmp"
    half_written.write_text("{")
    with pytest.warns(LostWorkerWarning, match="a goes on with another worker, because .* SIGKILL"):
        results = make_engine(PROCESSES).run(toy_work.count, tasks, tmp_path, reports, never)
    unharmed = make_engine(LOCAL).run(
        toy_work.count, {"a": {"until": 5, "step": 1}, "b": tasks["b"]}, tmp_path / "other", reports, never
    )
    assert results == unharmed
    assert reports.of("a", "from") == [0, 3, 0]  # the last one is the unharmed one
    assert checkpoint("a")["attempts"] == 2
    assert not half_written.exists()


def test_a_task_that_loses_its_worker_again_and_again_ends_the_run(tmp_path, reports):
    engine = make_engine(EngineConfig(name="processes", num_workers=1, retries=1))
    with (
        pytest.warns(LostWorkerWarning),
        pytest.raises(UserError, match=r"^a lost its worker 2 times, .* SIGKILL.* --resume"),
    ):
        engine.run(toy_work.kill_itself, {"a": {}}, tmp_path, reports, never)
    assert reports.of("a", "attempt") == [1, 1]
    assert not multiprocessing.active_children()


def test_a_mistake_in_the_work_ends_the_run_with_its_traceback(tmp_path, reports):
    tasks = {"a": {"until": 5, "step": 1, "crashed_at": 3}}
    with pytest.raises(RuntimeError, match=r"(?s)^a failed on its worker:.*toy_work.*ZeroDivisionError: a mistake"):
        make_engine(PROCESSES).run(toy_work.count, tasks, tmp_path, reports, never)


def test_no_process_outlives_an_interruption_of_the_run(tmp_path):
    def interrupt(name, values):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_engine(PROCESSES).run(
            toy_work.count, {"a": {"until": 5, "step": 1, "wait_at": 1}}, tmp_path, interrupt, never
        )
    assert not multiprocessing.active_children()


def test_each_device_has_one_process_with_its_number_of_threads(tmp_path, reports):
    tasks = {f"shard_{i}": {} for i in range(4)}
    engine = make_engine(EngineConfig(name="processes", devices=("cpu", "cpu:0"), threads_per_worker=2))
    results = engine.run(toy_work.describe_process, tasks, tmp_path, reports, never)
    assert {result["device"] for result in results.values()} == {"cpu", "cpu:0"}
    assert len({result["pid"] for result in results.values()} | {os.getpid()}) == 3
    assert {result["threads"] for result in results.values()} == {2}


def test_threads_per_worker_holds_here_too_and_only_for_the_run(tmp_path, reports):
    before = torch.get_num_threads()
    engine = make_engine(EngineConfig(threads_per_worker=before + 1))
    assert engine.run(toy_work.describe_process, {"a": {}}, tmp_path, reports, never)["a"]["threads"] == before + 1
    assert torch.get_num_threads() == before


def test_an_engine_that_cannot_work_is_refused_before_anything_starts(monkeypatch):
    for config in (EngineConfig(name="processes", devices=("cpu", "warp")), EngineConfig(name="local")):
        with pytest.raises(UserError, match="device must be cpu"):
            make_engine(config, device="warp")
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'raptor-python\[ray\]'"):
        make_engine(EngineConfig(name="ray"))


def test_an_engine_has_as_many_processes_as_there_are_cores_unless_told_otherwise():
    cores = len(os.sched_getaffinity(0))

    def devices(**settings):
        return make_engine(EngineConfig(name="processes", **settings)).devices

    assert devices() == ("cpu",) * cores
    assert devices(threads_per_worker=2 * cores) == ("cpu",)
    assert devices(num_workers=3) == ("cpu",) * 3
    assert devices(num_workers=1, devices=("cpu", "cpu")) == ("cpu",)
