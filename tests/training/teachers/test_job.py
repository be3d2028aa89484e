"""Pre-training as a whole: what it leaves, what it refuses, and that no interruption changes the result."""

from __future__ import annotations

import dataclasses
import errno
import json
import math
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import short_shards
import torch
from short_shards import tiny
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import raptor
from raptor.config import from_dict, load_config, to_dict, to_yaml
from raptor.core.errors import UserError
from raptor.quadrotor import Quadrotors, sample_quadrotors
from raptor.runs.folder import OLD_MARK, locked, read_settings
from raptor.runs.progress import Progress
from raptor.training.teachers import session, shard
from raptor.training.teachers.config import PreTrainConfig
from raptor.training.teachers.job import PreTrainSummary, pre_train
from raptor.training.teachers.plots import population_curve
from raptor.training.teachers.shard import VALIDATION_SEED, evaluation

BOTH = pytest.mark.parametrize("algorithm", ["apg", "sac"])


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a run of three teachers that nothing interrupted, by algorithm."""
    made: dict[str, Path] = {}

    def folder(algorithm: str) -> Path:
        if algorithm not in made:
            made[algorithm] = tmp_path_factory.mktemp(algorithm) / "run"
            pre_train(made[algorithm], config=tiny(f"algorithm={algorithm}"), generate=3)
        return made[algorithm]

    return folder


def weights(run: Path) -> bytes:
    return (run / "teachers.safetensors").read_bytes()


def records(run: Path) -> list[dict[str, Any]]:
    return json.loads((run / "teachers.json").read_text())["teachers"]


def stopped_after(reports: int) -> Callable[[Progress], None]:
    """A progress function that interrupts the run, as Ctrl-C does, at its n-th call."""
    calls: list[Progress] = []

    def note(progress: Progress) -> None:
        calls.append(progress)
        if len(calls) == reports:
            signal.raise_signal(signal.SIGINT)

    return note


def scalars(run: Path) -> EventAccumulator:
    events = EventAccumulator(str(run / "tensorboard"), size_guidance={"scalars": 0})
    events.Reload()
    return events


def metrics(run: Path) -> list[Any]:
    """What is recorded, in whatever order, without how long it took."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return sorted(sorted((k, v) for k, v in line.items() if "elapsed_s" not in k) for line in lines)


def points(run: Path) -> dict[str, list[tuple[int, float]]]:
    """The same in TensorBoard."""
    events = scalars(run)
    tags = [tag for tag in events.Tags()["scalars"] if "elapsed_s" not in tag]
    return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in tags}


def refusal(output: Path, *arguments: Any, **settings: Any) -> str:
    with pytest.raises(UserError) as error:
        pre_train(output, *arguments, **settings)
    return str(error.value)


