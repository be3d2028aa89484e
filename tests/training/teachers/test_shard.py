"""A shard: its best snapshots, its checkpoints, and what happens when either is disturbed."""

from __future__ import annotations

import errno
import json
import math
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from short_shards import tiny

from raptor.config import to_dict
from raptor.core.atomic import FolderStore, Store
from raptor.core.errors import UserError
from raptor.formats.torch_files import load_torch
from raptor.nn.stacked_mlp import Layer
from raptor.quadrotor import sample_quadrotors
from raptor.rl.teacher_test import TeacherTest
from raptor.runs.stopping import stop_on_signal
from raptor.tasks import trajectory_files
from raptor.tasks.trajectory_files import MARK, remember
from raptor.training.teachers import shard
from raptor.training.teachers.config import PreTrainConfig
from raptor.training.teachers.gradient import APGTeachers
from raptor.training.teachers.learner import TeacherLearner
from raptor.training.teachers.shard import CURVE, TEST_SEED, VALIDATION_SEED, WEIGHTS, evaluation, make_learner

SEED = 11
BOTH = pytest.mark.parametrize("algorithm", ["apg", "sac"])
VEHICLES = sample_quadrotors(2, seed=4)


def train(
    config: PreTrainConfig, store: Store | Path, stop_after: float = math.inf, **more: Any
) -> dict[str, Any] | None:
    """Train a shard of two teachers, stopping after so many reports of this session."""
    where = FolderStore(store) if isinstance(store, Path) else store
    reports: list[Any] = []
    task = {"config": to_dict(config), "quadrotors": VEHICLES.to_dicts(), "seed": SEED, **more}
    work = shard.train_shard(json.loads(json.dumps(task)), where, "cpu", lambda: len(reports) >= stop_after)
    while True:
        try:
            reports.append(json.loads(json.dumps(next(work))))
        except StopIteration as end:
            return end.value


def test_a_worker_is_given_the_trajectory_that_is_in_no_file_of_its_own(tmp_path: Path) -> None:
    text = "t,x,y,z\n0,0,0,0\n0.1,0.4,0,0\n0.2,0.8,0,0\n"
    config = tiny(f"task.references.trajectory=gone.csv{MARK}{remember(text)}", "task.termination.about_target=true")
    trajectory_files._texts.clear()
    with pytest.raises(UserError, match=r"gone.csv cannot be read"):
        train(config, tmp_path)
    result = train(config, tmp_path, trajectory=text)
    assert result is not None
    assert len(result["records"]) == len(VEHICLES)


def learner(config: PreTrainConfig) -> TeacherLearner:
    return make_learner(config, VEHICLES.component_major(), SEED)


def layers_of(path: Path) -> list[torch.Tensor]:
    return load_torch((path / WEIGHTS).read_bytes(), WEIGHTS)["layers"]


def same(one: Path, other: Path) -> bool:
    return all(torch.equal(a, b) for a, b in zip(layers_of(one), layers_of(other), strict=True))


def without_times(result: dict[str, Any] | None) -> dict[str, Any]:
    assert result is not None
    return {key: value for key, value in result.items() if key != "elapsed_s"}


def curve(path: Path) -> list[dict[str, Any]]:
    return [without_times(point) for point in json.loads((path / CURVE).read_text())]


def newest(path: Path) -> Path:
    return max(path.glob("checkpoint_*.pt"))


@pytest.mark.parametrize(("algorithm", "moments"), [("apg", (1, 2, 4, 7)), ("sac", (1, 4, 12, 15, 19))])
def test_a_shard_that_is_stopped_at_any_moment_ends_as_if_it_had_not_been(
    algorithm: str, moments: tuple[int, ...], tmp_path: Path
) -> None:
    config = tiny(f"algorithm={algorithm}", "checkpoint_interval_s=1e6")
    whole = train(config, tmp_path / "whole")
    for number in moments:
        path = tmp_path / str(number)
        assert train(config, path, stop_after=number) is None
        assert not (path / WEIGHTS).exists()
        assert without_times(train(config, path)) == without_times(whole), number
        assert same(path, tmp_path / "whole")
        assert curve(path) == curve(tmp_path / "whole")


@BOTH
def test_a_shard_that_is_stopped_again_and_again_ends_as_if_it_had_not_been(algorithm: str, tmp_path: Path) -> None:
    config = tiny(f"algorithm={algorithm}")
    train(config, tmp_path / "whole")
    sessions = 1
    while train(config, tmp_path / "often", stop_after=2) is None:
        sessions += 1
        assert sessions < 40
    assert sessions >= 4
    assert same(tmp_path / "often", tmp_path / "whole")


