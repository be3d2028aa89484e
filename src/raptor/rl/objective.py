"""Smooth cost for gradients through the simulator, in place of the task's reward."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch
from torch import Tensor

from raptor.config.settings import Settings, not_negative, positive, setting
from raptor.environments.episode import Episode
from raptor.quadrotor.parameters import Quadrotors
from raptor.quadrotor.state import components


@dataclasses.dataclass(frozen=True)
class Objective(Settings):
    """Weights of the smooth cost.

    The reward's norms have no gradient at the target and its termination has none anywhere; here norms are rounded off,
    and limits become slopes before them.
    """

    position: float = setting(1.0, "per m of tracking error", not_negative)
    position_rounding: float = setting(1e-2, "m", positive)
    heading: float = setting(0.2, "per rad of acos(1 - |q_z|)", not_negative)
    action_rate: float = setting(1.0, "per unit of change of the action", not_negative)
    action_rounding: float = setting(1e-3, "below this change of the action its cost is quadratic", positive)
    saturation: float = setting(1.0, "on the squared excess of the action over [-1, 1]", not_negative)
    speed: float = setting(10.0, "on the squared excess of each velocity axis over `speed_limit`", not_negative)
    speed_limit: float = setting(1.6, "m/s", not_negative)
    box: float = setting(10.0, "on the squared excess of each axis over `box_limit`, in boxes", not_negative)
    box_limit: float = setting(0.8, "fraction of the vehicle's box, its position threshold", not_negative)
    velocity: float = setting(0.0, "per m/s of velocity error", not_negative)
    cap: float = setting(20.0, "upper bound on the cost of a step", positive)


def rounded_norm(parts: Sequence[Tensor], rounding: float) -> Tensor:
    """Euclidean norm of a vector in components, smooth at the origin: sqrt(|x|^2 + rounding^2)."""
    square = sum((part * part for part in parts[1:]), parts[0] * parts[0])
    return torch.sqrt(square + rounding**2)


def step_cost(
    objective: Objective, quadrotors: Quadrotors, episode: Episode, action: Tensor, following: Episode
) -> Tensor:
    """Cost (N,) of one step: `action` (N, 4), unclipped, was taken in `episode` and led to `following`."""
    state, target = following.state, following.reference
    error = [x - r for x, r in zip(components(state.position), components(target.position), strict=True)]
    change = [a - b for a, b in zip(components(action), components(episode.previous_action), strict=True)]
    heading = torch.acos(1 - components(state.orientation)[3].abs().clamp(max=1 - 1e-3))
    cost = (
        objective.position * rounded_norm(error, objective.position_rounding)
        + objective.heading * heading
        + objective.action_rate * rounded_norm(change, objective.action_rounding)
        + objective.saturation * sum(torch.relu(a.abs() - 1) ** 2 for a in components(action))
    )
    velocity = components(state.linear_velocity)
    if objective.speed:
        cost = cost + objective.speed * sum(torch.relu(v.abs() - objective.speed_limit) ** 2 for v in velocity)
    if objective.box:
        boxes = [x.abs() / quadrotors.position_threshold for x in components(state.position)]
        cost = cost + objective.box * sum(torch.relu(x - objective.box_limit) ** 2 for x in boxes)
    if objective.velocity:
        error = [v - r for v, r in zip(velocity, components(target.velocity), strict=True)]
        cost = cost + objective.velocity * rounded_norm(error, objective.position_rounding)
    return cost.clamp(max=objective.cap)