def test_a_run_leaves_a_teacher_for_each_vehicle_and_what_is_known_of_it(tmp_path: Path) -> None:
    reported: list[str] = []
    settings = tiny("tensorboard_teachers=[1]", "solved_return=-1000", "retrain_below=-1000")
    summary = pre_train(tmp_path, config=settings, generate=3, announce=reported.append)
    assert (summary.finished, summary.num_teachers, summary.num_solved, summary.unsolved) == (True, 3, 3, ())
    names = {path.name for path in tmp_path.iterdir()}
    assert names >= {"teachers.safetensors", "teachers.json", "quadrotors", "run.yaml", "tensorboard"}
    assert names >= {"teachers.png", "curves.png", "curves.json", "summary.json"}
    for name in ("teachers.png", "curves.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")
    assert len(list((tmp_path / "quadrotors").glob("*.json"))) == 3
    assert from_dict(PreTrainConfig, read_settings(tmp_path)) == settings
    assert reported[0].startswith("3 teachers in 2 shards of at most 2: ")
    teachers = raptor.load_teachers(tmp_path)
    assert len(teachers) == 3
    assert teachers.widths == (26, 6, 4)
    torch.testing.assert_close(teachers.quadrotors.mass, sample_quadrotors(3, seed=0).mass)
    for number, record in enumerate(teachers.records):
        assert record["quadrotor"] == f"quadrotors/000{number}.json"
        assert (tmp_path / record["quadrotor"]).is_file()
        assert record["return_low"] <= record["return"] <= record["return_high"]
        assert 0 <= record["termination_rate"] <= 1
        assert record["steps"] in (12, 24)
        assert record["solved"] is True
        assert len(record["position_offset"]) == 3
        assert {record["algorithm"], record["attempts"]} == {"apg", 1}
    assert [record["seed"] for record in teachers.records] == [10_000_000, 10_000_000, 10_000_002]
    events = scalars(tmp_path)
    tags = {f"population/{name}" for name in ("mean", "p10", "p50", "p90", "worst")}
    assert tags | {"teacher_0001/return"} <= set(events.Tags()["scalars"])
    assert "teacher_0000/return" not in events.Tags()["scalars"]
    curves = json.loads((tmp_path / "curves.json").read_text())
    assert [shard["teachers"] for shard in curves] in ([[0, 1], [2]], [[0], [1, 2]])
    own = next(s for s in curves if 1 in s["teachers"])
    values = [point["returns"][own["teachers"].index(1)] for point in own["points"]]
    assert [event.value for event in events.Scalars("teacher_0001/return")] == pytest.approx(values)
    document = json.loads((tmp_path / "summary.json").read_text())
    assert document["mean_return"] == pytest.approx(sum(r["return"] for r in teachers.records) / 3)


def test_each_teacher_flies_its_own_vehicle(whole: Callable[[str], Path]) -> None:
    """What is recorded of a teacher is reproduced by flying it again with the vehicle in the folder."""
    for teachers in (raptor.load_teachers(whole("apg"))[:2], raptor.load_teachers(whole("apg"))[2:]):  # its two shards
        test = evaluation(tiny(), teachers.quadrotors, 2, VALIDATION_SEED)
        returns = test(teachers.layers).returns.mean(1).tolist()
        assert returns == pytest.approx([record["validation_return"] for record in teachers.records], rel=1e-3)


@BOTH
def test_a_run_that_is_killed_and_resumed_has_the_teachers_that_it_would_have_had(
    algorithm: str, whole: Callable[[str], Path], tmp_path: Path
) -> None:
    command = [sys.executable, short_shards.__file__, str(tmp_path / "run"), algorithm]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert process.stdout is not None
    while float(process.stdout.readline()) < 2.25:  # the first shard is done, the second one has begun
        assert process.poll() is None
    process.kill()
    process.communicate()
    finished = tmp_path / "run" / "shards" / "0-0000" / "result.json"
    before = finished.stat().st_mtime_ns
    assert not (tmp_path / "run" / "teachers.json").exists()
    assert pre_train(tmp_path / "run", resume=True).finished
    assert finished.stat().st_mtime_ns == before
    assert weights(tmp_path / "run") == weights(whole(algorithm))
    assert records(tmp_path / "run") == records(whole(algorithm))
    assert metrics(tmp_path / "run") == metrics(whole(algorithm))
    assert points(tmp_path / "run") == points(whole(algorithm))


@BOTH
def test_a_run_that_is_interrupted_anywhere_ends_the_same(
    algorithm: str, whole: Callable[[str], Path], tmp_path: Path
) -> None:
    for reports in (1, 7):
        run = tmp_path / str(reports)
        config = tiny(f"algorithm={algorithm}", "checkpoint_interval_s=1e6")
        summary = pre_train(run, config=config, generate=3, progress=stopped_after(reports))
        assert not summary.finished
        assert not (run / "teachers.json").exists()
        assert pre_train(run, resume=True).finished
        assert weights(run) == weights(whole(algorithm)), reports


