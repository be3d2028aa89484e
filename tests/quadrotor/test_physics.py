"""The conventions and the mechanics of one step."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from raptor.quadrotor import (
    Quadrotors,
    State,
    from_axis_angle,
    load_platforms,
    rotation_matrix,
    rotor_setpoint,
    sample_quadrotors,
    step,
)

FRONT_RIGHT, BACK_RIGHT, BACK_LEFT, FRONT_LEFT = range(4)


def f64(numbers):
    return torch.tensor(numbers, dtype=torch.float64)


def fly(quadrotors, state, action, seconds, dt=0.01, **disturbance):
    for _ in range(round(seconds / dt)):
        state = step(quadrotors, state, action, dt, **disturbance)
    return state


def action_with_more(quadrotors, *rotors, by=0.1):
    action = (2 * quadrotors.hover_throttle - 1)[:, None].repeat(1, 4)
    action[:, list(rotors)] += by
    return action


def yaw(state):
    forward_x, forward_y = rotation_matrix(state.orientation)[..., 0], rotation_matrix(state.orientation)[..., 3]
    return torch.atan2(forward_y, forward_x)


@pytest.mark.parametrize(
    ("rotor", "x", "y"), [(FRONT_RIGHT, 1, -1), (BACK_RIGHT, -1, -1), (BACK_LEFT, -1, 1), (FRONT_LEFT, 1, 1)]
)
def test_rotors_are_ordered_front_right_back_right_back_left_front_left(rotor, x, y):
    for quadrotors in (load_platforms(), sample_quadrotors(50, seed=0)):
        assert (quadrotors.rotor_positions[:, rotor, 0] * x > 0).all()
        assert (quadrotors.rotor_positions[:, rotor, 1] * y > 0).all()


@pytest.mark.parametrize(
    ("rotors", "axis", "sign"),
    [
        ((FRONT_LEFT, FRONT_RIGHT), 1, -1),  # nose up is a negative turn about y (left)
        ((BACK_LEFT, BACK_RIGHT), 1, 1),
        ((FRONT_LEFT, BACK_LEFT), 0, 1),  # left side up is a positive turn about x (forward)
        ((FRONT_RIGHT, BACK_RIGHT), 0, -1),
        ((BACK_RIGHT, FRONT_LEFT), 2, 1),  # torque direction +1: turns left
        ((FRONT_RIGHT, BACK_LEFT), 2, -1),  # torque direction -1: turns right
    ],
)
def test_more_thrust_on_two_rotors_turns_about_one_axis(symmetric, hovering, rotors, axis, sign):
    state = fly(symmetric, hovering(symmetric), action_with_more(symmetric, *rotors), 0.1)
    rates = state.angular_velocity[0]
    assert sign * rates[axis] > 0.02
    assert rates[[i for i in range(3) if i != axis]].abs().max() < 1e-12


def test_a_positive_yaw_rate_turns_the_nose_left(symmetric, hovering):
    state = dataclasses.replace(hovering(symmetric), angular_velocity=f64([[0.0, 0.0, 1.0]]))
    after = fly(symmetric, state, action_with_more(symmetric), 0.5)
    assert yaw(after).item() == pytest.approx(0.5, abs=1e-9)


def test_leaning_forward_accelerates_forward(symmetric, hovering):
    lean = from_axis_angle(f64([[0.0, 1.0, 0.0]]), f64([0.2]))
    after = fly(symmetric, dataclasses.replace(hovering(symmetric), orientation=lean), action_with_more(symmetric), 0.1)
    assert after.linear_velocity[0, 0].item() == pytest.approx(
        9.81 * torch.sin(torch.tensor(0.2)).item() * 0.1, rel=1e-6
    )
    assert after.linear_velocity[0, 1].abs() < 1e-12


def test_velocity_is_of_the_world_and_rates_are_of_the_body(symmetric, hovering):
    # Rolled by 90 degrees: the body's z axis, its thrust and its yaw axis point to the world's right (-y).
    roll = from_axis_angle(f64([[1.0, 0.0, 0.0]]), f64([torch.pi / 2]))
    state = dataclasses.replace(hovering(symmetric), orientation=roll)
    pushed = fly(symmetric, state, action_with_more(symmetric), 0.1)
    assert pushed.linear_velocity[0].tolist() == pytest.approx([0, -0.981, -0.981], abs=1e-9)
    turning = fly(symmetric, state, action_with_more(symmetric, BACK_RIGHT, FRONT_LEFT), 0.1)
    assert turning.angular_velocity[0, 2] > 0.02
    # Yawing left about the body's axis, which points right, lifts the nose.
    assert rotation_matrix(turning.orientation)[0, 6] > 1e-3


def test_every_vehicle_hovers_at_its_hover_throttle(hovering):
    quadrotors = sample_quadrotors(64, seed=1, dtype=torch.float64)
    after = fly(quadrotors, hovering(quadrotors), action_with_more(quadrotors), 1.0)
    assert after.position.abs().max() < 1e-9
    assert after.linear_velocity.abs().max() < 1e-9


def test_without_thrust_everything_falls_with_gravity(symmetric, hovering):
    state = dataclasses.replace(hovering(symmetric), rotor_speed=torch.zeros(1, 4, dtype=torch.float64))
    after = fly(symmetric, state, -torch.ones(1, 4, dtype=torch.float64), 0.5)
    assert after.linear_velocity[0].tolist() == pytest.approx([0, 0, -9.81 * 0.5], abs=1e-12)
    assert after.position[0].tolist() == pytest.approx([0, 0, -9.81 * 0.125], abs=1e-12)


def test_a_force_pushes_along_the_world_and_a_torque_turns_about_the_body(symmetric, hovering):
    force, torque = f64([[0.5, -0.3, 0.2]]), f64([[0.0, 0.0, 0.003]])
    half_turn = from_axis_angle(f64([[0.0, 0.0, 1.0]]), f64([torch.pi]))
    state = dataclasses.replace(hovering(symmetric), orientation=half_turn)
    after = step(symmetric, state, action_with_more(symmetric), force=force, torque=torque)
    assert after.linear_velocity[0].tolist() == pytest.approx([0.005, -0.003, 0.002], abs=1e-12)
    assert after.angular_velocity[0].tolist() == pytest.approx([0, 0, 0.003 / 0.03 * 0.01], abs=1e-12)


def test_free_rotation_keeps_the_angular_momentum_of_the_world(symmetric, hovering):
    rates = f64([[2.0, -3.0, 1.0]])
    state = dataclasses.replace(
        hovering(symmetric), angular_velocity=rates, rotor_speed=torch.zeros(1, 4, dtype=torch.float64)
    )

    def momentum(state):
        matrix = rotation_matrix(state.orientation).reshape(-1, 3, 3)
        return (matrix @ symmetric.inertia @ state.angular_velocity[..., None]).squeeze(-1)

    after = fly(symmetric, state, -torch.ones(1, 4, dtype=torch.float64), 1.0, dt=0.002)
    assert (after.angular_velocity - rates).abs().max() > 0.5
    assert torch.allclose(momentum(after), momentum(state), rtol=0, atol=1e-8)


def test_rotors_rise_and_fall_with_their_own_time_constants(symmetric, hovering):
    state = dataclasses.replace(hovering(symmetric), rotor_speed=torch.full((1, 4), 0.5, dtype=torch.float64))
    action = f64([[1.0, -1.0, 1.0, -1.0]])
    speed = fly(symmetric, state, action, 0.05).rotor_speed[0]
    e = torch.e
    rising, falling = 1 - 0.5 * e**-1, 0.5 * e**-0.5
    assert speed.tolist() == pytest.approx([rising, falling, rising, falling], rel=1e-5)


def with_motors(quadrotors, rising, falling):
    """The same vehicles with other time constants (s)."""
    return dataclasses.replace(
        quadrotors,
        rotor_time_constants_rising=torch.full_like(quadrotors.rotor_time_constants_rising, rising),
        rotor_time_constants_falling=torch.full_like(quadrotors.rotor_time_constants_falling, falling),
    )


@pytest.mark.parametrize("method", ["rk4-exact-rotors", "midpoint-exact-rotors"])
@pytest.mark.parametrize("tau", [1e-3, 4e-3, 5e-3, 7.5e-3])
def test_fast_rotors_follow_their_lag_exactly_and_the_vehicle_moves_accordingly(symmetric, hovering, method, tau):
    quadrotors = with_motors(symmetric, tau, tau / 2 if tau > 1e-3 else tau)
    start = dataclasses.replace(hovering(symmetric), rotor_speed=torch.full((1, 4), 0.5, dtype=torch.float64))
    action = f64([[1.0, -1.0, 1.0, -1.0]])
    after = step(quadrotors, start, action, method=method)
    rising = 1 - 0.5 * np.exp(-0.01 / tau)
    falling = 0.5 * np.exp(-0.01 / quadrotors.rotor_time_constants_falling[0, 0].item())
    assert after.rotor_speed[0].tolist() == pytest.approx([rising, falling, rising, falling], rel=1e-9)
    exact = fly(quadrotors, start, action, 0.01, dt=1e-5)
    largest = exact.angular_velocity.abs().max()
    assert (after.angular_velocity - exact.angular_velocity).abs().max() < 0.25 * largest


@pytest.mark.parametrize("method", ["rk4", "midpoint"])
def test_fast_rotors_beside_them_change_nothing_for_other_vehicles(random_flight, method):
    quadrotors, state, action = random_flight(64, torch.float32)
    fast = with_motors(quadrotors[:32], 2e-3, 3e-3)
    together = Quadrotors.concatenate([fast, quadrotors[32:]])
    mixed = step(together, state, action, method=f"{method}-exact-rotors").as_tensor()
    assert torch.equal(mixed[32:], step(quadrotors, state, action, method=method).as_tensor()[32:])
    assert not torch.allclose(mixed[:32], step(together, state, action, method=method).as_tensor()[:32])


def test_a_direction_that_is_slow_stays_as_the_integrator_has_it(symmetric, hovering):
    quadrotors = with_motors(symmetric, 2e-3, 0.1)
    sinking = -torch.ones(1, 4, dtype=torch.float64)
    one, other = (step(quadrotors, hovering(symmetric), sinking, method=m) for m in ("rk4", "rk4-exact-rotors"))
    assert torch.equal(one.as_tensor(), other.as_tensor())


@pytest.mark.parametrize("method", ["rk4-exact-rotors", "midpoint-exact-rotors"])
def test_the_gradient_of_a_step_with_exact_rotors_is_right(random_flight, method):
    quadrotors, state, action = random_flight(2, torch.float64, seed=3)

    def function(state_tensor, action, rising, falling):
        changed = {"rotor_time_constants_rising": rising, "rotor_time_constants_falling": falling}
        vehicles = dataclasses.replace(quadrotors, **changed)
        return step(vehicles, State.from_tensor(state_tensor), action, method=method).as_tensor()

    taus = [torch.tensor([[2e-3], [5e-2]], dtype=torch.float64).expand(2, 4)] * 2
    leaves = [leaf.clone().requires_grad_() for leaf in (state.as_tensor(), 0.8 * action, *taus)]
    assert torch.autograd.gradcheck(function, leaves, eps=1e-7, atol=1e-4, rtol=1e-4)


def test_actions_are_clipped_and_mapped_onto_the_action_limits(symmetric):
    limits = dataclasses.replace(symmetric, action_limit=f64([[100.0, 500.0]]))
    setpoint = rotor_setpoint(limits, f64([[-1.0, 0.0, 1.0, 7.0]]))
    assert setpoint[0].tolist() == [100, 300, 500, 500]


def test_the_orientation_keeps_unit_length(random_flight):
    quadrotors, state, action = random_flight(64, torch.float32)
    state = fly(quadrotors, state, action, 0.5)
    assert torch.allclose(state.orientation.norm(dim=-1), torch.ones(64), atol=1e-6)


def test_rotor_speeds_stay_within_the_action_limits(random_flight):
    quadrotors, state, _ = random_flight(64, torch.float32)
    quick = dataclasses.replace(quadrotors, rotor_time_constants_rising=torch.full((64, 4), 1e-3))
    speed = step(quick, state, torch.ones(64, 4)).rotor_speed
    assert (speed <= 1).all()
    assert (speed >= 0).all()


def test_halving_the_step_divides_the_error_by_sixteen(symmetric, hovering):
    rates = f64([[1.0, -2.0, 1.5]])
    start = dataclasses.replace(
        hovering(symmetric), angular_velocity=rates, rotor_speed=torch.full((1, 4), 0.2, dtype=torch.float64)
    )
    action = f64([[0.3, 0.5, 0.2, 0.4]])  # rotors rise throughout, so that the flow is smooth
    exact = fly(symmetric, start, action, 0.32, dt=0.00125).as_tensor()
    errors = [(fly(symmetric, start, action, 0.32, dt=dt).as_tensor() - exact).norm() for dt in (0.02, 0.01)]
    assert 13 < errors[0] / errors[1] < 20


def test_the_step_has_the_right_gradient_in_state_action_and_every_parameter(random_flight):
    quadrotors, state, action = random_flight(2, torch.float64, seed=3)
    action = 0.8 * action  # away from the kink at the clip
    parameters = quadrotors.tensors()
    smooth = [
        name
        for name in parameters
        if name not in ("random_force", "random_torque", "position_threshold", "max_position")
    ]

    def function(state_tensor, action, force, torque, *values):
        vehicles = dataclasses.replace(quadrotors, **dict(zip(smooth, values, strict=True)))
        return step(vehicles, State.from_tensor(state_tensor), action, 0.01, force, torque).as_tensor()

    arguments = [state.as_tensor(), action, torch.ones(2, 3).double(), torch.full((2, 3), 1e-4).double()]
    arguments += [parameters[name] for name in smooth]
    leaves = tuple(argument.detach().clone().requires_grad_() for argument in arguments)
    assert torch.autograd.gradcheck(function, leaves, eps=1e-7, atol=1e-4, rtol=1e-4)


def test_permuting_vehicles_permutes_results_and_nothing_else(random_flight):
    quadrotors, state, action = random_flight(33, torch.float32)
    order = torch.randperm(33, generator=torch.Generator().manual_seed(0))
    permuted = step(quadrotors[order], state[order], action[order]).as_tensor()
    assert torch.equal(permuted, step(quadrotors, state, action).as_tensor()[order])


def test_a_vehicle_with_broken_numbers_does_not_touch_its_neighbours(random_flight):
    quadrotors, state, action = random_flight(8, torch.float32)
    broken = action.clone()
    broken[3] = torch.nan
    others = [i for i in range(8) if i != 3]
    assert torch.equal(
        step(quadrotors, state, broken).as_tensor()[others], step(quadrotors, state, action).as_tensor()[others]
    )


def test_leading_axes_broadcast_over_the_population(random_flight):
    quadrotors, _, _ = random_flight(5, torch.float32)
    flights = [random_flight(5, torch.float32, seed=seed)[1:] for seed in range(3)]
    states = State.from_tensor(torch.stack([state.as_tensor() for state, _ in flights]))
    actions = torch.stack([action for _, action in flights])
    together = step(quadrotors, states, actions)
    assert together.shape == (3, 5)
    for i, (state, action) in enumerate(flights):
        assert torch.equal(together.as_tensor()[i], step(quadrotors, state, action).as_tensor())


def test_the_memory_layout_does_not_change_the_result(random_flight):
    quadrotors, state, action = random_flight(17, torch.float32)
    assert torch.equal(
        step(quadrotors.component_major(), state, action).as_tensor(), step(quadrotors, state, action).as_tensor()
    )
