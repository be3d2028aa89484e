"""What training through the simulator descends: a smooth cost, and beside it the distance from teachers' actions."""

from __future__ import annotations

import copy
import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import ClassVar, Literal

import torch
from torch import Tensor
from torch.nn.functional import pad

from raptor.config.settings import Settings, not_negative, positive, setting
from raptor.core.compilation import compile_pure
from raptor.environments.episode import Episode, observe_as_teacher
from raptor.nn.activations import RELU_TANH, Activations
from raptor.nn.stacked_mlp import Layers, act, members
from raptor.quadrotor.parameters import Quadrotors
from raptor.quadrotor.state import State, components, difference
from raptor.tasks.checks import checked_width
from raptor.tasks.reference import Reference
from raptor.tasks.reward import COSTS as REWARD_COSTS
from raptor.tasks.reward import reward_before_termination
from raptor.tasks.task import Task
from raptor.tasks.terms import Terms, Use
from raptor.tasks.views import StepView, bounded, rounded_norm, sum_of, weighted


@dataclasses.dataclass(frozen=True)
class Objective(Settings):
    """Weights of the smooth cost.

    The reward's norms have no gradient at the target and its termination has none anywhere; here norms are rounded off,
    and limits become slopes before them. `objective=reward` is short for `objective.kind=reward`.
    """

    SHORTHAND: ClassVar[str] = "kind"

    kind: Literal["cost", "reward"] = setting(
        "cost", "cost: the terms below; reward: the task's own reward, its norms rounded off, and the limits below"
    )
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
    tracking: float = setting(0.0, "per m of tracking error and m/s of the target's speed", not_negative)
    cap: float = setting(20.0, "upper bound on the cost of a step", positive)
    terms: Terms = setting(Terms(), "cost terms of one's own by name; as those in `task.extra`")

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "terms", Terms.over(self.terms, "cost"))
        for use in self.terms.uses:
            checked_width(use)

    def formula(self, task: Task) -> str:
        """What is minimised in each step, as a formula with weights."""
        if self.kind == "reward":
            given, factor = task.reward, task.reward.scale
            limits = [(name, getattr(self, name)) for name in LIMITS]
            parts = [*((name, factor * getattr(given, name)) for name in REWARD_COSTS), *limits]
            own = [(_called(use), -use.weight) for use in task.own("reward")]
        else:
            parts, own = [(name, getattr(self, name)) for name in COSTS], []
        own += [(_called(use), use.weight) for use in (*self.terms.uses, *task.own("cost"))]
        about = " about the target's" if task.termination.about_target else ""
        bounds = {
            "speed": f" (beyond {self.speed_limit:g} m/s{about})",
            "box": f" (beyond {self.box_limit:g} of it{about})",
        }
        square = {name: f"{name}²{bounds.get(name, '')}" for name in LIMITS}
        texts = [f"{weight:g} {square.get(name, name)}" for name, weight in (*parts, *own) if weight]
        return f"{' + '.join(texts).replace('+ -', '- ') or '0'}, at most {self.cap:g}"


def _called(use: Use) -> str:
    """The name of a term of one's own in a formula, also where it is that of a built-in one."""
    name = use.term.name
    return f"{name} (own)" if name in COSTS or name in REWARD_COSTS else name


def _position(step: StepView, position_rounding: float) -> Tensor:
    return rounded_norm(difference(step.next_state.position, step.next_reference.position), position_rounding)


def _heading(step: StepView) -> Tensor:
    orientation = step.next_reference.orientation_from_world(step.next_state.orientation)
    return torch.acos(1 - components(orientation)[3].abs().clamp(max=1 - 1e-3))


def _action_rate(step: StepView, action_rounding: float) -> Tensor:
    return rounded_norm(difference(step.action, step.last_action), action_rounding)


def _saturation(step: StepView) -> Tensor:
    return sum_of([torch.relu(a.abs() - 1) ** 2 for a in components(step.action)])


def _speed(step: StepView, speed_limit: float) -> Tensor:
    return sum_of([torch.relu(v.abs() - speed_limit) ** 2 for v in step.bounded[1]])


def _box(step: StepView, box_limit: float) -> Tensor:
    boxes = [x.abs() / step.quadrotors.position_threshold for x in step.bounded[0]]
    return sum_of([torch.relu(x - box_limit) ** 2 for x in boxes])


def _velocity(step: StepView, position_rounding: float) -> Tensor:
    return rounded_norm(difference(step.next_state.linear_velocity, step.next_reference.velocity), position_rounding)