def test_a_finished_run_that_is_resumed_trains_nothing_and_repeats_no_metrics(tmp_path: Path) -> None:
    pre_train(tmp_path, config=tiny(), generate=3)
    before = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in (tmp_path / "shards").rglob("*.*")}
    kept = {name: (tmp_path / name).read_bytes() for name in ("teachers.json", "metrics.jsonl", "curves.json")}
    vehicles = {path.name: path.read_bytes() for path in (tmp_path / "quadrotors").iterdir()}
    calls: list[Progress] = []
    summary = pre_train(tmp_path, resume=True, progress=calls.append)
    assert summary.finished
    assert calls == []
    assert before == {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in (tmp_path / "shards").rglob("*.*")}
    assert kept == {name: (tmp_path / name).read_bytes() for name in kept}
    assert vehicles == {path.name: path.read_bytes() for path in (tmp_path / "quadrotors").iterdir()}


@pytest.mark.parametrize("left", [("run.yaml",), ("run.yaml", "quadrotors")])
def test_a_run_that_was_killed_before_its_plan_was_written_begins_anew(
    left: tuple[str, ...], whole: Callable[[str], Path], tmp_path: Path
) -> None:
    for path in whole("apg").iterdir():
        if path.name in left:
            (shutil.copytree if path.is_dir() else shutil.copy)(path, tmp_path / path.name)
    assert "there are no quadrotors to train for" in refusal(tmp_path, resume=True)
    assert pre_train(tmp_path, generate=3, resume=True).finished
    assert weights(tmp_path) == weights(whole("apg"))


@BOTH
def test_parts_that_are_put_together_are_the_run_that_one_process_would_have_made(
    algorithm: str, whole: Callable[[str], Path], tmp_path: Path
) -> None:
    config = tiny(f"algorithm={algorithm}")
    second = pre_train(tmp_path, config=config, generate=3, part=(2, 2))
    assert (second.finished, second.stopped, second.num_missing) == (False, False, 1)
    assert {path.name for path in (tmp_path / "shards").iterdir()} == {"0-0001"}
    interrupted = pre_train(tmp_path, config=config, generate=3, part=(1, 2), progress=stopped_after(2))
    assert (interrupted.stopped, interrupted.num_missing) == (True, 1)
    first = pre_train(tmp_path, part=(1, 2))  # goes on where it was
    assert (first.finished, first.num_missing) == (True, 0)
    assert not (tmp_path / "teachers.json").exists()
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "shards").rglob("*.*")}
    assert pre_train(tmp_path, resume=True).finished
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "shards").rglob("*.*")}
    assert weights(tmp_path) == weights(whole(algorithm))
    assert records(tmp_path) == records(whole(algorithm))
    assert metrics(tmp_path) == metrics(whole(algorithm))
    assert points(tmp_path) == points(whole(algorithm))


def test_parts_may_begin_at_the_same_time(whole: Callable[[str], Path], tmp_path: Path) -> None:
    run = tmp_path / "run"
    commands = [[sys.executable, short_shards.__file__, str(run), "apg", f"{i}/2"] for i in (1, 2)]
    processes = [subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) for command in commands]
    for process in processes:
        _, complaints = process.communicate(timeout=300)
        assert (process.returncode, complaints) == (0, b"")
    assert pre_train(run, resume=True).finished
    assert weights(run) == weights(whole("apg"))


def test_weak_teachers_are_trained_again_when_parts_are_put_together_or_by_the_parts_once_more(tmp_path: Path) -> None:
    config = tiny("max_attempts=2", "shard_size=1")
    one, other, straight = tmp_path / "one", tmp_path / "other", tmp_path / "straight"
    for run in (one, other):
        for part in ((1, 2), (2, 2)):
            pre_train(run, config=config, generate=3, part=part)
    assert {path.name for path in (one / "shards").iterdir()} == {"0-0000", "0-0001", "0-0002", "1-0001"}
    assert pre_train(other, part=(1, 2)).finished
    assert len(list((other / "shards").iterdir())) == 6
    for run in (one, other):
        assert pre_train(run, resume=True).finished
    pre_train(straight, config=config, generate=3)
    assert weights(one) == weights(other) == weights(straight)
    assert records(one) == records(other) == records(straight)


