"""Bounds beyond which an episode ends."""

from __future__ import annotations

import dataclasses
import functools

import torch
from torch import Tensor

from raptor.config.settings import Settings, optional, positive, setting
from raptor.quadrotor.parameters import Quadrotors
from raptor.quadrotor.state import State, components
from raptor.tasks.reference import Reference


@dataclasses.dataclass(frozen=True)
class Termination(Settings):
    """Bounds, per axis, beyond which an episode ends. The defaults are RAPTOR's."""

    enabled: bool = setting(True, "false: every episode lasts to its last step")
    position: float | None = setting(None, "m; null: the vehicle's `position_threshold`", optional(positive))
    linear_velocity: float = setting(2.0, "m/s", positive)
    angular_velocity: float = setting(35.0, "rad/s", positive)
    about_target: bool = setting(False, "whether the position is bounded about the target, not about the origin")


def terminated(config: Termination, quadrotors: Quadrotors, state: State, reference: Reference) -> Tensor:
    """Whether each state (...) ends its episode: any axis strictly beyond its bound, or not finite."""
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
