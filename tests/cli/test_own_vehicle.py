"""Commands that train for vehicles of one's own."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny_run import TINY

import raptor as package
from raptor.config import load_config
from raptor.evaluation import Evaluation, evaluator, suites
from raptor.training import TrainDirectConfig

Run = Callable[..., str]


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A description; policies are evaluated on one suite alone, for a few steps."""

    def short(*given: Any) -> list[suites.Condition]:
        return [dataclasses.replace(each, num_steps=4, first_counted_step=2) for each in suites.conditions(*given)]

    monkeypatch.setattr(package.evaluation, "GIVEN_SUITES", ("platforms",))
    monkeypatch.setattr(evaluator, "conditions", short)
    path = tmp_path / "my5.yaml"
    path.write_text("mass: 0.65\narm_length: 0.11\nthrust_to_weight: 4\n")
    return path


def test_training_around_a_vehicle_ends_with_a_table_beside_the_packaged_policies(
    raptor: Run, tmp_path: Path, own: Path
) -> None:
    run = tmp_path / "mine"
    text = raptor("train-direct", "-o", run, "--quadrotor", own, "spread=20%", "spread.mass=5%", *TINY, "num_updates=1")
    evaluation = Evaluation.load(run / "evaluation.json")
    assert list(evaluation.policies) == ["published", "default", "large", "mine"]
    for name in evaluation.policies:
        assert name in text
    assert f"next: raptor evaluate {run} --quadrotor={own}" in text
    config = load_config(TrainDirectConfig, run)
    assert (config.spread.every, config.spread.mass, config.quadrotors) == (0.2, 0.05, (str(own),))
    assert config.initial_policy == load_config(TrainDirectConfig, "vehicle").initial_policy
    own.unlink()
    text = raptor("train-direct", "-o", run, "--resume")
    assert f"next: raptor evaluate {run} --quadrotor={run / 'quadrotors'}" in text


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--quadrotor", "my6.yaml"], "there is no quadrotor 'my6.yaml': give one of crazyflie, "),
        (["--quadrotor", "race", "spread=2"], "spread.every must be at least 0 and below 1, such as 0.2 or 20%, got 2"),
        (["spread=20%"], "spread is around given vehicles: name them with --quadrotor, or leave it out"),
        (["--quadrotor", "race", "hidden_dim=5"], "has hidden_dim="),
    ],
)
def test_a_mistake_is_one_sentence_before_anything_is_written(
    refused: Run, tmp_path: Path, arguments: list[str], sentence: str
) -> None:
    for command in ("train-direct", "quickstart"):
        assert sentence in refused(command, "-o", tmp_path / "run", *arguments, *TINY, "num_updates=1")
    assert not (tmp_path / "run").exists()


def test_teachers_are_trained_for_vehicles_of_any_kind(raptor: Run, tmp_path: Path, own: Path) -> None:
    short = ["validation_steps=4", "num_validation=2", "num_evaluation=2", "max_attempts=1", "task.episode_steps=8"]
    apg = ["apg.num_updates=1", "apg.num_envs=2", "apg.segment_steps=2", "apg.widths=[6]", "compile=false"]
    raptor("pre-train", "-o", tmp_path / "teachers", "-q", own, "--quadrotor", "race", *short, *apg)
    teachers = package.load_teachers(tmp_path / "teachers")
    assert [record["name"] for record in teachers.records] == ["my5", "race"]