def test_a_part_asks_for_what_it_can_have(whole: Callable[[str], Path], tmp_path: Path) -> None:
    assert "a part must be one of 1/3 to 3/3, got 4/3" in refusal(tmp_path, generate=3, part=(4, 3))
    assert "a part must be one of" in refusal(tmp_path, generate=3, part=(0, 3))
    assert "--shard and --overwrite exclude each other" in refusal(tmp_path, generate=3, part=(1, 3), overwrite=True)
    assert not list(tmp_path.iterdir())
    run = whole("apg")
    assert "was begun with other settings: seed (0, now 1)" in refusal(run, config=tiny("seed=1"), part=(1, 2))
    assert "trains for other quadrotors" in refusal(run, sample_quadrotors(3, seed=5), part=(1, 2))
    with locked(run, shared=True):
        assert pre_train(run, part=(1, 2)).finished
        assert "another process is at work in" in refusal(run, resume=True)


def test_a_run_whose_folder_is_deleted_ends_with_one_sentence(tmp_path: Path) -> None:
    def delete(progress: Progress) -> None:
        if progress.step > 0:
            shutil.rmtree(tmp_path / "run", ignore_errors=True)

    sentence = refusal(tmp_path / "run", config=tiny(), generate=3, progress=delete)
    assert sentence == (
        f"{tmp_path}/run/shards/0-0000 is not there any more: the folder was deleted while the run was going on"
    )
    assert not (tmp_path / "run").exists()


def test_a_folder_of_an_older_version_is_loaded_but_not_gone_on_with(
    whole: Callable[[str], Path], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(whole("apg"), run)
    (run / "run.yaml").unlink()
    (run / "config.yaml").write_text(f"{OLD_MARK}pre-train\n{to_yaml(tiny())}")
    assert len(raptor.load_teachers(run)) == 3
    for how in ({"resume": True}, {"part": (1, 2)}):
        assert f"the run in {run} was begun by an older version" in refusal(run, generate=3, **how)
    assert pre_train(run, config=tiny(), generate=2, overwrite=True).num_teachers == 2
    assert not (run / "config.yaml").exists()


def test_processes_train_the_same_teachers_as_this_one(whole: Callable[[str], Path], tmp_path: Path) -> None:
    settings = tiny("engine=processes", "engine.num_workers=2", "algorithm=sac")
    assert pre_train(tmp_path, config=settings, generate=3).finished
    assert weights(tmp_path) == weights(whole("sac"))
    assert [record["return"] for record in records(tmp_path)] == [record["return"] for record in records(whole("sac"))]


def test_another_seed_gives_other_teachers_of_other_vehicles(whole: Callable[[str], Path], tmp_path: Path) -> None:
    pre_train(tmp_path, config=tiny("seed=1"), generate=3)
    one, other = raptor.load_teachers(whole("apg")), raptor.load_teachers(tmp_path)
    assert not torch.equal(one.layers[0].weight, other.layers[0].weight)
    assert not torch.equal(one.quadrotors.mass, other.quadrotors.mass)


def test_teachers_that_are_not_solved_are_trained_again_and_those_that_stay_so_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[PreTrainConfig, int, int]] = []
    validated = iter([[50.0, 400.0, 700.0], [350.0, 300.0], [200.0, 650.0]])

    def work(task: dict[str, Any], *arguments: Any) -> Any:
        asked.append((from_dict(PreTrainConfig, task["config"]), task["seed"], len(task["quadrotors"])))
        result = yield from shard.train_shard(task, *arguments)
        for record, value in zip(result["records"], next(validated), strict=True):
            record["validation_return"] = value
        return result

    monkeypatch.setattr(session, "train_shard", work)
    settings = tiny("solved_return=500", "retrain_below=600", "max_attempts=3", "retry_factor=1.5", "shard_size=3")
    summary = pre_train(tmp_path, config=settings, generate=3)
    assert [num for _, _, num in asked] == [3, 2, 2]
    assert len({seed for _, seed, _ in asked}) == 3
    assert [config.apg.num_updates for config, _, _ in asked] == [4, 6, 9]
    assert [config.curriculum.enabled for config, _, _ in asked] == [False, True, True]
    first, second, third = records(tmp_path)
    assert [r["validation_return"] for r in (first, second, third)] == [350.0, 650.0, 700.0]
    assert [r["solved"] for r in (first, second, third)] == [False, True, True]
    assert [r["attempts"] for r in (first, second, third)] == [3, 3, 1]
    assert (summary.num_solved, summary.unsolved) == (2, ("0000",))
    teachers = raptor.load_teachers(tmp_path)
    for teacher, (name, place) in enumerate((("1-0000", 0), ("2-0000", 1), ("0-0000", 2))):
        stored = torch.load(tmp_path / "shards" / name / "weights.pt", weights_only=True)["layers"]
        assert torch.equal(teachers.layers[0].weight[teacher], stored[0][place])


