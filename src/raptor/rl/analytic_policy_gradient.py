"""Training controllers through the simulator's gradient (analytic policy gradient).

The adjoint method: a segment of a rollout is flown forward, keeping only what is handed from step to step; then one
vector-Jacobian product per step goes back. Each direction is one compiled graph, memory does not grow with what happens
inside a step, and the adjoint of each vehicle is in reach, so that one whose gradient explodes is held back alone.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from raptor.core.compilation import CompiledStep, Tensors
from raptor.core.packing import Packing, Rows
from raptor.environments.episode import Episode, Noise, Own, StepOutcome, advance
from raptor.environments.rollout import Controller, Memory, Student
from raptor.quadrotor.dynamics import Method
from raptor.quadrotor.parameters import NUM_ROTORS, Quadrotors
from raptor.quadrotor.state import component_major, components, from_components
from raptor.rl.objective import Objective, TeacherGuide, in_bounds, rounded_norm, step_cost
from raptor.tasks.task import Task

vjp: Any = torch.func.vjp  # whose result has a type of its own for each of its options

NUM_PHYSICAL = 6
"""The first of the differentiable tensors are the five of the state and the previous action."""


class RolloutState(NamedTuple):
    """What is handed from step to step. The leading shape (...) is (N,), or (T, B): T networks in B episodes each."""

    episode: Episode
    memory: Memory
    alive: Tensor  # (...) 1 while the vehicle is within bounds, 0 from the step on that it left them

    @classmethod
    def begin(cls, episode: Episode, memory: Memory) -> RolloutState:
        """The start of a segment: every vehicle where its episode stands, and alive."""
        return cls(episode, memory, torch.ones_like(episode.noise_scale))._acting()

    def _acting(self, last_action: Tensor | None = None) -> RolloutState:
        """The same where the reward compares the next action with this one, by default the previous one."""
        last_action = self.episode.previous_action if last_action is None else last_action
        return self._replace(episode=dataclasses.replace(self.episode, last_action=last_action))

    @property
    def _differentiable(self) -> tuple[Any, ...]:
        episode = self.episode
        own = episode.own[:3]
        return episode.state, episode.previous_action, self.memory, episode.sensed, episode.commanded, own

    @property
    def differentiable(self) -> tuple[Tensor, ...]:
        """The tensors that the gradient flows through: state, previous action, memory, histories, what is `own`."""
        return tuple(pytree.tree_leaves(self._differentiable))

    @property
    def moving(self) -> tuple[Tensor, ...]:
        """The tensors that each step replaces."""
        target = self.episode.reference
        replaced = target.position, target.velocity, target.time, target.walk
        return (*self.differentiable, *replaced, *(h for course in target.course for h in course.heading), self.alive)

    def with_differentiable(self, parts: Sequence[Tensor]) -> RolloutState:
        """The same with these tensors in place of `differentiable`."""
        structure = pytree.tree_structure(self._differentiable)
        state, previous, memory, sensed, commanded, own = pytree.tree_unflatten(list(parts), structure)
        changes = {"state": state, "previous_action": previous, "sensed": sensed, "commanded": commanded}
        changes["own"] = self.episode.own._replace(observation=own[0], past=own[1], memory=own[2])
        return self._replace(episode=dataclasses.replace(self.episode, **changes), memory=memory)


class Segment(NamedTuple):
    """What came of S steps; first the `RolloutState` where they ended."""

    episode: Episode
    memory: Memory
    alive: Tensor  # (...) 1 where the vehicle stayed within bounds, else 0
    cost: Tensor  # (S, ...)
    reward: Tensor  # (S, ...)
    terminated: Tensor  # (S, ...) bool; whether this step is one that would have ended the episode


class _Steps(NamedTuple):
    """What flies a segment forward and backward, for vehicles of one number, layout and structure."""

    packing: Packing  # of the tensors of parameters, quadrotors and rollout
    forward: CompiledStep
    backward: CompiledStep
    structure: pytree.TreeSpec  # of `StepInputs`
    adjoint: Rows  # the tensors of `RolloutState.differentiable`

    def inputs(self, tensors: Tensors) -> StepInputs:
        """What a step depends on, from what is packed and its noise."""
        num = self.packing.num_packed
        leaves = [*self.packing.unpack(tensors[:num]), *tensors[num:]]
        inputs: StepInputs = pytree.tree_unflatten(leaves, self.structure)
        return inputs


class StepInputs(NamedTuple):
    """Everything that one step depends on."""

    parameters: Any  # of the controller, in any nesting
    quadrotors: Quadrotors  # (...) in component-major layout
    rollout: RolloutState  # (...) before the step
    noise: tuple[Tensor, ...]  # the fields of `Noise` that the task needs


@dataclasses.dataclass(eq=False)
class SegmentGradient:
    """Cost and gradient of a controller over a segment, for N vehicles at once."""

    task: Task
    objective: Objective
    _: dataclasses.KW_ONLY
    method: Method = "midpoint"  # integrator
    gradient_decay: float = 1.0  # factor on the adjoint per step backwards; below 1 the far past counts less
    adjoint_limit: float = 1000.0  # bound on the norm of each vehicle's adjoint; those beyond it are scaled down to it
    compile: bool = True  # False runs eagerly
    controller: Controller = Student()  # that is trained

    def __post_init__(self) -> None:
        self._compiled: dict[Any, _Steps] = {}

    @torch.no_grad()
    def __call__(
        self,
        parameters: Any,
        quadrotors: Quadrotors,
        episode: Episode,
        memory: Memory,
        noise: Sequence[Noise],
        guide: TeacherGuide | None = None,
    ) -> tuple[Any, Segment]:
        """Fly one step for each entry of `noise` from `episode` and `memory` on, and differentiate the mean cost.

        The vehicles are in component-major layout. The actions of a guide are imitated in the states that the
        controller comes to; what it adds is not among the costs.

        Returns:
            Gradient of the mean cost per vehicle and step, nested like the parameters, and the segment. Each of several
            networks has the gradient of the mean cost of its own vehicles.
        """
        draws = [tuple(draw for draw in step if draw is not None) for step in noise]
        start = StepInputs(parameters, quadrotors, RolloutState.begin(episode, memory), draws[0])
        segment, trail = self.fly(start, draws)
        steps, pulls = self._steps(start), list[Tensors]([[]] * len(trail))
        if guide is not None:
            episodes = [steps.inputs(tensors).rollout.episode for tensors in trail]
            pulls = [[label, guide.weight] for label in guide.labels(quadrotors, episodes)]
        weights, nesting = pytree.tree_flatten(parameters)
        arrived = [torch.zeros_like(tensor) for tensor in start.rollout.differentiable]
        carried = [*map(torch.zeros_like, weights), steps.adjoint.pack(arrived)]
        for tensors, pull in zip(reversed(trail), reversed(pulls), strict=True):
            carried, _ = steps.backward(carried, [*tensors, *pull])
        samples = (segment.cost[:, 0] if segment.cost.ndim > 2 else segment.cost).numel()  # of each network
        return pytree.tree_unflatten([g / samples for g in carried[: len(weights)]], nesting), segment

    @torch.no_grad()
    def fly(self, start: StepInputs, draws: Sequence[tuple[Tensor, ...]]) -> tuple[Segment, list[Tensors]]:
        """Fly one step for each entry of `draws`, the noise; also returns the packed inputs of each step."""
        axes = start.quadrotors.mass.ndim
        rollout = pytree.tree_map(lambda tensor: component_major(tensor, tensor.ndim - axes), start.rollout)
        steps, trail, log = self._steps(start), [], []
        packed = steps.packing.pack(pytree.tree_leaves(start._replace(rollout=rollout)[:3]))
        for draw in draws:
            trail.append([*packed, *draw])
            packed, outputs = steps.forward(packed, list(draw))
            log.append(outputs)
        arrived = steps.inputs([*packed, *draws[0]]).rollout._acting()
        return Segment(*arrived, *(torch.stack(column) for column in zip(*log, strict=True))), trail

    def _steps(self, start: StepInputs) -> _Steps:
        """A step and its adjoint for inputs of these shapes and layouts, each compiled when it is first called.

        Backward the gradient so far and the adjoint are carried, and the inputs given, then what a guide gives, if any.
        """
        tensors, structure = pytree.tree_flatten(start)
        weights, num_noise = len(pytree.tree_leaves(start.parameters)), len(start.noise)
        key = structure, *((tensor.shape, tensor.dtype, tensor.device) for tensor in tensors)
        key += tuple(tensor.stride() for tensor in (*tensors[:weights], *start.noise))
        if key in self._compiled:
            return self._compiled[key]

        def move(inputs: StepInputs) -> tuple[Tensors, Tensors]:
            last_action = inputs.rollout.episode.last_action  # is the previous action, so it need not be carried on
            moved, cost, outcome = self.step(inputs._replace(rollout=inputs.rollout._acting()))
            after = inputs._replace(rollout=moved._acting(last_action))
            return pytree.tree_leaves(after[:3]), [cost, outcome.reward, outcome.terminated]

        def forward(carried: Tensors, given: Tensors) -> tuple[Tensors, Tensors]:
            after, outputs = move(steps.inputs([*carried, *given]))
            return packing.pack(after, carried[0]), outputs

        def backward(carried: Tensors, given: Tensors) -> tuple[Tensors, Tensors]:
            num = packing.num_packed + num_noise
            adjoint = tuple(steps.adjoint.unpack(carried[weights]))
            gradient, before = self.step_adjoint(steps.inputs(given[:num]), adjoint, given[num:])
            added = zip(carried[:weights], pytree.tree_leaves(gradient), strict=True)
            return [*(so_far + new for so_far, new in added), steps.adjoint.pack(before)], []

        example = [tensor.detach() for tensor in tensors]  # each of them another one
        after, _ = move(pytree.tree_unflatten(example, structure))
        packing = Packing(example[: len(after)], after, start.quadrotors.mass, weights)
        rows = Rows(start.rollout.differentiable, start.quadrotors.mass.ndim)
        there = CompiledStep(forward, self.compile)
        back = CompiledStep(backward, self.compile, what="a step of the gradient")
        steps = self._compiled[key] = _Steps(packing, there, back, structure, rows)
        return steps

    def step(self, inputs: StepInputs) -> tuple[RolloutState, Tensor, StepOutcome]:
        """One step forward: the rollout after it, its cost (...), and its outcome."""
        return self._move(inputs, *self._act(inputs))

    def _act(self, inputs: StepInputs) -> tuple[Tensor, Memory]:
        parameters, quadrotors, rollout, _ = inputs
        return self.controller.act(parameters, quadrotors, rollout.episode, rollout.memory)

    def _move(self, inputs: StepInputs, action: Tensor, memory: Memory) -> tuple[RolloutState, Tensor, StepOutcome]:
        """Move on; a vehicle that leaves its bounds stays where it was from then on, at no cost."""
        _, quadrotors, (before, _, alive), noise = inputs
        after, outcome = advance(self.task, quadrotors, before, action, Noise.of(self.task, noise), self.method)
        cost = step_cost(self.objective, self.task, quadrotors, before, action, after)
        alive = alive * in_bounds(
            quadrotors, after.state, after.reference if self.task.termination.about_target else None
        )
        going = alive > 0

        def keep(new: Tensor, old: Tensor) -> Tensor:
            pairs = zip(components(new), components(old), strict=True)
            return from_components([torch.where(going, n, o) for n, o in pairs])

        new, old = ((each.state, each.sensed[0], Own(*each.own[:3])) for each in (after, before))
        state, sensed, own = pytree.tree_map(keep, new, old)
        changes = {"state": state, "sensed": (sensed, *after.sensed[1:]), "own": own._replace(draws=after.own.draws)}
        moved = RolloutState(dataclasses.replace(after, **changes), memory, alive)
        return moved, torch.where(alive > 0, cost, 0.0), outcome

    def step_adjoint(
        self, inputs: StepInputs, adjoint: tuple[Tensor, ...], pull: Sequence[Tensor] = ()
    ) -> tuple[Any, Tensors]:
        """One step backward: gradient by the parameters, and derivative by `differentiable` before the step.

        The adjoint is the derivative of all that follows by `differentiable` after the step; `pull` is the label
        (..., 4) of a guide and its weight (), or nothing.
        """
        rollout = inputs.rollout

        def act(parameters: Any, parts: tuple[Tensor, ...]) -> tuple[Tensor, Memory]:
            return self._act(inputs._replace(parameters=parameters, rollout=rollout.with_differentiable(parts)))

        def move(parts: tuple[Tensor, ...], action: Tensor, memory: Memory) -> tuple[Tensor, tuple[Tensor, ...]]:
            moved, cost, _ = self._move(inputs._replace(rollout=rollout.with_differentiable(parts)), action, memory)
            return cost, moved.differentiable

        (action, memory), pull_act = vjp(act, inputs.parameters, rollout.differentiable)
        _, pull_move = vjp(move, rollout.differentiable, action, memory)
        by_state, by_action, by_memory = pull_move((torch.ones_like(rollout.alive), adjoint))
        slopes = list(components(by_action))
        if pull:
            label, weight = pull
            factor = rollout.alive * weight * (2 / NUM_ROTORS)
            errors = [a - wanted for a, wanted in zip(components(action), components(label), strict=True)]
            slopes = [slope + factor * error for slope, error in zip(slopes, errors, strict=True)]
        # The weights are shared, so what one vehicle's dynamics send back must be finite before it reaches them.
        by_action = from_components([torch.where(slope.isfinite(), slope, 0.0) for slope in slopes])
        gradient, by_observed = pull_act((by_action, by_memory))
        pairs = zip(by_state, by_observed, strict=True)
        return gradient, self._contained([[*map(torch.add, *map(components, pair))] for pair in pairs])

    def _contained(self, parts: Sequence[Sequence[Tensor]]) -> Tensors:
        """The adjoint of each vehicle, given in components: decayed, within its limit, and zero if not finite."""
        norm = rounded_norm([c for part in parts[:NUM_PHYSICAL] for c in part], 0.0)
        scale = self.gradient_decay * (self.adjoint_limit / norm.clamp(min=self.adjoint_limit))
        finite = norm.isfinite()
        return [from_components([torch.where(finite, c * scale, 0.0) for c in part]) for part in parts]