def test_a_shard_keeps_its_two_newest_checkpoints_in_any_store(tmp_path: Path) -> None:
    store: dict[str, bytes] = {}
    result = train(tiny(), store)
    train(tiny(), tmp_path)
    assert sorted(store) == ["checkpoint_000003.pt", "checkpoint_000004.pt", CURVE, WEIGHTS]
    assert store[WEIGHTS] == (tmp_path / WEIGHTS).read_bytes()
    assert result is not None


@BOTH
def test_the_best_snapshot_by_validation_is_what_remains(algorithm: str, tmp_path: Path) -> None:
    config = tiny(f"algorithm={algorithm}", f"{algorithm}.validation_interval=1")
    result = train(config, tmp_path)
    points = curve(tmp_path)
    assert [point["step"] for point in points] == [1, 2, 3, 4]
    again = make_learner(config, VEHICLES.component_major(), SEED)
    snapshots = {}
    while again.step_count < 4:
        again.update()
        snapshots[again.env_steps] = [t.clone() for layer in again.teachers() for t in layer]
    for place, record in enumerate(without_times(result)["records"]):
        returns = [point["returns"][place] for point in points]
        best = returns.index(max(returns))
        assert record["validation_return"] == pytest.approx(max(returns), abs=1e-3)
        assert record["steps"] == points[best]["env_steps"]
        kept = [tensor[place] for tensor in layers_of(tmp_path)]
        assert all(torch.equal(a, b[place]) for a, b in zip(kept, snapshots[record["steps"]], strict=True))


def test_validation_is_deterministic_on_starts_that_no_seed_of_the_run_changes() -> None:
    layers = learner(tiny()).teachers()
    returns = TeacherTest(shard.Task(episode_steps=6), VEHICLES, 3, VALIDATION_SEED, compile=False)(layers).returns
    for settings in (tiny("num_validation=3"), tiny("num_validation=3", "seed=5")):
        test = learner(settings).test
        for _ in range(2):
            assert torch.equal(test(layers).returns, returns)


def test_the_test_is_of_other_starts_with_an_interval_around_its_mean(tmp_path: Path) -> None:
    config = tiny("num_evaluation=9")
    result = train(config, tmp_path)
    leaves = layers_of(tmp_path)
    layers = tuple(Layer(*pair) for pair in zip(leaves[::2], leaves[1::2], strict=True))
    returns = evaluation(config, VEHICLES, 9, TEST_SEED)(layers).returns.double()
    for record, own in zip(without_times(result)["records"], returns, strict=True):
        half = 1.96 * own.std().item() / 3
        assert record["return"] == pytest.approx(own.mean().item(), rel=1e-4)
        assert record["return_high"] - record["return"] == pytest.approx(half, rel=1e-3)
        assert record["return"] - record["return_low"] == pytest.approx(half, rel=1e-3)
        assert record["return"] != pytest.approx(record["validation_return"])