def test_solved_teachers_below_the_other_threshold_are_trained_again_too_but_count_as_solved(tmp_path: Path) -> None:
    settings = tiny("solved_return=-1000", "retrain_below=1000", "max_attempts=2", "shard_size=3")
    summary = pre_train(tmp_path, config=settings, generate=2)
    assert (summary.num_solved, summary.unsolved) == (2, ())
    assert [record["attempts"] for record in records(tmp_path)] == [2, 2]
    best = [record["validation_return"] for record in records(tmp_path)]
    results = [json.loads((tmp_path / "shards" / f"{i}-0000" / "result.json").read_text()) for i in range(2)]
    of_attempts = [[record["validation_return"] for record in result["records"]] for result in results]
    assert best == [max(pair) for pair in zip(*of_attempts, strict=True)]


def test_a_teacher_that_is_lost_from_the_first_flight_on_is_reported_and_the_others_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Unlucky(shard.APGTeachers):
        def update(self) -> dict[str, torch.Tensor]:
            self.layers[0].weight[0] = math.nan
            return super().update()

    monkeypatch.setattr(shard, "APGTeachers", Unlucky)
    summary: PreTrainSummary = pre_train(tmp_path, config=tiny("shard_size=3"), generate=3)
    assert summary.skipped == 4
    assert summary.diverged > 0
    assert [record["skipped"] for record in records(tmp_path)] == [4, 0, 0]
    assert "0000" in summary.unsolved
    assert raptor.load_teachers(tmp_path).layers[0].weight.isfinite().all()


def test_a_damaged_result_of_a_shard_is_named_with_what_to_do(whole: Callable[[str], Path], tmp_path: Path) -> None:
    shutil.copytree(whole("apg"), tmp_path / "run")
    path = tmp_path / "run" / "shards" / "0-0001"
    content = (path / "weights.pt").read_bytes()
    place = len(content) // 2
    for damaged in (b"", content[:place], content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]):
        (path / "weights.pt").write_bytes(damaged)
        sentence = refusal(tmp_path / "run", resume=True)
        assert sentence == (
            f"{path / 'weights.pt'} cannot be read: delete the folder {path} to train this shard again, then --resume"
        )
    shutil.rmtree(path)
    assert pre_train(tmp_path / "run", resume=True).finished
    assert weights(tmp_path / "run") == weights(whole("apg"))


