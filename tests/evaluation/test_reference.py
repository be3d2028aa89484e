"""The suite `reference`: policies on a trajectory that is given."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from raptor.core.errors import UserError
from raptor.environments.collectors import ERROR_CAP
from raptor.evaluation import Evaluation, evaluate
from raptor.evaluation.results import rows
from raptor.evaluation.suites import following
from raptor.formats import load_policy
from raptor.quadrotor import load_platform
from raptor.tasks import References, Task, Trajectory, trajectory_from_array
from raptor.tasks.terms import find_term

TIME = np.arange(0, 0.405, 0.02)
STANDING, RACE = np.zeros((len(TIME), 3)), load_platform("race")


class Falling:
    """A policy that lets the motors stand."""

    def initial_hidden_state(self, *shape: int) -> torch.Tensor:
        return torch.zeros(*shape, 1)

    def __call__(self, observation: torch.Tensor, hidden: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return -torch.ones(len(observation), 4), hidden


def flown(reference: str, policy: object = None, **how: object) -> dict[str, object]:
    given = {"mine": load_policy("default") if policy is None else policy}
    evaluation = evaluate(given, ["reference"], 32, compile=False, quadrotors=RACE, reference=reference, **how)
    return evaluation.policies["mine"]["reference"]


def test_a_target_that_stands_still_is_held_and_one_that_jumps_is_missed_by_the_jump() -> None:
    still = flown(trajectory_from_array(STANDING, TIME))
    assert still["terminated"].value == 0
    assert still["length"].value == len(TIME) * 2 - 2  # whole, at 10 ms a step
    assert still["position_rmse"].value < still["worst_error"].value < 0.1
    assert "yaw_rmse" not in still
    moved = trajectory_from_array(np.c_[8 * TIME, 0 * TIME, 0 * TIME], TIME)
    assert flown(moved)["worst_error"].value > 10 * still["worst_error"].value


def test_the_error_of_yaw_is_measured_in_the_frame_of_the_target() -> None:
    aside = flown(trajectory_from_array(STANDING, TIME, yaw=2 + 0 * TIME))
    assert aside["yaw_rmse"].value < 0.05  # it starts with the yaw of the target
    turning = flown(trajectory_from_array(STANDING, TIME, yaw=3 + 2 * TIME))
    assert 0.05 < turning["yaw_rmse"].value < math.pi


def test_a_vehicle_that_falls_is_lost_and_counts_as_bad() -> None:
    time = np.arange(0, 0.805, 0.02)
    fallen = flown(trajectory_from_array(np.zeros((len(time), 3)), time), Falling())
    assert fallen["terminated"].value == 1
    assert 2 < fallen["worst_error"].value <= 3**0.5 * ERROR_CAP


def test_the_table_and_the_file_say_what_was_followed(tmp_path) -> None:
    (tmp_path / "mine.csv").write_text("t,x,y,z,yaw\n0,0,0,0,0\n0.1,0.1,0,0,0.1\n0.2,0.2,0,0,0.2\n")
    policies = {"default": load_policy("default"), "large": load_policy("large")}
    how = {"compile": False, "reference": str(tmp_path / "mine.csv")}
    evaluation = evaluate(policies, ["reference"], 1, **how)
    assert evaluation.headings["reference"] == f"reference: {tmp_path}/mine.csv, from rest to its end"
    labels = [row.label for row in rows(evaluation.policies, "reference")]
    assert {"position RMSE (m)", "worst position error (m)", "yaw RMSE (°)", "race position RMSE (m)"} <= {*labels}
    evaluation.save(tmp_path / "figures.json")
    assert Evaluation.load(tmp_path / "figures.json").headings == evaluation.headings


def test_the_suite_needs_a_trajectory_and_comes_with_one() -> None:
    with pytest.raises(UserError, match="the suite reference follows a trajectory: give it with --reference"):
        evaluate({"mine": Falling()}, ["reference"], 1)
    with pytest.raises(UserError, match="there is no term ellipse"):
        evaluate({"mine": Falling()}, None, 1, reference="ellipse")


def test_a_trajectory_with_settings_is_followed_with_them() -> None:
    turning = find_term("hover")(yaw_rate=(1.0, 1.0))
    task = Task(references=References(trajectory=Trajectory("hover", duration=0.1)), extra=[turning])
    condition = following(task.references.trajectory, 1, 0, RACE)
    start, _ = condition.begin()
    assert condition.num_steps == 10
    assert start.reference.yaw_rate.item() == 1.0
    assert not condition.task.references.trajectory.random_start
