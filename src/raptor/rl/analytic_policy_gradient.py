"""Training controllers through the simulator's gradient (analytic policy gradient).

The cost of a segment of flight is differentiated with respect to the weights by the adjoint method: the segment is
flown forward, keeping only what is handed from step to step; then one vector-Jacobian product per step walks back. Each
direction is one compiled graph, memory does not grow with what happens inside a step, and the adjoint of each vehicle
is in reach, so that a vehicle whose gradient explodes is held back alone.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from raptor.core.compilation import FlatFunction, compile_flat
from raptor.environments.controllers import Controller, Student
from raptor.environments.episode import Episode, Noise, StepOutcome, advance
from raptor.environments.rollout import Transition, rollout_step
from raptor.quadrotor.dynamics import Method
from raptor.quadrotor.parameters import NUM_ROTORS, Quadrotors
from raptor.quadrotor.state import components, from_components
from raptor.rl.flight import NUM_PHYSICAL, RolloutState, Segment, advance_segment
from raptor.rl.objective import Objective, rounded_norm
from raptor.tasks.task import Task

Tensors = list[Tensor]


class Guide(Protocol):
    """Who knows what to do: its actions pull at those of the controller."""

    weight: Tensor  # () of the mean squared difference of the actions, beside the cost of a step

    def labels(self, quadrotors: Quadrotors, episodes: Sequence[Episode]) -> Sequence[Tensor]:
        """What the guide would do in each of these episodes, (..., 4) each in component-major layout."""
        ...


class _Graphs(NamedTuple):
    """One step forward and one backward, each compiled when it is first asked for."""

    forward: Callable[[], FlatFunction]
    backward: Callable[[bool], FlatFunction]  # whether there is a guide


class _Trail(NamedTuple):
    """A segment and what its way back needs."""

    segment: Segment
    fixed: Tensors
    flights: list[Tensors]  # before each step
    draws: list[Tensors]
    backward: Callable[[bool], FlatFunction]


def _pull_back(function: Callable[..., Any], *primals: Any) -> tuple[Any, Callable[..., Any]]:
    """The value of a function and its vector-Jacobian product."""
    result: Any = torch.func.vjp(function, *primals)
    return result


class SegmentGradient:
    """Cost and gradient of a controller over a segment of flight, for N vehicles at once.

    Args:
        task: what is asked.
        objective: the cost.
        method: integrator of the training flights.
        gradient_decay: factor on the adjoint per step backwards; below 1 the far past counts less.
        adjoint_limit: bound on the norm of each vehicle's adjoint; vehicles beyond it are scaled down to it.
        compile: False runs eagerly.
        controller: who flies; the recurrent policy by default.
    """

    def __init__(
        self,
        task: Task,
        objective: Objective,
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
        self._compiled: dict[Any, _Graphs] = {}

    @torch.no_grad()
    def fly(
        self,
        parameters: Any,
        quadrotors: Quadrotors,
        episode: Episode,
        memory: tuple[Tensor, ...],
        noise: Sequence[Noise],
    ) -> Segment:
        """Fly one step for each entry of `noise`, without a gradient; arguments as in `__call__`."""
        return self._fly(parameters, quadrotors, episode, memory, noise).segment

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
            episode: where they stand.
            memory: what the controller remembers.
            noise: what each step consumes.
            guide: whose actions are to be imitated, in the states that the controller comes to.

        Returns:
            Gradient of the mean cost per vehicle and step, nested like the parameters, and what was flown. Where
            several networks fly, each has the gradient of the mean cost of its own vehicles. What a guide adds to the
            gradient is not among the costs of the segment.
        """
        weights, structure = pytree.tree_flatten(parameters)
        segment, fixed, trail, draws, backward = self._fly(parameters, quadrotors, episode, memory, noise)
        arrived, step_back = RolloutState.begin(segment.episode, segment.memory), backward(guide is not None)
        adjoint = [torch.zeros_like(part) for part in arrived.differentiable]
        gradient = [torch.zeros_like(weight) for weight in weights]
        pulls = self._pulls(guide, quadrotors, episode, trail, arrived)
        for before, draw, pull in zip(reversed(trail), reversed(draws), reversed(pulls), strict=True):
            outputs = step_back(*fixed, *before, *draw, *pull, *gradient, *adjoint)
            gradient, adjoint = list(outputs[: len(gradient)]), list(outputs[len(gradient) :])
        samples = segment.cost.numel() / self.controller.num_networks(parameters)
        return pytree.tree_unflatten([g / samples for g in gradient], structure), segment

    @staticmethod
    def _pulls(
        guide: Guide | None, quadrotors: Quadrotors, episode: Episode, trail: Sequence[Tensors], like: RolloutState
    ) -> list[Tensors]:
        """What each step's way back is given of the guide: labels and their weight, or nothing."""
        if guide is None:
            return [[]] * len(trail)
        structure = pytree.tree_structure(like)
        episodes = [pytree.tree_unflatten(flight, structure).into(episode) for flight in trail]
        return [[label, guide.weight] for label in guide.labels(quadrotors, episodes)]

    def _fly(
        self,
        parameters: Any,
        quadrotors: Quadrotors,
        episode: Episode,
        memory: tuple[Tensor, ...],
        noise: Sequence[Noise],
    ) -> _Trail:
        fixed, fixed_structure = pytree.tree_flatten((parameters, quadrotors, episode))
        flight, flight_structure = pytree.tree_flatten(RolloutState.begin(episode, memory))
        draws = [[tensor for tensor in n if tensor is not None] for n in noise]
        num_weights = len(pytree.tree_leaves(parameters))
        graphs = self._graphs(num_weights, fixed, fixed_structure, flight, flight_structure, draws[0])
        trail, costs, rewards, terminations = [], [], [], []
        step = graphs.forward()
        for draw in draws:
            trail.append(flight)
            *flight, cost, reward, over = step(*fixed, *flight, *draw)
            costs.append(cost)
            rewards.append(reward)
            terminations.append(over)
        arrived: RolloutState = pytree.tree_unflatten(flight, flight_structure)
        segment = Segment(
            episode=arrived.into(episode),
            memory=arrived.memory,
            alive=arrived.alive,
            cost=torch.stack(costs),
            reward=torch.stack(rewards),
            terminated=torch.stack(terminations),
        )
        return _Trail(segment, fixed, trail, draws, graphs.backward)

    def _graphs(
        self,
        num_weights: int,
        fixed: Tensors,
        fixed_structure: Any,
        flight: Tensors,
        flight_structure: Any,
        draw: Tensors,
    ) -> _Graphs:
        """Compile one step forward and one backward for these shapes, once."""
        # An empty tensor may have any strides.
        key = tuple((tensor.shape, tensor.numel() and tensor.stride()) for tensor in (*fixed, *flight))
        if key in self._compiled:
            return self._compiled[key]
        num_fixed, num_flight, num_draw = len(fixed), len(flight), len(draw)

        def arguments(tensors: Sequence[Tensor]) -> tuple[Any, RolloutState, Noise, Tensors]:
            rest = list(tensors)
            held, rest = rest[:num_fixed], rest[num_fixed:]
            moving, rest = rest[:num_flight], rest[num_flight:]
            return (
                pytree.tree_unflatten(held, fixed_structure),
                pytree.tree_unflatten(moving, flight_structure),
                Noise(*rest[:num_draw]),
                rest[num_draw:],
            )

        def forward(*tensors: Tensor) -> Tensors:
            (parameters, quadrotors, episode), before, noise, _ = arguments(tensors)
            moved, cost, rating = self._step(parameters, quadrotors, episode, before, noise)
            return [*pytree.tree_leaves(moved), cost, rating.reward, rating.terminated]

        def backward(guided: bool, *tensors: Tensor) -> Tensors:
            (parameters, quadrotors, episode), before, noise, rest = arguments(tensors)
            pull, rest = (rest[:2], rest[2:]) if guided else ([], rest)
            gradient, adjoint = rest[:num_weights], tuple(rest[num_weights:])
            return self._step_adjoint(parameters, quadrotors, episode, before, noise, pull, gradient, adjoint)

        begun: RolloutState = pytree.tree_unflatten(flight, flight_structure)
        example = [*fixed, *flight, *draw]
        adjoint = [*(torch.zeros_like(weight) for weight in fixed[:num_weights]), *begun.differentiable]
        pull = [begun.previous_action, begun.alive.new_zeros(())]

        def compile_backward(guided: bool) -> FlatFunction:
            given = [*example, *(pull if guided else []), *adjoint]
            return compile_flat(functools.partial(backward, guided), given, self._compile)

        self._compiled[key] = _Graphs(
            functools.cache(lambda: compile_flat(forward, example, self._compile)), functools.cache(compile_backward)
        )
        return self._compiled[key]

    def _step(
        self, parameters: Any, quadrotors: Quadrotors, episode: Episode, flight: RolloutState, noise: Noise
    ) -> tuple[RolloutState, Tensor, StepOutcome]:
        before = flight.into(episode)
        transition = rollout_step(
            self.controller, parameters, self.task, quadrotors, before, flight.memory, noise, self.method
        )
        moved, cost = advance_segment(self.objective, quadrotors, flight, before, transition)
        return moved, cost, transition.outcome

    def _step_adjoint(
        self,
        parameters: Any,
        quadrotors: Quadrotors,
        episode: Episode,
        flight: RolloutState,
        noise: Noise,
        pull: Sequence[Tensor],
        gradient: Sequence[Tensor],
        adjoint: tuple[Tensor, ...],
    ) -> Tensors:
        def act(parameters: Any, parts: tuple[Tensor, ...]) -> tuple[Tensor, tuple[Tensor, ...]]:
            before = flight.with_differentiable(parts)
            return self.controller.act(parameters, quadrotors, before.into(episode), before.memory)

        def move(
            parts: tuple[Tensor, ...], action: Tensor, memory: tuple[Tensor, ...]
        ) -> tuple[Tensor, tuple[Tensor, ...]]:
            begun = flight.with_differentiable(parts)
            before = begun.into(episode)
            after = advance(self.task, quadrotors, before, action, noise, self.method)
            moved, cost = advance_segment(self.objective, quadrotors, begun, before, Transition(action, memory, *after))
            return cost, moved.differentiable

        (action, memory), pull_act = _pull_back(act, parameters, flight.differentiable)
        _, pull_move = _pull_back(move, flight.differentiable, action, memory)
        held, action_adjoint, memory_adjoint = pull_move((torch.ones_like(flight.alive), adjoint))
        if pull:
            label, weight = pull
            share = flight.alive * weight * (2 / NUM_ROTORS)
            action_adjoint = from_components(
                [
                    back + share * (a - wanted)
                    for back, a, wanted in zip(
                        components(action_adjoint), components(action), components(label), strict=True
                    )
                ]
            )
        # The weights are shared, so what one vehicle's dynamics send back must be finite before it reaches them.
        action_adjoint = from_components([torch.where(a.isfinite(), a, 0.0) for a in components(action_adjoint)])
        step_gradient, seen = pull_act((action_adjoint, memory_adjoint))
        parts = [a + b for a, b in zip(held, seen, strict=True)]
        norm = rounded_norm([c for part in parts[:NUM_PHYSICAL] for c in components(part)], 0.0)
        scale = self.gradient_decay * (self.adjoint_limit / norm.clamp(min=self.adjoint_limit))
        finite = torch.isfinite(norm)

        def contain(part: Tensor) -> Tensor:
            return torch.where(finite.unsqueeze(-1), part * scale.unsqueeze(-1), 0.0)

        # Each part stays in the memory layout of its own: what is remembered row by row, all else by components.
        memory_places = range(NUM_PHYSICAL, NUM_PHYSICAL + len(flight.memory))
        contained = [
            contain(part) if i in memory_places else from_components(components(contain(part)))
            for i, part in enumerate(parts)
        ]
        leaves = pytree.tree_leaves(step_gradient)
        return [*(g + s for g, s in zip(gradient, leaves, strict=True)), *contained]