def test_a_full_disk_is_told_and_the_run_goes_on_where_it_was(
    whole: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full_for(name: str) -> Callable[[Path, Path], Path]:
        replace = Path.replace

        def place(source: Path, target: Path) -> Path:
            if target.name == name:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return replace(source, target)

        return place

    for name in ("plan.json", "checkpoint_000002.pt", "weights.pt", "teachers.safetensors"):
        with monkeypatch.context() as patched:
            patched.setattr(Path, "replace", full_for(name))
            sentence = refusal(tmp_path, config=tiny(), generate=3, resume=True)
        assert sentence.startswith("cannot write ")
        assert f"{name}: No space left on device" in sentence
        assert not list(tmp_path.rglob("*.tmp"))
    assert pre_train(tmp_path, resume=True).finished
    assert weights(tmp_path) == weights(whole("apg"))


def with_inertia(quadrotors: Quadrotors, factor: float) -> Quadrotors:
    return dataclasses.replace(
        quadrotors, inertia=factor * quadrotors.inertia, inertia_inverse=quadrotors.inertia_inverse / factor
    )


def test_a_run_is_resumed_only_with_its_own_vehicles(whole: Callable[[str], Path]) -> None:
    run, own = whole("apg"), sample_quadrotors(3, seed=0)
    assert pre_train(run, own, resume=True).finished
    assert pre_train(run, generate=3, resume=True).finished
    other = "trains for other quadrotors: resume it without giving any"
    assert other in refusal(run, sample_quadrotors(3, seed=5), resume=True)
    assert other in refusal(run, with_inertia(own, 1.01), resume=True)
    assert "trains 3 teachers, got 4 quadrotors: resume it without them" in refusal(run, generate=4, resume=True)
    assert "trains 3 teachers, got 2 quadrotors: resume it without them" in refusal(run, num_teachers=2, resume=True)


def test_a_run_is_resumed_only_with_settings_that_give_the_same_result(whole: Callable[[str], Path]) -> None:
    run = whole("apg")
    assert "was begun with other settings: seed (0, now 1)" in refusal(run, config=tiny("seed=1"), resume=True)
    assert pre_train(run, config=tiny("engine.retries=1", "memory_gib=3", "checkpoint_interval_s=9"), resume=True)


def falling(quadrotors: Quadrotors) -> Quadrotors:
    return dataclasses.replace(quadrotors, rotor_thrust_coefficients=0.2 * quadrotors.rotor_thrust_coefficients)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({}, "there are no quadrotors to train for: give a folder of them, or a number to generate"),
        ({"quadrotors": "x", "generate": 2}, "quadrotors are either read or generated: give a folder, or a number"),
        ({"quadrotors": "no/such"}, "there is no quadrotor 'no/such'"),
        ({"generate": 3, "num_teachers": 4}, "num_teachers must be between 1 and the 3 quadrotors there are, got 4"),
        ({"generate": 3, "num_teachers": 0}, "num_teachers must be between 1 and the 3 quadrotors there are, got 0"),
        (
            {"quadrotors": falling(sample_quadrotors(3, seed=0))},
            "3 quadrotors cannot hover within their limits",
        ),
        ({"generate": 2, "config": tiny("memory_gib=0.01")}, "do not fit into 0.01 GiB: lower apg.num_envs"),
        ({"generate": 2, "config": tiny("device=tpu")}, "device must be cpu"),
    ],
)
def test_a_mistake_is_told_before_anything_is_written(arguments: dict[str, Any], sentence: str, tmp_path: Path) -> None:
    assert sentence in refusal(tmp_path / "run", **{"config": tiny(), **arguments})
    assert not (tmp_path / "run").exists()


def test_files_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    folder = tmp_path / "vehicles"
    folder.mkdir()
    assert str(folder) in refusal(tmp_path / "run", folder)
    sample_quadrotors(3, seed=0).save(folder)
    files = sorted(folder.glob("*.json"))
    files[1].write_text("{")
    document = json.loads(files[2].read_text())
    document["dynamics"]["gravity"] = [0, 0, -90]
    files[2].write_text(json.dumps(document))
    sentence = refusal(tmp_path / "run", folder)
    assert files[1].name in sentence
    assert files[2].name in sentence
    assert files[0].name not in sentence
    assert not (tmp_path / "run").exists()


