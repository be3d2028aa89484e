"""What a flight is worth, counted until it is over."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from torch.utils import _pytree as pytree

from raptor.environments.episode import begin_episode
from raptor.evaluation import fly
from raptor.nn import MLPPolicy, RaptorPolicy
from raptor.quadrotor import from_axis_angle, load_platform, sample_quadrotors
from raptor.tasks import InitialStates, References, Task, Termination

STILL = References(langevin_share=0.0)
GRAVITY, DT = 9.81, 0.01


def at_rest(rotor_speed, **options):
    """A task that starts at the origin, level and at rest, with rotors at this fraction of their range."""
    starts = InitialStates(guidance=1.0, rotor_speed=(rotor_speed, rotor_speed))
    return Task(initial_states=starts, references=STILL, **options)


@pytest.mark.parametrize("num_steps", [21, 60])
def test_a_vehicle_whose_rotors_stand_still_falls_until_it_is_too_fast(num_steps, constant, generator):
    quadrotors = load_platform("x500_sim").repeat_interleave(2)
    flights = fly(constant(-1), at_rest(0.0), quadrotors, generator, num_steps, compile=False)
    fallen = [0.5 * GRAVITY * (DT * k) ** 2 for k in range(20)]  # before each step; after 21, faster than 2 m/s
    expected = sum(1.5 - x for x in fallen) - 2 - 100  # the first action departs from 0 by 1 on each rotor
    assert flights.terminated.tolist() == [True, True]
    assert flights.lengths.tolist() == [21, 21]
    assert flights.returns.tolist() == pytest.approx([expected] * 2, abs=1e-3)


def test_a_vehicle_that_hovers_perfectly_gets_all_there_is(constant, generator):
    quadrotors = load_platform("x500_real")
    hover = quadrotors.hover_throttle.item()
    action = 2 * hover - 1
    flights = fly(constant(action), at_rest(hover), quadrotors, generator, compile=False)
    assert flights.returns.item() == pytest.approx(750 - 2 * abs(action), abs=0.05)
    assert flights.lengths.item() == 500
    assert not flights.terminated.item()
    assert flights.position_rmse.item() < 1e-4
    assert flights.offset.abs().max() < 1e-4


def test_position_errors_count_from_the_given_step_on_whether_terminated_or_not(constant, generator):
    quadrotors = load_platform("x500_sim")
    flights = fly(constant(-1), at_rest(0.0), quadrotors, generator, 40, first_counted_step=30, compile=False)
    below = [0.5 * GRAVITY * (DT * k) ** 2 for k in range(31, 41)]
    assert flights.offset[0].tolist() == pytest.approx([0, 0, -sum(below) / 10], abs=1e-5)
    assert flights.position_rmse.item() == pytest.approx(math.sqrt(sum(x * x for x in below) / 10), abs=1e-5)


def test_a_lost_vehicle_counts_as_far_away_even_if_nothing_is_finite_any_more(constant, generator):
    flights = fly(constant(math.nan), at_rest(0.0), load_platform("mrs"), generator, 10, compile=False)
    assert flights.terminated.item()
    assert flights.lengths.item() == 1
    assert flights.returns.item() == -100
    assert flights.position_rmse.item() == pytest.approx(100 * math.sqrt(3))


def test_vehicles_do_not_touch_each_other(published, generator):
    task = Task(references=STILL)
    quadrotors = sample_quadrotors(6, seed=5)
    start = begin_episode(task, quadrotors, generator)
    together = fly(published, task, quadrotors, generator, 100, start=start, compile=False)
    one = pytree.tree_map(lambda tensor: tensor[4:5], start)
    alone = fly(published, task, quadrotors[4], generator, 100, start=one, compile=False)
    assert alone.returns.item() == pytest.approx(together.returns[4].item(), abs=1e-3)
    assert alone.position_rmse.item() == pytest.approx(together.position_rmse[4].item(), abs=1e-5)


@pytest.mark.parametrize("network", [RaptorPolicy, MLPPolicy])
def test_a_policy_that_is_called_flies_as_one_that_is_part_of_the_step(network):
    torch.manual_seed(0)
    inside = network(hidden_dim=8)

    class Called:
        initial_hidden_state = inside.initial_hidden_state

        def __call__(self, observation, hidden):
            return inside(observation, hidden)

    quadrotors = sample_quadrotors(5, seed=1)
    flights = [
        fly(policy, Task(), quadrotors, torch.Generator().manual_seed(2), 120, compile=False)
        for policy in (inside, Called())
    ]
    assert flights[0].lengths.unique().numel() > 1
    torch.testing.assert_close(flights[0].returns, flights[1].returns, atol=1e-3, rtol=0)


def test_the_same_seed_flies_the_same_and_another_does_not(published):
    quadrotors = sample_quadrotors(4, seed=1)
    first, again, other = (
        fly(published, Task(), quadrotors, torch.Generator().manual_seed(seed), 60, compile=False).returns
        for seed in (0, 0, 1)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_a_recording_holds_the_start_and_every_step_until_and_after_the_end(constant, generator):
    quadrotors = load_platform("x500_sim").repeat_interleave(3)
    flights = fly(constant(-1), at_rest(0.0), quadrotors, generator, 30, record=True, compile=False)
    recording = flights.recorded
    assert recording.position.shape == (31, 3, 3)
    assert recording.time[-1].item() == pytest.approx(0.3)
    assert recording.flying[:, 0].tolist() == [True] * 21 + [False] * 10
    height = recording.position[:, 0, 2]
    torch.testing.assert_close(height, -0.5 * GRAVITY * recording.time**2, atol=1e-5, rtol=0)
    torch.testing.assert_close(recording.tracking_error[:, 0], -height, atol=1e-6, rtol=0)
    assert recording[:5, 1:].orientation.shape == (5, 2, 4)


def test_tilt_is_the_angle_between_the_body_and_the_vertical(constant, generator):
    task, quadrotors = at_rest(0.0), load_platform("mrs")
    start = begin_episode(task, quadrotors, generator)
    for axis, angle, tilt in (([1.0, 0, 0], 2.0, 2.0), ([0, 1.0, 0], -0.5, 0.5), ([0, 0, 1.0], 1.0, 0.0)):
        turned = from_axis_angle(torch.tensor([axis]), torch.tensor([angle]))
        begun = dataclasses.replace(start, state=dataclasses.replace(start.state, orientation=turned))
        flights = fly(constant(0), task, quadrotors, generator, 1, start=begun, record=True, compile=False)
        assert flights.recorded.tilt[0].item() == pytest.approx(tilt, abs=1e-3)


def test_nothing_is_recorded_that_was_not_asked_for(constant, generator):
    flights = fly(constant(0), at_rest(0.5), load_platform("mrs"), generator, 2, compile=False)
    with pytest.raises(ValueError, match="record=True"):
        _ = flights.recorded


def test_without_termination_every_flight_lasts(constant, generator):
    task = at_rest(0.0, termination=Termination(enabled=False))
    flights = fly(constant(-1), task, load_platform("x500_sim"), generator, 40, compile=False)
    assert flights.lengths.item() == 40
    assert not flights.terminated.item()


def test_fast_motors_are_flown_exactly_and_as_in_l2f_where_the_task_says_so(constant, generator):
    mrs = load_platform("mrs")
    taus = torch.full((1, 4), 2e-3)
    fast = dataclasses.replace(mrs, rotor_time_constants_rising=taus, rotor_time_constants_falling=taus)
    action = 2 * mrs.hover_throttle.item() - 1
    lost = {}
    for exact in (None, False):
        task = at_rest(0.5, exact_rotors=exact)
        lost[exact] = fly(constant(action), task, fast, generator, 60, compile=False).terminated.item()
    assert lost == {None: False, False: True}
