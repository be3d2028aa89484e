"""Rigid-body dynamics of N quadrotors with first-order rotors, integrated by one Runge-Kutta step.

Everything here is a pure, differentiable function of tensors. The model is that of l2f: polynomial thrust curves per
rotor, reaction torques proportional to thrust, no drag, no ground. Formulas follow `docs/physics.md`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor

from raptor.quadrotor.parameters import Quadrotors
from raptor.quadrotor.state import State, Vector, components, cross, from_components, quaternion_derivative, rotate
from raptor.quadrotor.vehicles import LONGEST_STEP

STATE_LIMIT = 1e5
"""Bound on every component of position (m), velocity (m/s) and rates (rad/s) after a step."""

Method = Literal["rk4", "midpoint", "rk4-exact-rotors", "midpoint-exact-rotors"]

WITH_EXACT_ROTORS: dict[Method, Method] = {"rk4": "rk4-exact-rotors", "midpoint": "midpoint-exact-rotors"}
"""The same integrator, for populations with fast rotors; see `step`."""

Flat = tuple[Tensor, ...]  # 17 components: position 3, orientation 4, velocity 3, rates 3, rotor speed 4


def _rows(matrices: Tensor) -> tuple[Flat, ...]:
    return tuple(components(row) for row in matrices.movedim(-2, 0).unbind(0))


def _times(rows: tuple[Flat, ...], v: Vector) -> Vector:
    x, y, z = (row[0] * v[0] + row[1] * v[1] + row[2] * v[2] for row in rows)
    return x, y, z


def _sum(vectors: list[Any]) -> Vector:
    x, y, z = (sum(axis[1:], axis[0]) for axis in zip(*vectors, strict=True))
    return x, y, z


def _scaled(factor: Tensor, v: Any) -> Vector:
    return factor * v[0], factor * v[1], factor * v[2]


def _derivative(
    quadrotors: Quadrotors,
    force: Tensor | None,
    torque: Tensor | None,
    thrust: Tensor | None,
    rates: tuple[Flat, Flat],
    setpoint: Flat,
) -> Callable[[Flat], Flat]:
    """The derivative of a state; what depends on the vehicles alone is computed once."""
    per_mass = 1 / quadrotors.mass
    arms, thrusts = _rows(quadrotors.rotor_positions), _rows(quadrotors.rotor_thrust_directions)
    reactions, constants = _rows(quadrotors.rotor_torque_directions), components(quadrotors.rotor_torque_constants)
    torque_per_thrust = [
        _sum([cross(arm, thrust), _scaled(constant, reaction)])  # type: ignore[arg-type]
        for arm, thrust, reaction, constant in zip(arms, thrusts, reactions, constants, strict=True)
    ]
    gravity = components(quadrotors.gravity)
    curves = _rows(quadrotors.rotor_thrust_coefficients)
    acceleration_per_thrust = [_scaled(per_mass, thrust) for thrust in thrusts]
    inertia, inertia_inverse = _rows(quadrotors.inertia), _rows(quadrotors.inertia_inverse)
    pull = _sum([gravity] if force is None else [gravity, _scaled(per_mass, components(force))])
    twist = [] if torque is None else [_sum([components(torque)])]
    factors = None if thrust is None else components(thrust)

    def derivative(y: Flat) -> Flat:
        orientation: Any = y[3:7]
        omega: Any = y[10:13]
        speeds = y[13:17]
        forces = [c[0] + speed * (c[1] + speed * c[2]) for c, speed in zip(curves, speeds, strict=True)]
        if factors is not None:
            forces = [factor * f for factor, f in zip(factors, forces, strict=True)]

        def weigh(per_thrust: list[Vector]) -> Vector:
            return _sum([_scaled(f, d) for f, d in zip(forces, per_thrust, strict=True)])

        acceleration = _sum([rotate(orientation, weigh(acceleration_per_thrust)), pull])
        moment = _sum([weigh(torque_per_thrust), *twist])
        gyroscopic = cross(omega, _times(inertia, omega))
        net = (moment[0] - gyroscopic[0], moment[1] - gyroscopic[1], moment[2] - gyroscopic[2])
        rotor_acceleration = [
            (u - speed) * torch.where(u >= speed, rising, falling)
            for u, speed, rising, falling in zip(setpoint, speeds, *rates, strict=True)
        ]
        rotation = quaternion_derivative(orientation, omega)
        return (*y[7:10], *rotation, *acceleration, *_times(inertia_inverse, net), *rotor_acceleration)

    return derivative


def rotor_setpoint(quadrotors: Quadrotors, action: Tensor) -> Tensor:
    """Map actions (..., 4), clipped to [-1, 1], onto the action limits; in the unit of the rotor speed."""
    low, high = components(quadrotors.action_limit)
    half = (high - low) / 2
    return from_components([a.clamp(-1, 1) * half + (low + half) for a in components(action)])


def step(
    quadrotors: Quadrotors,
    state: State,
    action: Tensor,
    dt: float | Tensor = 0.01,
    force: Tensor | None = None,
    torque: Tensor | None = None,
    method: Method = "rk4",
    thrust: Tensor | None = None,
) -> State:
    """Advance N quadrotors by one Runge-Kutta step of `dt` seconds, or (N,) of each; differentiable in every tensor.

    The action (..., 4), where -1 and 1 are the action limits, is clipped and held; so are, if given, the force (..., 3)
    in N, world, the torque (..., 3) in N m, body, and the factor `thrust` (..., 4) on what the rotors give. The next
    state has its quaternion normalised and its rotor speeds within the action limits. Leading shapes are broadcast.

    The method "rk4", of fourth order, is the simulator; "midpoint", of second order, costs half as much and differs by
    less than a policy can notice. With "-exact-rotors", rotors whose time constant tau is shorter than dt / 0.8 have
    the exact speed u + (s - u) exp(-t / tau) within the step and at its end; other vehicles move bit for bit the same.

    Source: l2f's `step`, reproduced to float32 rounding (tests/quadrotor/test_l2f_parity.py).
    """
    rising = tuple(1 / tau for tau in components(quadrotors.rotor_time_constants_rising))
    falling = tuple(1 / tau for tau in components(quadrotors.rotor_time_constants_falling))
    setpoint = components(rotor_setpoint(quadrotors, action))
    derivative = _derivative(quadrotors, force, torque, thrust, (rising, falling), setpoint)
    y0: Flat = tuple(component for part in state.parts() for component in components(part))

    def ahead(slope: Flat, weight: float | Tensor, time: float | Tensor) -> Flat:
        y = tuple(y + weight * k for y, k in zip(y0, slope, strict=True))
        if not method.endswith("-exact-rotors"):
            return y
        parts = zip(setpoint, y0[13:], rising, falling, strict=True)
        rates = [torch.where(u >= start, up, down) for u, start, up, down in parts]
        speeds = [  # after the time, exact for fast rotors, as approximated for others
            torch.where(dt * rate > LONGEST_STEP, u + (start - u) * torch.exp(-time * rate), approximate)
            for u, start, rate, approximate in zip(setpoint, y0[13:], rates, y[13:], strict=True)
        ]
        return (*y[:13], *speeds)

    k1 = derivative(y0)
    k2 = derivative(ahead(k1, dt / 2, dt / 2))
    if method.startswith("midpoint"):
        y1 = ahead(k2, dt, dt)
    else:
        k3 = derivative(ahead(k2, dt / 2, dt / 2))
        k4 = derivative(ahead(k3, dt, dt))
        y1 = ahead(tuple(a + 2 * (b + c) + d for a, b, c, d in zip(k1, k2, k3, k4, strict=True)), dt / 6, dt)
    w, x, y, z = y1[3:7]
    norm = torch.rsqrt(w * w + x * x + y * y + z * z)
    low, high = components(quadrotors.action_limit)
    bounded = [component.clamp(-STATE_LIMIT, STATE_LIMIT) for component in (*y1[:3], *y1[7:13])]
    return State(
        position=from_components(bounded[:3]),
        orientation=from_components([w * norm, x * norm, y * norm, z * norm]),
        linear_velocity=from_components(bounded[3:6]),
        angular_velocity=from_components(bounded[6:9]),
        rotor_speed=from_components([torch.minimum(torch.maximum(speed, low), high) for speed in y1[13:17]]),
    )
