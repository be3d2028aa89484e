"""When an episode ends for good."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from raptor.tasks import Termination, terminated


@pytest.fixture
def ends(level, at_origin):
    """A function that says whether a vehicle with these parts of the state has left its bounds."""

    def value(config=Termination(), target=(0.0, 0.0, 0.0), **parts):  # noqa: B008
        quadrotors, state = level(1)
        quadrotors = dataclasses.replace(quadrotors, position_threshold=torch.tensor([1.5]))
        state = dataclasses.replace(state, **{name: torch.tensor([part]) for name, part in parts.items()})
        reference = dataclasses.replace(at_origin(1), position=torch.tensor([target]))
        return terminated(config, quadrotors, state, reference).item()

    return value


@pytest.mark.parametrize(("part", "bound"), [("position", 1.5), ("linear_velocity", 2.0), ("angular_velocity", 35.0)])
@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("sign", [-1, 1])
def test_each_axis_has_its_own_strict_bound_on_both_sides(ends, part, bound, axis, sign):
    vector = [0.0, 0.0, 0.0]
    vector[axis] = sign * bound
    assert not ends(**{part: vector})
    vector[axis] = sign * bound * 1.001
    assert ends(**{part: vector})


def test_the_bounds_are_per_axis_not_on_the_norm(ends):
    assert not ends(linear_velocity=[1.9, 1.9, 1.9])


def test_a_given_position_bound_overrides_the_vehicles_own(ends):
    assert ends(Termination(position=0.5), position=[0.6, 0.0, 0.0])
    assert not ends(Termination(position=5.0), position=[4.0, 0.0, 0.0])


def test_the_box_stands_at_the_origin_unless_it_moves_with_the_target(ends):
    far = {"position": [2.0, 0.0, 0.0], "target": (2.0, 0.0, 0.0)}
    assert ends(**far)
    assert not ends(Termination(about_target=True), **far)
    assert ends(Termination(about_target=True), position=[0.0, 0.0, 0.0], target=(2.0, 0.0, 0.0))


def test_nothing_ends_where_termination_is_disabled(ends):
    assert not ends(Termination(enabled=False), position=[100.0, 0.0, 0.0])


@pytest.mark.parametrize("part", ["position", "linear_velocity", "angular_velocity"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_finite_ends_the_episode(ends, part, value):
    assert ends(**{part: [0.0, value, 0.0]})