def cut_short(content: bytes) -> bytes:
    return content[: len(content) // 2]


def flip_a_bit(content: bytes) -> bytes:
    place = len(content) // 3
    return content[:place] + bytes([content[place] ^ 4]) + content[place + 1 :]


@pytest.mark.parametrize(
    ("algorithm", "damage"), [("apg", cut_short), ("sac", flip_a_bit), ("apg", lambda content: b"")]
)
def test_a_damaged_checkpoint_is_told_and_an_older_one_leads_to_the_same_end(
    algorithm: str, damage: Callable[[bytes], bytes], tmp_path: Path
) -> None:
    config = tiny(f"algorithm={algorithm}")
    train(config, tmp_path / "whole")
    path = tmp_path / "damaged"
    train(config, path, stop_after=4 if algorithm == "apg" else 12)
    file = newest(path)
    file.write_bytes(damage(file.read_bytes()))
    with pytest.warns(
        UserWarning, match=f"{file.name} is passed over for an earlier checkpoint, because {file.name} is"
    ):
        train(config, path)
    assert same(path, tmp_path / "whole")


@pytest.mark.parametrize("training", [{}, {"learner": {}, "phase": "x"}, None])
def test_a_checkpoint_of_another_structure_is_passed_over_at_the_start(training: Any, tmp_path: Path) -> None:
    config = tiny()
    train(config, tmp_path / "whole")
    path = tmp_path / "other"
    train(config, path, stop_after=4)
    torch.save({"training": training}, path / "checkpoint_000009.pt")
    with pytest.warns(UserWarning, match=r"checkpoint_000009\.pt is passed over for an earlier checkpoint, because"):
        train(config, path)
    assert same(path, tmp_path / "whole")


def test_where_every_checkpoint_is_damaged_the_shard_begins_anew_and_says_so(tmp_path: Path) -> None:
    config = tiny()
    train(config, tmp_path / "whole")
    path = tmp_path / "damaged"
    train(config, path, stop_after=4)
    for file in path.glob("checkpoint_*.pt"):
        file.write_bytes(cut_short(file.read_bytes()))
    with pytest.warns(UserWarning, match="the shard begins from the start, because none of its checkpoints is good"):
        train(config, path)
    assert same(path, tmp_path / "whole")


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_full_disk_is_named_and_the_earlier_checkpoint_goes_on(
    call: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, path = tiny(), tmp_path / "full"
    train(config, tmp_path / "whole")
    train(config, path, stop_after=3)
    before = {file.name: file.read_bytes() for file in path.iterdir()}

    def full(*arguments: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full) if call == "fsync" else patched.setattr(Path, "replace", full)
        with pytest.raises(UserError, match=r"cannot write .*checkpoint_00000.\.pt: No space left on device"):
            train(config, path)
    assert {file.name: file.read_bytes() for file in path.iterdir()} == before
    train(config, path)
    assert same(path, tmp_path / "whole")


@BOTH
def test_a_teacher_whose_numbers_blow_up_is_counted_and_the_others_are_as_without_it(
    algorithm: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny(f"algorithm={algorithm}", "apg.shared_updates=0")
    whole = train(config, tmp_path / "whole")

    class Broken(shard.APGTeachers if algorithm == "apg" else shard.SACTeachers):
        def update(self) -> Any:
            layer = self.layers[0] if algorithm == "apg" else self.agents.state.actor[0]
            layer.weight[0] = math.nan
            return super().update()

    monkeypatch.setattr(shard, Broken.__base__.__name__, Broken)
    first, second = without_times(train(config, tmp_path / "broken"))["records"]
    before, unharmed = without_times(whole)["records"]
    assert second == unharmed
    assert first["skipped"] > 0
    assert first["diverged"] > before["diverged"]
    kept = layers_of(tmp_path / "broken")
    assert all(tensor.isfinite().all() for tensor in kept)
    assert all(torch.equal(a[1], b[1]) for a, b in zip(kept, layers_of(tmp_path / "whole"), strict=True))


def test_a_teacher_that_is_not_finite_does_not_spoil_what_the_others_learn_together() -> None:
    teachers = learner(tiny("apg.shared_updates=4"))
    assert isinstance(teachers, APGTeachers)
    teachers.layers[0].weight[0] = math.nan
    before = teachers.layers[0].weight[1].clone()
    for _ in range(4):
        teachers.update()
    assert teachers.skipped.tolist() == [4, 0]
    assert teachers.layers[0].weight[1].isfinite().all()
    assert not torch.equal(teachers.layers[0].weight[1], before)


def test_reports_say_how_far_it_is_and_each_validation_once() -> None:
    task = {"config": to_dict(tiny("curriculum.enabled=true")), "quadrotors": VEHICLES.to_dicts(), "seed": SEED}
    reports = [json.loads(json.dumps(r)) for r in shard.train_shard(task, {}, "cpu", lambda: False)]
    done = [report["teachers_done"] / 2 for report in reports]
    assert (done[0], done[-1], done) == (0.0, 1.0, sorted(done))
    assert set(done) == {0.0, 0.25, 0.5, 0.75, 1.0}
    points = [point for report in reports for point in report["points"]]
    assert [point["step"] for point in points] == [2, 4]
    assert points[0]["curriculum/fraction/hover"] == 1.0


@pytest.mark.parametrize("moment", ["an update", "a validation", "the test"])
def test_what_takes_too_long_is_given_up_after_a_request_and_nothing_before_it_is_lost(
    moment: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny("checkpoint_interval_s=1e6")
    train(config, tmp_path / "whole")

    def never_ending(*arguments: Any) -> None:
        signal.raise_signal(signal.SIGTERM)
        time.sleep(60)

    def works(*arguments: Any) -> Iterator[Any]:
        task = {"config": to_dict(config), "quadrotors": VEHICLES.to_dicts(), "seed": SEED}
        with stop_on_signal() as stop:
            yield from shard.train_shard(task, FolderStore(tmp_path / "stopped"), "cpu", stop)

    with monkeypatch.context() as patched:
        patched.setattr("raptor.runs.stopping.PATIENCE_S", 0.1)
        reports = []
        for report in works():
            reports.append(report)
            if report["teachers_done"] / 2 == 0.25 and moment == "an update":
                patched.setattr(APGTeachers, "update", never_ending)
            if report["teachers_done"] / 2 == 0.25 and moment == "a validation":
                patched.setattr(TeacherTest, "__call__", never_ending)
            if len(report["points"]) and report["teachers_done"] / 2 == 1.0 and moment == "the test":
                patched.setattr(TeacherTest, "__call__", never_ending)
    assert newest(tmp_path / "stopped").exists()
    train(config, tmp_path / "stopped")
    assert same(tmp_path / "stopped", tmp_path / "whole")
