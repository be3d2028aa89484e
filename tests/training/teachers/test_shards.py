"""A shard: its best snapshots, its checkpoints, and what happens when either is disturbed."""

from __future__ import annotations

import errno
import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from short_shards import EVALUATION, STEPS_PER_ROUND, tiny

from raptor.core.errors import UserError
from raptor.formats.torch_files import load_torch
from raptor.nn.stacked_mlp import Layer
from raptor.quadrotor import sample_quadrotors
from raptor.rl.teacher_test import TeacherTest
from raptor.runs.engines.folders import FolderWorkplace, TaskFolder
from raptor.training.teachers import sac as sac_teachers
from raptor.training.teachers import shards
from raptor.training.teachers.config import PreTrainConfig
from raptor.training.teachers.shards import CHECKPOINTS, CURVE, VALIDATION_SEED, WEIGHTS, Shard

SEED = 11
BOTH = pytest.mark.parametrize("algorithm", ["apg", "sac"])


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "EVALUATION", EVALUATION)
    monkeypatch.setattr(sac_teachers, "STEPS_PER_ROUND", STEPS_PER_ROUND)


class Desk(FolderWorkplace):
    """A workplace in a folder, where someone asks to stop after so many rounds."""

    @classmethod
    def at(cls, path: Path, stop_after: float = math.inf) -> Desk:
        folder = TaskFolder(path)
        folder.prepare()
        asked: list[bool] = []

        def stop() -> bool:
            asked.append(True)
            return len(asked) >= stop_after

        return cls(folder, "cpu", lambda values: json.dumps(values), stop)


def shard(config: PreTrainConfig, workplace: FolderWorkplace) -> Shard:
    return Shard(config, sample_quadrotors(2, seed=4).component_major(), SEED, workplace)


def weights(path: Path) -> list[torch.Tensor]:
    return load_torch((path / WEIGHTS).read_bytes(), WEIGHTS, "cpu")["layers"]


def same(one: Path, other: Path) -> bool:
    return all(torch.equal(a, b) for a, b in zip(weights(one), weights(other), strict=True))


def without_times(result: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in result.items() if key != "elapsed_s"}


def curve(path: Path) -> list[dict[str, Any]]:
    return [without_times(point) for point in json.loads((path / CURVE).read_text())]


@BOTH
def test_a_shard_that_is_stopped_at_any_round_ends_as_if_it_had_not_been(algorithm: str, tmp_path: Path) -> None:
    config = tiny(f"algorithm={algorithm}", "checkpoint_interval_s=1e6")
    whole = shard(config, Desk.at(tmp_path / "whole")).run()
    for number in (1, 2, 3):
        path = tmp_path / str(number)
        assert shard(config, Desk.at(path, stop_after=number)).run() is None
        assert not (path / WEIGHTS).exists()
        result = shard(config, Desk.at(path)).run()
        assert without_times(result) == without_times(whole), number
        assert same(path, tmp_path / "whole")
        assert curve(path) == curve(tmp_path / "whole")


@BOTH
def test_a_shard_that_is_stopped_after_every_round_ends_as_if_it_had_not_been(algorithm: str, tmp_path: Path) -> None:
    config = tiny(f"algorithm={algorithm}")
    shard(config, Desk.at(tmp_path / "whole")).run()
    sessions = 1
    while shard(config, Desk.at(tmp_path / "often", stop_after=1)).run() is None:
        sessions += 1
        assert sessions < 10
    assert sessions == 5
    assert same(tmp_path / "often", tmp_path / "whole")


@BOTH
def test_the_best_snapshot_by_validation_is_what_remains(algorithm: str, tmp_path: Path) -> None:
    config = tiny(f"algorithm={algorithm}", f"{algorithm}.validation_interval=1")
    result = shard(config, Desk.at(tmp_path)).run()
    points = curve(tmp_path)
    assert [point["round"] for point in points] == [1, 2, 3, 4]
    again = shard(config, Desk.at(tmp_path / "again"))
    snapshots = {}
    for _ in range(4):
        again.learner.round()
        snapshots[again.learner.env_steps] = [t.clone() for layer in again.learner.teachers() for t in layer]
    for place, record in enumerate(result["records"]):
        returns = [point["returns"][place] for point in points]
        best = returns.index(max(returns))
        assert record["validation_return"] == pytest.approx(max(returns), abs=1e-3)
        assert record["steps"] == points[best]["env_steps"]
        kept = [tensor[place] for tensor in weights(tmp_path)]
        assert all(torch.equal(a, b[place]) for a, b in zip(kept, snapshots[record["steps"]], strict=True))


def test_validation_is_deterministic_on_starts_that_no_seed_of_the_run_changes(tmp_path: Path) -> None:
    one = shard(tiny("num_validation=3"), Desk.at(tmp_path / "a"))
    other = Shard(tiny("num_validation=3", "seed=5"), one.quadrotors, 99, Desk.at(tmp_path / "b"))
    layers = one.learner.teachers()
    test = TeacherTest(EVALUATION, one.quadrotors, 3, VALIDATION_SEED, compile=False)
    for validate in (one.validate, one.validate, other.validate):
        assert torch.equal(validate(layers).returns, test(layers).returns)


