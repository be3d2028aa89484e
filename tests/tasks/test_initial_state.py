"""Starts follow the distribution that l2f's post-training draws from."""

from __future__ import annotations

import dataclasses
import math

import pytest
import scipy.stats
import torch

from raptor.core.errors import UserError
from raptor.quadrotor import load_platform, sample_quadrotors
from raptor.tasks import InitialStates, sample_initial_state

NUM = 20_000
SIGNIFICANCE = 1e-4


def is_uniform(values: torch.Tensor, low: float, high: float) -> bool:
    return scipy.stats.kstest(values.double().numpy(), "uniform", args=(low, high - low)).pvalue > SIGNIFICANCE


@pytest.fixture(scope="module")
def vehicle():
    return sample_quadrotors(1, seed=0)


@pytest.fixture(scope="module")
def starts(vehicle):
    """Many starts of one vehicle, and which of them are at the origin."""
    state = sample_initial_state(vehicle.repeat_interleave(NUM), InitialStates(), torch.Generator().manual_seed(0))
    return state, (state.position == 0).all(-1)


def test_a_tenth_of_the_episodes_start_at_the_origin_level_and_at_rest(starts):
    state, guided = starts
    assert scipy.stats.binomtest(int(guided.sum()), NUM, 0.1).pvalue > SIGNIFICANCE
    assert (state.linear_velocity[guided] == 0).all()
    assert (state.angular_velocity[guided] == 0).all()
    assert (state.orientation[guided] == torch.tensor([1.0, 0.0, 0.0, 0.0])).all()


@pytest.mark.parametrize(("part", "bound"), [("position", 0.5), ("linear_velocity", 1.0), ("angular_velocity", 1.0)])
def test_the_other_starts_are_uniform_in_boxes(starts, part, bound):
    state, guided = starts
    for axis in getattr(state, part)[~guided].unbind(-1):
        assert is_uniform(axis, -bound, bound)


def test_the_tilt_is_uniform_up_to_one_radian_about_a_uniform_axis(starts):
    state, guided = starts
    orientation = state.orientation[~guided]
    torch.testing.assert_close(orientation.norm(dim=-1), torch.ones(len(orientation)))
    angle = 2 * torch.acos(orientation[:, 0].clamp(max=1))
    assert is_uniform(angle, 0, 1)
    x, y, z = orientation[angle > 0.05, 1:].div(torch.sin(angle[angle > 0.05] / 2)[:, None]).unbind(-1)
    assert is_uniform(z, -1, 1)
    assert is_uniform(torch.atan2(y, x), -math.pi, math.pi)


def test_every_rotor_turns_at_up_to_half_of_its_range_also_at_the_origin(starts):
    state, guided = starts
    for chosen in (guided, ~guided):
        for rotor in state.rotor_speed[chosen].unbind(-1):
            assert is_uniform(rotor, 0, 0.5)
    correlation = torch.corrcoef(state.rotor_speed.mT) - torch.eye(4)
    assert correlation.abs().max() < 0.05


def test_rotor_speeds_are_in_the_unit_of_the_vehicle(generator):
    mrs = load_platform("mrs").repeat_interleave(1000)
    speed = sample_initial_state(mrs, InitialStates(), generator).rotor_speed
    assert 950 < speed.max() <= 1000
    assert 0 <= speed.min() < 50


def test_the_box_of_starts_can_be_the_vehicles_own(generator):
    quadrotors = sample_quadrotors(2000, seed=1)
    state = sample_initial_state(quadrotors, InitialStates(max_position=None, guidance=0.0), generator)
    assert is_uniform((state.position[:, 0] / quadrotors.max_position), -1, 1)


def test_every_bound_can_be_set(vehicle, generator):
    config = InitialStates(
        guidance=0.0,
        max_position=2.0,
        max_angle=3.0,
        max_linear_velocity=0.0,
        max_angular_velocity=5.0,
        rotor_speed=(0.4, 0.6),
    )
    state = sample_initial_state(vehicle.repeat_interleave(2000), config, generator)
    assert is_uniform(state.position[:, 2], -2, 2)
    assert is_uniform(2 * torch.acos(state.orientation[:, 0].clamp(max=1)), 0, 3)
    assert (state.linear_velocity == 0).all()
    assert is_uniform(state.angular_velocity[:, 0], -5, 5)
    assert is_uniform(state.rotor_speed[:, 0], 0.4, 0.6)


def test_a_seed_decides_the_start(vehicle):
    first, same, other = (
        sample_initial_state(vehicle, InitialStates(), torch.Generator().manual_seed(seed)).as_tensor()
        for seed in (1, 1, 2)
    )
    assert torch.equal(first, same)
    assert not torch.equal(first, other)


def test_impossible_ranges_are_refused():
    for field, value in (("guidance", 1.5), ("max_angle", -1.0), ("rotor_speed", (0.6, 0.4))):
        with pytest.raises(UserError, match=field):
            dataclasses.replace(InitialStates(), **{field: value})
