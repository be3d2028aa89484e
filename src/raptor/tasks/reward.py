"""RAPTOR's reward: a constant minus weighted costs."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from raptor.config.settings import Settings, not_negative, setting
from raptor.quadrotor.parameters import Quadrotors
from raptor.quadrotor.state import State, components
from raptor.tasks.reference import Reference


@dataclasses.dataclass(frozen=True)
class Reward(Settings):
    """Weights of the reward. The defaults are RAPTOR's, at most 750 per episode of 500 steps."""

    constant: float = setting(1.5, "reward per step, before costs")
    scale: float = setting(1.0, "factor on all costs", not_negative)
    non_negative: bool = setting(False, "whether the reward of a step is at least 0")
    termination_penalty: float = setting(-100.0, "reward of the step that ends an episode early")
    position: float = setting(1.0, "cost per m of position error", not_negative)
    position_clip: float = setting(0.0, "m, largest position error that counts; 0: no limit", not_negative)
    orientation: float = setting(0.1, "cost per rad of 2 acos(1 - |q_z|), the error of heading", not_negative)
    linear_velocity: float = setting(0.0, "cost per m/s of velocity error", not_negative)
    angular_velocity: float = setting(0.0, "cost per rad/s", not_negative)
    linear_acceleration: float = setting(0.0, "cost per m/s^2", not_negative)
    angular_acceleration: float = setting(0.0, "cost per rad/s^2", not_negative)
    action: float = setting(0.0, "cost per squared distance of the throttle, 0 to 1, from hover", not_negative)
    action_rate: float = setting(1.0, "cost per distance between this action and the last one", not_negative)


def norm(parts: tuple[Tensor, ...]) -> Tensor:
    """Euclidean norm of a vector in component form: gradient zero, not NaN, at the origin; NaN where a component is."""
    square = sum((part * part for part in parts[1:]), parts[0] * parts[0])
    positive = square > 0
    return torch.where(positive, torch.sqrt(torch.where(positive, square, 1.0)), square.detach())


def _difference(a: Tensor, b: Tensor) -> tuple[Tensor, ...]:
    return tuple(x - y for x, y in zip(components(a), components(b), strict=True))


def heading_angle(orientation: Tensor) -> Tensor:
    """2 acos(1 - |q_z|) in rad, (..., 4) -> (...), with gradient zero, not infinite, where q_z rounds to 0."""
    cosine = (1 - components(orientation)[3].abs()).clamp(min=0.0)
    turned = cosine < 1
    return torch.where(turned, 2 * torch.acos(torch.where(turned, cosine, 0.5)), (1 - cosine).detach())


def reward(
    config: Reward,
    quadrotors: Quadrotors,
    state: State,
    action: Tensor,
    next_state: State,
    last_action: Tensor,
    reference: Reference,
    terminated: Tensor,
    dt: float,
) -> Tensor:
    """Reward (...) of one step of dt seconds.

    All costs but those of accelerations and actions (..., 4) are of `state`, in which the action was chosen, and of the
    reference at that time. `terminated` (...) says whether `next_state` ends the episode. Source: l2f's "squared".
    """
    position = norm(_difference(state.position, reference.position))
    if config.position_clip > 0:
        position = position.clamp(max=config.position_clip)
    cost = config.position * position + config.orientation * heading_angle(state.orientation)
    cost = cost + config.action_rate * norm(_difference(action, last_action))
    if config.linear_velocity:
        cost = cost + config.linear_velocity * norm(_difference(state.linear_velocity, reference.velocity))
    if config.angular_velocity:
        cost = cost + config.angular_velocity * norm(components(state.angular_velocity))
    if config.linear_acceleration:
        change = _difference(next_state.linear_velocity, state.linear_velocity)
        cost = cost + config.linear_acceleration * norm(change) / dt
    if config.angular_acceleration:
        change = _difference(next_state.angular_velocity, state.angular_velocity)
        cost = cost + config.angular_acceleration * norm(change) / dt
    if config.action:
        hover = quadrotors.hover_throttle
        cost = cost + config.action * sum(((a + 1) / 2 - hover) ** 2 for a in components(action))
    value = config.constant - config.scale * cost
    if config.non_negative:
        value = value.clamp(min=0)
    return torch.where(terminated, config.termination_penalty, value)
