"""How a step is rated: RAPTOR's reward, a constant minus weighted costs, and the bounds that end an episode."""

from __future__ import annotations

import dataclasses
import functools

import torch
from torch import Tensor

from raptor.config.settings import Settings, not_negative, optional, positive, setting
from raptor.quadrotor.parameters import Quadrotors
from raptor.quadrotor.state import State, components, difference, norm
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
    position = norm(difference(state.position, reference.position))
    if config.position_clip > 0:
        position = position.clamp(max=config.position_clip)
    cost = config.position * position + config.orientation * heading_angle(reference.orientation_from_world(state.orientation))
    cost = cost + config.action_rate * norm(difference(action, last_action))
    if config.linear_velocity:
        cost = cost + config.linear_velocity * norm(difference(state.linear_velocity, reference.velocity))
    if config.angular_velocity:
        cost = cost + config.angular_velocity * norm(components(state.angular_velocity))
    if config.linear_acceleration:
        change = difference(next_state.linear_velocity, state.linear_velocity)
        cost = cost + config.linear_acceleration * norm(change) / dt
    if config.angular_acceleration:
        change = difference(next_state.angular_velocity, state.angular_velocity)
        cost = cost + config.angular_acceleration * norm(change) / dt
    if config.action:
        hover = quadrotors.hover_throttle
        cost = cost + config.action * sum(((a + 1) / 2 - hover) ** 2 for a in components(action))
    value = config.constant - config.scale * cost
    if config.non_negative:
        value = value.clamp(min=0)
    return torch.where(terminated, config.termination_penalty, value)


@dataclasses.dataclass(frozen=True)
class Termination(Settings):
    """Bounds, per axis, beyond which an episode ends. The defaults are RAPTOR's."""

    enabled: bool = setting(True, "false: every episode lasts to its last step")
    position: float | None = setting(None, "m; null: the vehicle's `position_threshold`", optional(positive))
    linear_velocity: float = setting(2.0, "m/s", positive)
    angular_velocity: float = setting(35.0, "rad/s", positive)
    about_target: bool = setting(False, "whether bounds, also those of training, are about the target's motion")


def bounded(state: State, target: Reference | None) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """Components of position and velocity that bounds apply to: about the target, or else about the origin at rest."""
    if target is None:
        return components(state.position), components(state.linear_velocity)
    return difference(state.position, target.position), difference(state.linear_velocity, target.velocity)


def terminated(config: Termination, quadrotors: Quadrotors, state: State, reference: Reference) -> Tensor:
    """Whether each state (...) ends its episode: any axis strictly beyond its bound, or not finite."""
    if not config.enabled:
        return torch.zeros_like(state.position[..., 0], dtype=torch.bool)
    position, velocity = bounded(state, reference if config.about_target else None)
    box = quadrotors.position_threshold if config.position is None else config.position
    outside = [~(x.abs() <= box) for x in position]
    outside += [~(v.abs() <= config.linear_velocity) for v in velocity]
    outside += [~(w.abs() <= config.angular_velocity) for w in components(state.angular_velocity)]
    return functools.reduce(torch.logical_or, outside)
