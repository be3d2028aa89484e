"""When an episode ends for good."""

from __future__ import annotations

import dataclasses
import functools

import torch
from torch import Tensor

from raptor.config.limits import limits, optional, positive
from raptor.quadrotor.parameters import Quadrotors
from raptor.quadrotor.state import State, components
from raptor.tasks.reference import Reference


@dataclasses.dataclass(frozen=True)
@limits(position=optional(positive), linear_velocity=positive, angular_velocity=positive)
class Termination:
    """Boxes, per axis, that a vehicle must not leave. The defaults are RAPTOR's."""

    enabled: bool = True  # false: every episode lasts to its last step
    position: float | None = None  # m; None: the vehicle's own `position_threshold`
    linear_velocity: float = 2.0  # m/s
    angular_velocity: float = 35.0  # rad/s
    about_target: bool = False  # whether the position box moves with the target; RAPTOR's stands at the origin


def terminated(config: Termination, quadrotors: Quadrotors, state: State, reference: Reference) -> Tensor:
    """Whether each state (...) ends its episode: any axis beyond its box, strictly, or not finite."""
    position = components(state.position)
    if config.about_target:
        position = tuple(x - target for x, target in zip(position, components(reference.position), strict=True))
    box = quadrotors.position_threshold if config.position is None else config.position
    if not config.enabled:
        return torch.zeros_like(position[0], dtype=torch.bool)
    outside = [~(x.abs() <= box) for x in position]
    outside += [~(v.abs() <= config.linear_velocity) for v in components(state.linear_velocity)]
    outside += [~(w.abs() <= config.angular_velocity) for w in components(state.angular_velocity)]
    return functools.reduce(torch.logical_or, outside)
