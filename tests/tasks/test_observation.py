"""What policies see."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from raptor.quadrotor import State, from_axis_angle, load_platform
from raptor.tasks import Sensing, Task, sense, student_observation, teacher_observation


@pytest.fixture
def scene(at_origin):
    """A state with a number of its own in every place, and a target that moves."""
    state = State(
        position=torch.tensor([[1.0, 2.0, 3.0]]),
        orientation=from_axis_angle(torch.tensor([[0.0, 0.0, 1.0]]), torch.tensor([torch.pi / 2])),
        linear_velocity=torch.tensor([[4.0, 5.0, 6.0]]),
        angular_velocity=torch.tensor([[7.0, 8.0, 9.0]]),
        rotor_speed=torch.tensor([[0.0, 500.0, 1000.0, 2000.0]]),
    )
    target = {"position": torch.tensor([[0.5, 0.25, 0.125]]), "velocity": torch.tensor([[1.0, 1.0, 2.0]])}
    return state, dataclasses.replace(at_origin(1), **target)


def test_the_student_sees_errors_attitude_rates_and_its_previous_action_in_that_order(scene):
    previous = torch.tensor([[0.1, 0.2, 0.3, 0.4]])
    observation = student_observation(sense(*scene, target_visible=True), previous)
    left_turn = [0.0, -1.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0]  # row major: forward points to world y, left to -x
    expected = [0.5, 1.75, 2.875, *left_turn, 3.0, 4.0, 4.0, 7.0, 8.0, 9.0, 0.1, 0.2, 0.3, 0.4]
    torch.testing.assert_close(observation, torch.tensor([expected]), atol=1e-6, rtol=0)


def test_a_hidden_target_leaves_position_and_velocity_absolute(scene):
    sensed = sense(*scene, target_visible=False)
    torch.testing.assert_close(sensed[:, :3], scene[0].position)
    torch.testing.assert_close(sensed[:, 12:15], scene[0].linear_velocity)


def test_the_teacher_sees_the_rotor_speeds_on_top_scaled_by_the_limits(scene):
    previous = torch.zeros(1, 4)
    sensed = sense(*scene, target_visible=True)
    observation = teacher_observation(sensed, previous, scene[0].rotor_speed, load_platform("mrs"))
    assert observation.shape == (1, 26)
    torch.testing.assert_close(observation[:, :22], student_observation(sensed, previous))
    torch.testing.assert_close(observation[:, 22:], torch.tensor([[-1.0, -0.5, 0.0, 1.0]]))


def test_sensors_are_perfect_unless_said_otherwise():
    assert not Sensing().noisy
    assert Sensing(position_noise=0.01).noisy
    assert not Sensing(position_noise=0.01, noise_scale=(0.0, 0.0)).noisy


def test_the_paper_hides_the_target_and_feeds_back_raw_actions():
    paper, default = Task.paper(), Task()
    assert (paper.target_visible, paper.clip_previous_action) == (False, False)
    assert (default.target_visible, default.clip_previous_action) == (True, True)
    other = {"target_visible": True, "clip_previous_action": True, "exact_rotors": None}
    assert dataclasses.replace(paper, **other) == default