def test_the_test_is_of_other_starts_with_an_interval_around_its_mean(tmp_path: Path) -> None:
    config = tiny("num_evaluation=9")
    result = shard(config, Desk.at(tmp_path)).run()
    leaves = weights(tmp_path)
    layers = tuple(Layer(*pair) for pair in zip(leaves[::2], leaves[1::2], strict=True))
    returns = TeacherTest(EVALUATION, sample_quadrotors(2, seed=4), 9, shards.TEST_SEED, False)(layers).returns.double()
    for record, own in zip(result["records"], returns, strict=True):
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
    shard(config, Desk.at(tmp_path / "whole")).run()
    path = tmp_path / "damaged"
    shard(config, Desk.at(path, stop_after=3)).run()
    newest = max((path / name for name in CHECKPOINTS), key=lambda file: file.stat().st_mtime_ns)
    newest.write_bytes(damage(newest.read_bytes()))
    with pytest.warns(UserWarning, match=f"goes on from an older checkpoint, because {newest.name} is damaged"):
        shard(config, Desk.at(path)).run()
    assert same(path, tmp_path / "whole")


def test_where_every_checkpoint_is_damaged_the_shard_begins_anew_and_says_so(tmp_path: Path) -> None:
    config = tiny()
    shard(config, Desk.at(tmp_path / "whole")).run()
    path = tmp_path / "damaged"
    shard(config, Desk.at(path, stop_after=3)).run()
    for name in CHECKPOINTS:
        (path / name).write_bytes(cut_short((path / name).read_bytes()))
    with pytest.warns(UserWarning, match=r"begins from the start, because checkpoint_0\.pt is damaged.*checkpoint_1"):
        shard(config, Desk.at(path)).run()
    assert same(path, tmp_path / "whole")


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_full_disk_is_named_and_the_earlier_checkpoint_goes_on(
    call: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, path = tiny(), tmp_path / "full"
    shard(config, Desk.at(tmp_path / "whole")).run()
    shard(config, Desk.at(path, stop_after=2)).run()
    before = {file.name: file.read_bytes() for file in path.iterdir()}

    def full(*arguments: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full) if call == "fsync" else patched.setattr(Path, "replace", full)
        with pytest.raises(UserError, match=r"cannot write .*checkpoint_0\.pt: No space left on device"):
            shard(config, Desk.at(path)).run()
    assert {file.name: file.read_bytes() for file in path.iterdir()} == before
    shard(config, Desk.at(path)).run()
    assert same(path, tmp_path / "whole")


@BOTH
def test_a_teacher_whose_numbers_blow_up_is_counted_and_the_others_are_as_without_it(
    algorithm: str, tmp_path: Path
) -> None:
    config = tiny(f"algorithm={algorithm}", "apg.shared_updates=0")
    whole = shard(config, Desk.at(tmp_path / "whole")).run()
    broken = shard(config, Desk.at(tmp_path / "broken"))
    learner: Any = broken.learner
    layer = learner.layers[0] if algorithm == "apg" else learner.agents.state.actor[0]
    layer.weight[0] = math.nan
    result = broken.run()
    assert result["records"][1] == whole["records"][1]
    assert (result["diverged"][1], result["skipped"][1]) == (whole["diverged"][1], whole["skipped"][1])
    assert result["skipped"][0] > 0
    assert result["diverged"][0] > whole["diverged"][0]
    kept = weights(tmp_path / "broken")
    assert all(tensor.isfinite().all() for tensor in kept)
    assert all(torch.equal(a[1], b[1]) for a, b in zip(kept, weights(tmp_path / "whole"), strict=True))
    json.dumps(result)


def test_a_teacher_that_is_not_finite_does_not_spoil_what_the_others_learn_together(tmp_path: Path) -> None:
    broken = shard(tiny("apg.shared_updates=4"), Desk.at(tmp_path))
    learner: Any = broken.learner
    learner.layers[0].weight[0] = math.nan
    before = learner.layers[0].weight[1].clone()
    result = broken.run()
    assert result["skipped"] == [4, 0]
    assert learner.layers[0].weight[1].isfinite().all()
    assert not torch.equal(learner.layers[0].weight[1], before)


def test_reports_hold_rounds_and_validations_as_json_knows_them(tmp_path: Path) -> None:
    reports: list[dict[str, Any]] = []
    folder = TaskFolder(tmp_path)
    folder.prepare()
    place = FolderWorkplace(folder, "cpu", lambda values: reports.append(json.loads(json.dumps(values))), lambda: False)
    shard(tiny("curriculum.enabled=true"), place).run()
    assert [report["round"] for report in reports if not report["validation"]] == [0, 1, 2, 3, 4]
    points = [report["validation"] for report in reports if report["validation"]]
    assert [point["round"] for point in points] == [2, 4]
    assert points[0]["curriculum/fraction/hover"] == 1.0
