"""Training controllers through the simulator's gradient (analytic policy gradient).

The mean cost of a segment of flight is differentiated by the weights with the adjoint method: the segment is flown
forward, keeping only what is handed from step to step; then one vector-Jacobian product per step goes back. Each
direction is one compiled graph, memory does not grow with what happens inside a step, and the adjoint of each vehicle
is in reach, so that a vehicle whose gradient explodes is held back alone.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from raptor.core.compilation import FlatFunction, Tensors, compile_flat
from raptor.environments.controllers import Controller, Student
from raptor.environments.episode import Episode, Noise, StepOutcome, advance
from raptor.environments.rollout import Transition
from raptor.quadrotor.dynamics import Method
from raptor.quadrotor.parameters import NUM_ROTORS, Quadrotors
from raptor.quadrotor.state import components, from_components
from raptor.rl.flight import NUM_PHYSICAL, RolloutState, Segment, advance_segment
from raptor.rl.guide import Guide
from raptor.rl.objective import Objective, rounded_norm
from raptor.tasks.task import Task


class StepInputs(NamedTuple):
    """Everything that one step of flight depends on."""

    parameters: Any  # of the controller, in any nesting
    quadrotors: Quadrotors  # (...) in component-major layout
    episode: Episode  # (...) at the start of the segment
    flight: RolloutState  # (...) before the step
    noise: tuple[Tensor, ...]  # the fields of `Noise` that the task needs


class SegmentGradient:
    """Cost and gradient of a controller over a segment of flight, for N vehicles at once.

    Args:
        task: defines observations, dynamics and termination.
        objective: the cost.
        method: integrator of the training flights.
        gradient_decay: factor on the adjoint per step backwards; below 1 the far past counts less.
        adjoint_limit: bound on the norm of each vehicle's adjoint; vehicles beyond it are scaled down to it.
        compile: False runs eagerly.
        controller: that is trained; the recurrent policy by default.
    """

    def __init__(
        self,
        task: Task,
        objective: Objective,
        *,
        method: Method = "midpoint",
        gradient_decay: float = 1.0,
        adjoint_limit: float = 1000.0,
        compile: bool = True,
        controller: Controller | None = None,
    ) -> None:
        self.task, self.objective, self.method = task, objective, method
        self.gradient_decay, self.adjoint_limit = gradient_decay, adjoint_limit
        self.controller: Controller = Student() if controller is None else controller
        self._compile = compile
        self._compiled: dict[Any, _CompiledSteps] = {}

    @torch.no_grad()
    def __call__(
        self,
        parameters: Any,
        quadrotors: Quadrotors,
        episode: Episode,
        memory: tuple[Tensor, ...],
        noise: Sequence[Noise],
        guide: Guide | None = None,
    ) -> tuple[Any, Segment]:
        """Fly one step for each entry of `noise` and differentiate the mean cost.

        Args:
            parameters: the controller's weights, in any nesting.
            quadrotors: the vehicles, in component-major layout.
            episode: at the start of the segment.
            memory: of the controller.
            noise: of each step.
            guide: whose actions are to be imitated, in the states that the controller comes to.

        Returns:
            Gradient of the mean cost per vehicle and step, nested like the parameters, and the segment. Where several
            networks fly, each has the gradient of the mean cost of its own vehicles. What a guide adds to the gradient
            is not among the costs of the segment.
        """
        draws = [tuple(draw for draw in n if draw is not None) for n in noise]
        start = StepInputs(parameters, quadrotors, episode, RolloutState.begin(episode, memory), draws[0])
        segment, trail = self.fly(start, draws)
        steps = self._steps(start)
        pulls: list[Tensors] = [[]] * len(trail)
        if guide is not None:
            episodes = [steps.inputs(tensors).flight.into(episode) for tensors in trail]
            pulls = [[label, guide.weight] for label in guide.labels(quadrotors, episodes)]
        backward = steps.backward if guide is None else steps.guided_backward
        weights, structure = pytree.tree_flatten(parameters)
        gradient = [torch.zeros_like(weight) for weight in weights]
        arrived = RolloutState.begin(segment.episode, segment.memory)
        adjoint = [torch.zeros_like(part) for part in arrived.differentiable]
        for tensors, pull in zip(reversed(trail), reversed(pulls), strict=True):
            outputs = backward(*tensors, *pull, *gradient, *adjoint)
            gradient, adjoint = list(outputs[: len(gradient)]), list(outputs[len(gradient) :])
        samples = (segment.cost[:, 0] if segment.cost.ndim > 2 else segment.cost).numel()  # of each network
        return pytree.tree_unflatten([g / samples for g in gradient], structure), segment

    @torch.no_grad()
    def fly(self, start: StepInputs, draws: Sequence[tuple[Tensor, ...]]) -> tuple[Segment, list[Tensors]]:
        """Fly one step for each entry of `draws`, the noise; also returns the flat inputs of each step."""
        steps, trail, log = self._steps(start), [], []
        fixed, flight = pytree.tree_leaves(start[:3]), pytree.tree_leaves(start.flight)
        for draw in draws:
            trail.append([*fixed, *flight, *draw])
            *flight, cost, reward, terminated = steps.forward(*trail[-1])
            log.append((cost, reward, terminated))
        cost, reward, terminated = (torch.stack(column) for column in zip(*log, strict=True))
        arrived: RolloutState = pytree.tree_unflatten(flight, pytree.tree_structure(start.flight))
        episode = arrived.into(start.episode)
        return Segment(episode, arrived.memory, arrived.alive, cost, reward, terminated), trail

    def _steps(self, start: StepInputs) -> _CompiledSteps:
        # An empty tensor may have any strides.
        key = tuple((tensor.shape, tensor.numel() and tensor.stride()) for tensor in pytree.tree_leaves(start[:4]))
        if key not in self._compiled:
            self._compiled[key] = _CompiledSteps(self, start, self._compile)
        return self._compiled[key]

    def step(self, inputs: StepInputs) -> tuple[RolloutState, Tensor, StepOutcome]:
        """One step forward: the flight after it, its cost (...), and its outcome."""
        return self._move(inputs, *self._act(inputs))

    def _act(self, inputs: StepInputs) -> tuple[Tensor, tuple[Tensor, ...]]:
        parameters, quadrotors, episode, flight, _ = inputs
        return self.controller.act(parameters, quadrotors, flight.into(episode), flight.memory)

    def _move(
        self, inputs: StepInputs, action: Tensor, memory: tuple[Tensor, ...]
    ) -> tuple[RolloutState, Tensor, StepOutcome]:
        _, quadrotors, episode, flight, noise = inputs
        before = flight.into(episode)
        after = advance(self.task, quadrotors, before, action, Noise(*noise), self.method)
        moved, cost = advance_segment(self.objective, quadrotors, flight, before, Transition(action, memory, *after))
        return moved, cost, after[1]

    def step_adjoint(
        self, inputs: StepInputs, adjoint: tuple[Tensor, ...], pull: Sequence[Tensor] = ()
    ) -> tuple[Any, Tensors]:
        """One step backward.

        Args:
            inputs: of the step.
            adjoint: derivative of all that follows by `differentiable` of the flight after the step.
            pull: label (..., 4) of a guide and its weight (), or nothing.

        Returns:
            Gradient by the parameters, and the derivative by `differentiable` of the flight before the step.
        """
        flight = inputs.flight

        def act(parameters: Any, parts: tuple[Tensor, ...]) -> tuple[Tensor, tuple[Tensor, ...]]:
            return self._act(inputs._replace(parameters=parameters, flight=flight.with_differentiable(parts)))

        def move(
            parts: tuple[Tensor, ...], action: Tensor, memory: tuple[Tensor, ...]
        ) -> tuple[Tensor, tuple[Tensor, ...]]:
            moved, cost, _ = self._move(inputs._replace(flight=flight.with_differentiable(parts)), action, memory)
            return cost, moved.differentiable

        (action, memory), pull_act = _vjp(act, inputs.parameters, flight.differentiable)
        _, pull_move = _vjp(move, flight.differentiable, action, memory)
        by_state, by_action, by_memory = pull_move((torch.ones_like(flight.alive), adjoint))
        slopes = list(components(by_action))
        if pull:
            label, weight = pull
            factor = flight.alive * weight * (2 / NUM_ROTORS)
            errors = [a - wanted for a, wanted in zip(components(action), components(label), strict=True)]
            slopes = [slope + factor * error for slope, error in zip(slopes, errors, strict=True)]
        # The weights are shared, so what one vehicle's dynamics send back must be finite before it reaches them.
        by_action = from_components([torch.where(slope.isfinite(), slope, 0.0) for slope in slopes])
        gradient, by_observed = pull_act((by_action, by_memory))
        parts = [a + b for a, b in zip(by_state, by_observed, strict=True)]
        return gradient, self._contained(parts, len(flight.memory))

    def _contained(self, parts: Tensors, num_memory: int) -> Tensors:
        """The adjoint of each vehicle, decayed, no longer than its limit, and zero where it is not finite."""
        norm = rounded_norm([c for part in parts[:NUM_PHYSICAL] for c in components(part)], 0.0)
        scale = self.gradient_decay * (self.adjoint_limit / norm.clamp(min=self.adjoint_limit)).unsqueeze(-1)
        contained = [torch.where(norm.isfinite().unsqueeze(-1), part * scale, 0.0) for part in parts]
        # Each part stays in the memory layout of its own: what is remembered row by row, all else by components.
        memory_places = range(NUM_PHYSICAL, NUM_PHYSICAL + num_memory)
        return [
            part if place in memory_places else from_components(components(part))
            for place, part in enumerate(contained)
        ]


class _CompiledSteps:
    """A step and its adjoint as functions of flat tensors, each compiled when it is first asked for.

    Args:
        rule: whose steps they are.
        like: inputs of the shapes and layouts that will come.
        compile: False runs eagerly.
    """

    def __init__(self, rule: SegmentGradient, like: StepInputs, compile: bool) -> None:
        self._rule, self._like, self._compile = rule, like, compile
        self._example, self._structure = pytree.tree_flatten(like)

    def inputs(self, tensors: Sequence[Tensor]) -> StepInputs:
        """Inputs from flat ones."""
        inputs: StepInputs = pytree.tree_unflatten(list(tensors), self._structure)
        return inputs

    @functools.cached_property
    def forward(self) -> FlatFunction:
        """Inputs -> flight after the step, cost, reward, terminated."""

        def flat(*tensors: Tensor) -> Tensors:
            moved, cost, outcome = self._rule.step(self.inputs(tensors))
            return [*pytree.tree_leaves(moved), cost, outcome.reward, outcome.terminated]

        return compile_flat(flat, self._example, self._compile)

    @functools.cached_property
    def backward(self) -> FlatFunction:
        """Inputs, gradient so far, adjoint after the step -> gradient and adjoint before it."""
        return self._adjoint([])

    @functools.cached_property
    def guided_backward(self) -> FlatFunction:
        """The same with label and weight of a guide after the inputs."""
        return self._adjoint([self._like.flight.previous_action, self._like.flight.alive.new_zeros(())])

    def _adjoint(self, pull: Tensors) -> FlatFunction:
        weights = [torch.zeros_like(weight) for weight in pytree.tree_leaves(self._like.parameters)]
        example = [*self._example, *pull, *weights, *self._like.flight.differentiable]
        ends = [*itertools.accumulate(map(len, (self._example, pull, weights)))]

        def flat(*tensors: Tensor) -> Tensors:
            given, pulled, gradient, adjoint = (tensors[a:b] for a, b in itertools.pairwise([0, *ends, None]))
            step_gradient, before = self._rule.step_adjoint(self.inputs(given), adjoint, pulled)
            return [*(g + s for g, s in zip(gradient, pytree.tree_leaves(step_gradient), strict=True)), *before]

        return compile_flat(flat, example, self._compile, "a step of the gradient")


def _vjp(function: Callable[..., Any], *primals: Any) -> tuple[Any, Callable[..., Any]]:
    """Value of a function and its vector-Jacobian product."""
    result: Any = torch.func.vjp(function, *primals)
    return result
