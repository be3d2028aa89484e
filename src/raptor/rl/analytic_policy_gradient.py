"""Training controllers through the simulator's gradient (analytic policy gradient).

The adjoint method: a segment of a rollout is flown forward, keeping only what is handed from step to step; then one
vector-Jacobian product per step goes back. Each direction is one compiled graph, with a kernel for the policy on a CPU.
Memory does not grow with what happens inside a step, and a vehicle whose adjoint explodes is limited alone.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from raptor.core.compilation import Tensors
from raptor.environments.episode import Episode, Noise, Own, advance, observe
from raptor.environments.rollout import Controller, Memory, Student, student_kernel
from raptor.quadrotor.dynamics import Method
from raptor.quadrotor.parameters import NUM_ROTORS, Quadrotors
from raptor.quadrotor.state import component_major, components, from_components
from raptor.rl.objective import Objective, TeacherGuide, in_bounds, rounded_norm, step_cost
from raptor.rl.segment import RolloutState, Segment, StepInputs
from raptor.rl.segment_steps import GraphSteps, KernelSteps, Moved
from raptor.tasks.task import Task

vjp: Any = torch.func.vjp  # whose result has a type of its own for each of its options

NUM_PHYSICAL = 6
"""The first of the differentiable tensors are the five of the state and the previous action."""


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
        self._compiled: dict[Any, GraphSteps | KernelSteps] = {}

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
            episodes = [steps.rollout(left).episode for left in trail]
            pulls = [[label, guide.weight] for label in guide.labels(quadrotors, episodes)]
        carried = steps.turn(start)
        for left, pull in zip(reversed(trail), reversed(pulls), strict=True):
            carried = steps.back(carried, left, pull)
        samples = (segment.cost[:, 0] if segment.cost.ndim > 2 else segment.cost).numel()  # of each network
        gradient = [total / samples for total in steps.gradient(carried)]
        return pytree.tree_unflatten(gradient, pytree.tree_structure(parameters)), segment

    @torch.no_grad()
    def fly(self, start: StepInputs, draws: Sequence[tuple[Tensor, ...]]) -> tuple[Segment, list[Any]]:
        """Fly one step for each entry of `draws`, the noise; also returns what the way back needs of each step."""
        axes = start.quadrotors.mass.ndim
        rollout = pytree.tree_map(lambda tensor: component_major(tensor, tensor.ndim - axes), start.rollout)
        steps, trail, log = self._steps(start), [], []
        carried = steps.begin(start._replace(rollout=rollout))
        for draw in draws:
            carried, outputs, left = steps.ahead(carried, list(draw))
            trail.append(left)
            log.append(outputs)
        arrived = steps.end(carried, list(draws[0])).acting()
        return Segment(*arrived, *(torch.stack(column) for column in zip(*log, strict=True))), trail

    def _steps(self, start: StepInputs) -> Any:
        """What flies from inputs of these shapes and layouts: `KernelSteps` if it can, else `GraphSteps`."""
        tensors, structure = pytree.tree_flatten(start)
        weights = len(pytree.tree_leaves(start.parameters))
        key = structure, *((tensor.shape, tensor.dtype, tensor.device) for tensor in tensors)
        key += tuple(tensor.stride() for tensor in (*tensors[:weights], *start.noise))
        if key not in self._compiled:
            kernel = student_kernel(self.controller, start.parameters, self.compile)
            self._compiled[key] = GraphSteps(self, start) if kernel is None else KernelSteps(self, start, kernel)
        return self._compiled[key]

    def step(self, inputs: StepInputs) -> Moved:
        """One step forward: the rollout after it, its cost (...), and its outcome."""
        return self.move(inputs, *self._act(inputs))

    def _act(self, inputs: StepInputs) -> tuple[Tensor, Memory]:
        parameters, quadrotors, rollout, _ = inputs
        return self.controller.act(parameters, quadrotors, rollout.episode, rollout.memory)

    def move(self, inputs: StepInputs, action: Tensor, memory: Memory) -> Moved:
        """The same with an action (..., 4) that is known; a vehicle out of bounds stays where it was, at no cost."""
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
        self, inputs: StepInputs, adjoint: Sequence[Tensor], pull: Sequence[Tensor] = ()
    ) -> tuple[Any, Tensors]:
        """One step backward: gradient by the parameters, and derivative by `differentiable` before the step.

        The adjoint is the derivative of all that follows by `differentiable` after the step; `pull` is the label
        (..., 4) of a guide and its weight (), or nothing.
        """
        rollout = inputs.rollout

        def act(parameters: Any, parts: tuple[Tensor, ...]) -> tuple[Tensor, Memory]:
            return self._act(inputs._replace(parameters=parameters, rollout=rollout.with_differentiable(parts)))

        def move(parts: tuple[Tensor, ...], action: Tensor, memory: Memory) -> tuple[Tensor, tuple[Tensor, ...]]:
            moved, cost, _ = self.move(inputs._replace(rollout=rollout.with_differentiable(parts)), action, memory)
            return cost, moved.differentiable

        (action, memory), pull_act = vjp(act, inputs.parameters, rollout.differentiable)
        _, pull_move = vjp(move, rollout.differentiable, action, memory)
        by_state, by_action, by_memory = pull_move((torch.ones_like(rollout.alive), tuple(adjoint)))
        gradient, by_observed = pull_act((_pulled(by_action, action, rollout.alive, pull), by_memory))
        return gradient, self._contained(by_state, by_observed)[0]

    def move_adjoint(
        self,
        inputs: StepInputs,
        action: Tensor,
        adjoint: Sequence[Tensor],
        by_observation: Tensor,
        pull: Sequence[Tensor] = (),
    ) -> tuple[Tensors, Tensor, Tensor]:
        """One step backward between policies: derivative by `differentiable` before the step, and by the action.

        The adjoint is as for `step_adjoint`, apart from what the policy then observes, by which the derivative is
        `by_observation` (..., D). The third result is what this vehicle's adjoint was multiplied by, (...).
        """
        rollout = inputs.rollout

        def move(parts: tuple[Tensor, ...], action: Tensor) -> tuple[Any, RolloutState]:
            moved, cost, _ = self.move(inputs._replace(rollout=rollout.with_differentiable(parts)), action, ())
            return (cost, moved.differentiable), moved

        def see(parts: tuple[Tensor, ...]) -> Tensor:
            return observe(moved.with_differentiable(parts).episode)

        _, pull_move, moved = vjp(move, rollout.differentiable, action, has_aux=True)
        _, pull_sight = vjp(see, moved.differentiable)
        following, scale = self._contained(adjoint, *pull_sight(by_observation))
        by_state, by_action = pull_move((torch.ones_like(rollout.alive), tuple(following)))
        return list(by_state), _pulled(by_action, action, rollout.alive, pull), scale

    def _contained(self, *parts: Sequence[Tensor]) -> tuple[Tensors, Tensor]:
        """The adjoint of each vehicle, a sum of two: decayed, within its limit, and zero if not finite; and by what."""
        sums = [[*map(torch.add, *map(components, pair))] for pair in zip(*parts, strict=True)]
        norm = rounded_norm([c for part in sums[:NUM_PHYSICAL] for c in part], 0.0)
        scale = self.gradient_decay * (self.adjoint_limit / norm.clamp(min=self.adjoint_limit))
        finite = norm.isfinite()
        contained = [from_components([torch.where(finite, c * scale, 0.0) for c in part]) for part in sums]
        return contained, torch.where(finite, scale, 0.0)


def _pulled(by_action: Tensor, action: Tensor, alive: Tensor, pull: Sequence[Tensor]) -> Tensor:
    """The derivative by the action (..., 4), towards a guide's too, and zero where it is not finite.

    The weights are shared, so what one vehicle's dynamics send back must be finite before it reaches them.
    """
    slopes = list(components(by_action))
    if pull:
        label, weight = pull
        factor = alive * weight * (2 / NUM_ROTORS)
        errors = [a - wanted for a, wanted in zip(components(action), components(label), strict=True)]
        slopes = [slope + factor * error for slope, error in zip(slopes, errors, strict=True)]
    return from_components([torch.where(slope.isfinite(), slope, 0.0) for slope in slopes])