def test_the_users_own_files_are_left_alone_where_no_run_has_been(tmp_path: Path) -> None:
    vehicles = tmp_path / "quadrotors"
    sample_quadrotors(4, seed=0).save(vehicles)
    before = {path: path.read_bytes() for path in vehicles.iterdir()}
    for flags in ({}, {"overwrite": True}, {"resume": True}):
        sentence = refusal(tmp_path, vehicles, tiny(), num_teachers=2, **flags)
        assert sentence == f"{tmp_path} holds quadrotors that no run wrote: choose another output folder"
    assert before == {path: path.read_bytes() for path in vehicles.iterdir()}


def test_vehicles_keep_their_names_also_where_the_run_is_interrupted(tmp_path: Path) -> None:
    sample_quadrotors(2, seed=3).save(tmp_path / "vehicles")
    for old, new in zip(sorted((tmp_path / "vehicles").glob("*.json")), ("mine", "yours"), strict=True):
        old.rename(tmp_path / "vehicles" / f"{new}.json")
    run = tmp_path / "run"
    assert not pre_train(run, tmp_path / "vehicles", tiny(), progress=stopped_after(2)).finished
    summary = pre_train(run, resume=True)
    assert [record["name"] for record in records(run)] == ["mine", "yours"]
    assert summary.unsolved == ("mine", "yours")


def test_the_first_vehicles_of_a_folder_are_taken_and_an_earlier_run_is_replaced(tmp_path: Path) -> None:
    sample_quadrotors(4, seed=3).save(tmp_path / "vehicles")
    run = tmp_path / "run"
    pre_train(run, generate=3, config=tiny())
    assert "already holds a run" in refusal(run, generate=3, config=tiny())
    summary = pre_train(run, tmp_path / "vehicles", tiny(), num_teachers=2, overwrite=True)
    assert summary.num_teachers == 2
    torch.testing.assert_close(raptor.load_teachers(run).quadrotors.mass, sample_quadrotors(4, seed=3).mass[:2])
    assert len(list((run / "quadrotors").glob("*.json"))) == 2
    assert {path.name for path in (run / "shards").iterdir()} == {"0-0000"}


def test_progress_goes_from_nothing_to_all_teachers(tmp_path: Path) -> None:
    seen: list[Progress] = []
    pre_train(tmp_path, config=tiny("max_attempts=2"), generate=3, progress=seen.append)
    for attempt in ("teacher", "teacher (attempt 2)"):
        done = [progress.step for progress in seen if progress.unit == attempt]
        assert done[0] == 0
        assert done == sorted(done)
        assert done[-1] == pytest.approx(3)
    last = seen[-1]
    assert (last.num_steps, last.remaining_s) == (3, 0)
    assert last.env_steps_per_s > 0
    assert "mean_return" in last.validation
    assert all(math.isnan(progress.remaining_s) or progress.remaining_s >= 0 for progress in seen)


def test_settings_survive_the_way_to_a_shard() -> None:
    config = load_config(PreTrainConfig, "paper", ["engine=processes", "sac.replay.kind=prioritised"])
    assert from_dict(PreTrainConfig, json.loads(json.dumps(to_dict(config)))) == config


def test_the_curve_of_a_population_has_the_points_that_all_shards_have() -> None:
    def point(steps: int, returns: list[float | None]) -> dict[str, Any]:
        return {"env_steps": steps, "elapsed_s": 2.0, "returns": returns}

    curves = [
        {"teachers": [0, 1], "points": [point(10, [1.0, 3.0]), point(20, [5.0, None])]},
        {"teachers": [2], "points": [point(10, [8.0]), point(20, [7.0]), point(30, [9.0])]},
    ]
    first, second = population_curve(curves)
    assert first == {"env_steps": 10, "elapsed_s": 4.0, "mean": 4.0, "p10": 1.4, "p50": 3.0, "p90": 7.0, "worst": 4.0}
    assert (second["env_steps"], second["mean"]) == (20, 6.0)
    many = [{"teachers": list(range(30)), "points": [point(1, [float(i) for i in range(30)])]}]
    assert population_curve(many)[0]["worst"] == 4.5
