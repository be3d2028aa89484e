"""What terms are functions of. The leading shape (...) is that of the vehicles; nothing in a view is written to."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from raptor.quadrotor.parameters import Quadrotors
from raptor.quadrotor.state import State, components, difference, from_components, norm
from raptor.tasks.reference import Reference


def rounded_norm(parts: Sequence[Tensor], rounding: float) -> Tensor:
    """Euclidean norm of a vector in components, smooth at the origin: sqrt(|x|^2 + rounding^2)."""
    square = sum((part * part for part in parts[1:]), parts[0] * parts[0])
    return torch.sqrt(square + rounding**2)


def bounded(state: State, target: Reference | None) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """Components of position and velocity that bounds apply to: about the target, or else about the origin at rest."""
    if target is None:
        return components(state.position), components(state.linear_velocity)
    return difference(state.position, target.position), difference(state.linear_velocity, target.velocity)


class StepView(NamedTuple):
    """One step, for costs, rewards and terminations, which give (...) numbers, or bool for a termination."""

    quadrotors: Quadrotors
    state: State  # in which the action was chosen
    reference: Reference  # at that time
    action: Tensor  # (..., 4); in costs as the policy gives it, in rewards as the policy observes it, so maybe clipped
    last_action: Tensor  # (..., 4) the one before
    next_state: State  # that the action led to
    next_reference: Reference
    dt: float  # s
    smooth: bool = False  # whether norms are to be rounded off, so that they have a gradient at the origin
    about_target: bool = False  # whether bounds are about the target's motion

    @property
    def position_error(self) -> Tensor:
        """(..., 3) m, world; of `next_state` from its target."""
        return from_components(difference(self.next_state.position, self.next_reference.position))

    @property
    def velocity_error(self) -> Tensor:
        """(..., 3) m/s, world; of `next_state` from its target."""
        return from_components(difference(self.next_state.linear_velocity, self.next_reference.velocity))

    @property
    def bounded(self) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        """Components of position and velocity of `next_state` that bounds apply to."""
        return bounded(self.next_state, self.next_reference if self.about_target else None)

    def norm(self, vector: Tensor | Sequence[Tensor], rounding: float = 0.01) -> Tensor:
        """Euclidean norm (...) of a vector (..., K), or of its components; rounded off where the view is `smooth`."""
        parts = components(vector) if isinstance(vector, Tensor) else vector
        return rounded_norm(parts, rounding) if self.smooth else norm(tuple(parts))


class ObservationView(NamedTuple):
    """Where vehicles are now, for observations, which give (..., K) numbers.

    The first four are measured: with the noise and the delay of the task's sensors.
    """

    position_error: Tensor  # (..., 3) m, world; from the target, or the position where the target is not visible
    rotation: Tensor  # (..., 9) rotation matrix, row-major, body -> world; this "world" turns with a target that yaws
    velocity_error: Tensor  # (..., 3) m/s, world; from that of the target, or the velocity
    angular_velocity: Tensor  # (..., 3) rad/s, body
    previous_action: Tensor  # (..., 4)
    quadrotors: Quadrotors  # and all below is exact: what uses it cannot be observed on a real vehicle as it is here
    state: State
    reference: Reference
    dt: float  # s
    memory: Tensor  # (..., M) what this term remembers; where M > 0, it gives (observation, memory)
    noise: Tensor  # (..., K) standard normal numbers of this step
    draws: Tensor  # (..., K) standard normal numbers of this episode


class DisturbanceView(NamedTuple):
    """Where vehicles are now, for disturbances, which give a `Wrench`."""

    quadrotors: Quadrotors
    state: State
    reference: Reference
    action: Tensor  # (..., 4) that reaches the motors, in [-1, 1]
    dt: float  # s
    memory: Tensor  # (..., M) what this term remembers
    noise: Tensor  # (..., K) standard normal numbers of this step
    draws: Tensor  # (..., K) standard normal numbers of this episode


class Wrench(NamedTuple):
    """What a disturbance does to vehicles during a step; None: nothing."""

    force: Tensor | None = None  # (..., 3) N, world
    torque: Tensor | None = None  # (..., 3) N m, body
    memory: Tensor | None = None  # (..., M) to remember until the next step; None: as before


def weighted(settings: Any, functions: Mapping[str, Callable[..., Tensor]], step: StepView) -> Tensor:
    """Sum (...) of functions of a step, each weighted by the setting of its name; others are their arguments."""
    used = {name: function for name, function in functions.items() if getattr(settings, name)}
    given = {name: {key: getattr(settings, key) for key in _arguments(function)} for name, function in used.items()}
    values = [getattr(settings, name) * function(step, **given[name]) for name, function in used.items()]
    return sum_of(values) if values else torch.zeros_like(step.quadrotors.mass)


def sum_of(values: Sequence[Tensor]) -> Tensor:
    """Their sum, from the first to the last."""
    return functools.reduce(torch.add, values)


@functools.cache
def _arguments(function: Callable[..., Tensor]) -> tuple[str, ...]:
    return tuple(inspect.signature(function).parameters)[1:]