def _tracking(step: StepView, position_rounding: float) -> Tensor:
    return _position(step, position_rounding) * rounded_norm(
        components(step.next_reference.velocity), position_rounding
    )


LIMITS: dict[str, Callable[..., Tensor]] = {"saturation": _saturation, "speed": _speed, "box": _box}
"""The slopes before limits, which a reward has none of."""

COSTS: dict[str, Callable[..., Tensor]] = {
    "position": _position,
    "heading": _heading,
    "action_rate": _action_rate,
    **LIMITS,
    "velocity": _velocity,
    "tracking": _tracking,
}
"""The terms of the cost, by the setting that weighs each; of the state that the action led to."""


def step_cost(
    objective: Objective, task: Task, quadrotors: Quadrotors, episode: Episode, action: Tensor, following: Episode
) -> Tensor:
    """Cost (N,) of one step: `action` (N, 4), unclipped, was taken in `episode` and led to `following`."""
    before, last = (episode.state, episode.reference), episode.previous_action
    after = following.state, following.reference
    step = StepView(quadrotors, *before, action, last, *after, task.dt, True, task.termination.about_target)
    if objective.kind == "reward":
        value = reward_before_termination(task.reward, step, task.own("reward"))
        cost = task.reward.constant - value + weighted(objective, LIMITS, step)
    else:
        cost = weighted(objective, COSTS, step)
    own = (*objective.terms.uses, *task.own("cost"))
    return sum_of([cost, *(use.weight * use(step) for use in own)]).clamp(max=objective.cap)


def in_bounds(quadrotors: Quadrotors, state: State, target: Reference | None = None) -> Tensor:
    """1 where a vehicle is worth learning from: within 1.5 times its box, below 40 rad/s and 20 m/s; 0 elsewhere.

    Box and velocity are about the target, or else about the origin at rest.
    """
    position, velocity = bounded(state, target)
    within = torch.ones_like(quadrotors.mass, dtype=torch.bool)
    for x in position:
        within = within & (x.abs() <= 1.5 * quadrotors.position_threshold)
    for v in velocity:
        within = within & (v.abs() <= 20.0)
    for w in components(state.angular_velocity):
        within = within & (w.abs() <= 40.0)
    return within.to(quadrotors.mass.dtype)


class TeacherGuide:
    """T teachers towards whose actions a controller is pulled, each for the vehicles that are its own."""

    def __init__(
        self, layers: Layers, weight: float = 1.0, compile: bool = True, activations: Activations = RELU_TANH
    ) -> None:
        self.layers, self.activations = layers, activations
        self.weight = layers[0].bias.new_tensor(weight)  # of the mean squared difference, beside the cost of a step
        self._compile = compile
        self._missing = (0, 0)  # vehicles of the first and of the last teacher that are not there

    def of(self, places: slice, num: int) -> TeacherGuide:
        """The same guide for the vehicles at some places of `num`; of a teacher there may be some of its vehicles."""
        if (places.start, places.stop) == (0, num):
            return self
        each = num // len(self.layers[0].bias)
        first, last = places.start // each, -(-places.stop // each)
        part = copy.copy(self)
        part.layers = members(self.layers, slice(first, last))
        part._missing = (places.start - first * each, last * each - places.stop)
        return part

    @torch.no_grad()
    def labels(self, quadrotors: Quadrotors, episodes: Sequence[Episode]) -> list[Tensor]:
        """Actions (T B, 4) in each of these episodes, component-major; the vehicles of a teacher stand side by side."""
        num_teachers, (before, after) = len(self.layers[0].bias), self._missing
        seen = torch.stack([_observer(self._compile)(quadrotors, episode).mT for episode in episodes])  # (S, 26, T B)
        seen = pad(seen, self._missing) if before or after else seen
        rows = seen.unflatten(-1, (num_teachers, -1)).permute(2, 0, 3, 1)  # (T, S, B, 26)
        actions = act(self.layers, rows.flatten(1, 2), self.activations)
        by_step = actions.unflatten(1, rows.shape[1:3]).permute(1, 3, 0, 2).flatten(2)  # (S, 4, T B)
        return [action.mT for action in by_step[..., before : before + len(quadrotors)].contiguous().unbind()]


@functools.cache
def _observer(compile: bool) -> Callable[..., Tensor]:
    return compile_pure(observe_as_teacher, compile)
