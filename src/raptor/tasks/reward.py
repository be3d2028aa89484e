"""How a step is rated: RAPTOR's reward, a constant minus weighted costs, and the bounds that end an episode."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from raptor.config.settings import Settings, not_negative, optional, positive, setting
from raptor.quadrotor.parameters import Quadrotors
from raptor.quadrotor.state import State, components, difference
from raptor.tasks.reference import Reference
from raptor.tasks.terms import Use
from raptor.tasks.views import StepView, bounded, sum_of, weighted

ROUNDING = 1e-2  # of norms, in their own unit, where the step is to be smooth


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


def _position(step: StepView, position_clip: float) -> Tensor:
    error = step.norm(difference(step.state.position, step.reference.position), ROUNDING)
    return error.clamp(max=position_clip) if position_clip > 0 else error


def _orientation(step: StepView) -> Tensor:
    return heading_angle(step.reference.orientation_from_world(step.state.orientation))


def _action_rate(step: StepView) -> Tensor:
    return step.norm(difference(step.action, step.last_action), ROUNDING / 10)


def _linear_velocity(step: StepView) -> Tensor:
    return step.norm(difference(step.state.linear_velocity, step.reference.velocity), ROUNDING)


def _angular_velocity(step: StepView) -> Tensor:
    return step.norm(components(step.state.angular_velocity), ROUNDING)


def _linear_acceleration(step: StepView) -> Tensor:
    change = difference(step.next_state.linear_velocity, step.state.linear_velocity)
    return step.norm(change, ROUNDING * step.dt) / step.dt


def _angular_acceleration(step: StepView) -> Tensor:
    change = difference(step.next_state.angular_velocity, step.state.angular_velocity)
    return step.norm(change, ROUNDING * step.dt) / step.dt


def _action(step: StepView) -> Tensor:
    hover = step.quadrotors.hover_throttle
    return sum_of([((a + 1) / 2 - hover) ** 2 for a in components(step.action)])


COSTS: dict[str, Callable[..., Tensor]] = {
    "position": _position,
    "orientation": _orientation,
    "action_rate": _action_rate,
    "linear_velocity": _linear_velocity,
    "angular_velocity": _angular_velocity,
    "linear_acceleration": _linear_acceleration,
    "angular_acceleration": _angular_acceleration,
    "action": _action,
}
"""The costs of the reward, by the setting that weighs each. All but those of accelerations and actions are of `state`,
in which the action was chosen. Source: l2f's "squared"."""


def reward_before_termination(config: Reward, step: StepView, own: Sequence[Use] = ()) -> Tensor:
    """Reward (...) of a step, whether it ends the episode or not; `own` are reward terms of one's own."""
    value = config.constant - config.scale * weighted(config, COSTS, step)
    return sum_of([value, *(use.weight * use(step) for use in own)])


def reward(config: Reward, step: StepView, terminated: Tensor, own: Sequence[Use] = ()) -> Tensor:
    """Reward (...) of one step; `terminated` (...) says whether its `next_state` ends the episode."""
    value = reward_before_termination(config, step, own)
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
