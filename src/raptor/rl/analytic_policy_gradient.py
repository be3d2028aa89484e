"""Training a policy through the simulator's gradient (analytic policy gradient).

The cost of a segment of flight is differentiated with respect to the policy's weights by the adjoint method: the
segment is flown forward, keeping only what is handed from step to step; then one vector-Jacobian product per step walks
back. Each direction is one compiled graph, memory does not grow with what happens inside a step, and the adjoint of
each vehicle is in reach, so that a vehicle whose gradient explodes is held back alone.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from raptor.compilation import FlatFunction, compile_flat
from raptor.environments.episode import Episode, Noise, Rating, advance, observe
from raptor.limits import limits, not_negative, positive
from raptor.nn.policy import PolicyParameters, policy_step
from raptor.quadrotor.dynamics import Method
from raptor.quadrotor.parameters import Quadrotors
from raptor.quadrotor.state import State, components, from_components
from raptor.tasks.task import Task


@dataclasses.dataclass(frozen=True)
@limits(
    position=not_negative,
    position_rounding=positive,
    heading=not_negative,
    action_rate=not_negative,
    action_rounding=positive,
    saturation=not_negative,
    speed=not_negative,
    speed_limit=not_negative,
    box=not_negative,
    box_limit=not_negative,
    velocity=not_negative,
    cap=positive,
)
class Objective:
    """Weights of the smooth cost that stands in for the task's reward.

    The reward's norms have no gradient at the target and its termination has none anywhere; here norms are rounded off
    and the velocity limit becomes a slope before it.
    """

    position: float = 1.0  # per m of tracking error
    position_rounding: float = 1e-2  # m
    heading: float = 0.2  # per rad of acos(1 - |q_z|)
    action_rate: float = 1.0  # per unit of change of the action
    action_rounding: float = 1e-3  # below this change of the action its cost is quadratic
    saturation: float = 1.0  # on the squared excess of the action over [-1, 1]
    speed: float = 10.0  # on the squared excess of each velocity axis over `speed_limit`
    speed_limit: float = 1.6  # m/s
    box: float = 10.0  # on the squared excess of each axis over `box_limit`, in units of the vehicle's box
    box_limit: float = 0.8  # share of the vehicle's position threshold
    velocity: float = 0.0  # per m/s of velocity error
    cap: float = 20.0  # upper bound on the cost of a step


HIDDEN = 6
"""Place of the hidden state among the differentiable tensors of a flight."""


class Flight(NamedTuple):
    """What is handed from step to step of a segment. The gradient flows through all but the last five."""

    state: State
    hidden: Tensor  # (N, H)
    previous_action: Tensor  # (N, 4)
    sensed: tuple[Tensor, ...]
    commanded: tuple[Tensor, ...]
    target_position: Tensor  # (N, 3)
    target_velocity: Tensor  # (N, 3)
    time: Tensor  # (N,)
    walk: Tensor  # (N, 12)
    alive: Tensor  # (N,) 1 while the vehicle is within bounds, 0 from the step on that it left them

    @property
    def differentiable(self) -> tuple[Tensor, ...]:
        """The tensors that the gradient flows through: state and previous action first."""
        return (*self.state.parts(), self.previous_action, self.hidden, *self.sensed, *self.commanded)

    def with_differentiable(self, parts: Sequence[Tensor]) -> Flight:
        """The same flight with these tensors in place of `differentiable`."""
        first_commanded = 7 + len(self.sensed)
        return self._replace(
            state=State(*parts[:5]),
            previous_action=parts[5],
            hidden=parts[6],
            sensed=tuple(parts[7:first_commanded]),
            commanded=tuple(parts[first_commanded:]),
        )

    @classmethod
    def begin(cls, episode: Episode, hidden: Tensor) -> Flight:
        """The start of a segment: every vehicle where its episode stands, and alive."""
        reference = episode.reference
        return cls(
            state=episode.state,
            hidden=hidden,
            previous_action=episode.previous_action,
            sensed=episode.sensed,
            commanded=episode.commanded,
            target_position=reference.position,
            target_velocity=reference.velocity,
            time=reference.time,
            walk=reference.walk,
            alive=torch.ones_like(episode.noise_scale),
        )

    def into(self, episode: Episode) -> Episode:
        """The episode, moved on to where the flight stands."""
        reference = dataclasses.replace(
            episode.reference,
            position=self.target_position,
            velocity=self.target_velocity,
            time=self.time,
            walk=self.walk,
        )
        return dataclasses.replace(
            episode,
            state=self.state,
            reference=reference,
            previous_action=self.previous_action,
            last_action=self.previous_action,
            sensed=self.sensed,
            commanded=self.commanded,
        )


class Segment(NamedTuple):
    """What was flown in T steps by N vehicles."""

    episode: Episode  # where it ended
    hidden: Tensor  # (N, H), where it ended
    alive: Tensor  # (N,) 1 where the vehicle stayed within bounds, else 0
    cost: Tensor  # (T, N)
    reward: Tensor  # (T, N)
    terminated: Tensor  # (T, N) bool; whether this step is one that would have ended the episode


def _rounded_norm(parts: Sequence[Tensor], rounding: float) -> Tensor:
    square = sum((part * part for part in parts[1:]), parts[0] * parts[0])
    return torch.sqrt(square + rounding**2)


def _pull_back(function: Callable[..., Any], *primals: Any) -> tuple[Any, Callable[..., Any]]:
    """The value of a function and its vector-Jacobian product."""
    result: Any = torch.func.vjp(function, *primals)
    return result


def step_cost(
    objective: Objective, quadrotors: Quadrotors, episode: Episode, action: Tensor, following: Episode
) -> Tensor:
    """Cost (N,) of one step: `action` (N, 4), unclipped, was taken in `episode` and led to `following`."""
    state, target = following.state, following.reference
    error = [x - r for x, r in zip(components(state.position), components(target.position), strict=True)]
    change = [a - b for a, b in zip(components(action), components(episode.previous_action), strict=True)]
    heading = torch.acos(1 - components(state.orientation)[3].abs().clamp(max=1 - 1e-3))
    cost = (
        objective.position * _rounded_norm(error, objective.position_rounding)
        + objective.heading * heading
        + objective.action_rate * _rounded_norm(change, objective.action_rounding)
        + objective.saturation * sum(torch.relu(a.abs() - 1) ** 2 for a in components(action))
    )
    velocity = components(state.linear_velocity)
    if objective.speed:
        cost = cost + objective.speed * sum(torch.relu(v.abs() - objective.speed_limit) ** 2 for v in velocity)
    if objective.box:
        shares = [x.abs() / quadrotors.position_threshold for x in components(state.position)]
        cost = cost + objective.box * sum(torch.relu(share - objective.box_limit) ** 2 for share in shares)
    if objective.velocity:
        error = [v - r for v, r in zip(velocity, components(target.velocity), strict=True)]
        cost = cost + objective.velocity * _rounded_norm(error, objective.position_rounding)
    return cost.clamp(max=objective.cap)


def _in_bounds(quadrotors: Quadrotors, state: State) -> Tensor:
    """1 where a vehicle is worth learning from: within 1.5 times its box, below 40 rad/s and 20 m/s; 0 elsewhere."""
    within = torch.ones_like(quadrotors.mass, dtype=torch.bool)
    for x in components(state.position):
        within = within & (x.abs() <= 1.5 * quadrotors.position_threshold)
    for v in components(state.linear_velocity):
        within = within & (v.abs() <= 20.0)
    for w in components(state.angular_velocity):
        within = within & (w.abs() <= 40.0)
    return within.to(quadrotors.mass.dtype)


def _keep(alive: Tensor, new: Tensor, old: Tensor) -> Tensor:
    going = alive > 0
    return from_components([torch.where(going, n, o) for n, o in zip(components(new), components(old), strict=True)])


class SegmentGradient:
    """Cost and gradient of a policy over a segment of flight, for N vehicles at once.

    Args:
        task: what is asked.
        objective: the cost.
        method: integrator of the training flights.
        gradient_decay: factor on the adjoint per step backwards; below 1 the far past counts less.
        adjoint_limit: bound on the norm of each vehicle's adjoint; vehicles beyond it are scaled down to it.
        compile: False runs eagerly.
    """

    def __init__(
        self,
        task: Task,
        objective: Objective,
        method: Method = "midpoint",
        gradient_decay: float = 1.0,
        adjoint_limit: float = 1000.0,
        compile: bool = True,
    ) -> None:
        self.task, self.objective, self.method = task, objective, method
        self.gradient_decay, self.adjoint_limit = gradient_decay, adjoint_limit
        self._compile = compile
        self._compiled: dict[Any, tuple[FlatFunction, FlatFunction]] = {}

    @torch.no_grad()
    def fly(
        self,
        parameters: PolicyParameters,
        quadrotors: Quadrotors,
        episode: Episode,
        hidden: Tensor,
        noise: Sequence[Noise],
    ) -> Segment:
        """Fly one step for each entry of `noise`, without a gradient; arguments as in `__call__`."""
        return self._fly(parameters, quadrotors, episode, hidden, noise)[0]

    @torch.no_grad()
    def __call__(
        self,
        parameters: PolicyParameters,
        quadrotors: Quadrotors,
        episode: Episode,
        hidden: Tensor,
        noise: Sequence[Noise],
    ) -> tuple[PolicyParameters, Segment]:
        """Fly one step for each entry of `noise` and differentiate the mean cost.

        Args:
            parameters: the policy's weights.
            quadrotors: N vehicles, in component-major layout.
            episode: where they stand.
            hidden: (N, H).
            noise: what each step consumes.

        Returns:
            Gradient of the mean cost per vehicle and step, and what was flown.
        """
        segment, fixed, trail, draws, backward = self._fly(parameters, quadrotors, episode, hidden, noise)
        arrived = Flight.begin(segment.episode, segment.hidden)
        adjoint = [torch.zeros_like(part) for part in arrived.differentiable]
        gradient = [torch.zeros_like(p) for p in parameters]
        for before, draw in zip(reversed(trail), reversed(draws), strict=True):
            outputs = backward(*fixed, *before, *draw, *gradient, *adjoint)
            gradient, adjoint = list(outputs[: len(gradient)]), list(outputs[len(gradient) :])
        samples = segment.cost.numel()
        return PolicyParameters(*(g / samples for g in gradient)), segment

    def _fly(
        self,
        parameters: PolicyParameters,
        quadrotors: Quadrotors,
        episode: Episode,
        hidden: Tensor,
        noise: Sequence[Noise],
    ) -> tuple[Segment, list[Tensor], list[list[Tensor]], list[list[Tensor]], FlatFunction]:
        fixed, fixed_structure = pytree.tree_flatten((parameters, quadrotors, episode))
        flight, flight_structure = pytree.tree_flatten(Flight.begin(episode, hidden))
        draws = [[tensor for tensor in n if tensor is not None] for n in noise]
        forward, backward = self._graphs(fixed, fixed_structure, flight, flight_structure, draws[0])
        trail, costs, rewards, terminations = [], [], [], []
        for draw in draws:
            trail.append(flight)
            *flight, cost, reward, over = forward(*fixed, *flight, *draw)
            costs.append(cost)
            rewards.append(reward)
            terminations.append(over)
        arrived: Flight = pytree.tree_unflatten(flight, flight_structure)
        segment = Segment(
            episode=arrived.into(episode),
            hidden=arrived.hidden,
            alive=arrived.alive,
            cost=torch.stack(costs),
            reward=torch.stack(rewards),
            terminated=torch.stack(terminations),
        )
        return segment, fixed, trail, draws, backward

    def _graphs(
        self,
        fixed: list[Tensor],
        fixed_structure: Any,
        flight: list[Tensor],
        flight_structure: Any,
        draw: list[Tensor],
    ) -> tuple[FlatFunction, FlatFunction]:
        """Compile one step forward and one backward for these shapes, once."""
        key = tuple((tensor.shape, tensor.stride()) for tensor in (*fixed, *flight))
        if key in self._compiled:
            return self._compiled[key]
        num_fixed, num_flight, num_draw = len(fixed), len(flight), len(draw)

        def arguments(tensors: Sequence[Tensor]) -> tuple[Any, Flight, Noise, list[Tensor]]:
            rest = list(tensors)
            held, rest = rest[:num_fixed], rest[num_fixed:]
            moving, rest = rest[:num_flight], rest[num_flight:]
            return (
                pytree.tree_unflatten(held, fixed_structure),
                pytree.tree_unflatten(moving, flight_structure),
                Noise(*rest[:num_draw]),
                rest[num_draw:],
            )

        def forward(*tensors: Tensor) -> list[Tensor]:
            (parameters, quadrotors, episode), before, noise, _ = arguments(tensors)
            moved, cost, rating = self._step(parameters, quadrotors, episode, before, noise)
            return [*pytree.tree_leaves(moved), cost, rating.reward, rating.terminated]

        def backward(*tensors: Tensor) -> list[Tensor]:
            (parameters, quadrotors, episode), before, noise, rest = arguments(tensors)
            gradient, adjoint = rest[: len(parameters)], tuple(rest[len(parameters) :])
            return self._step_adjoint(parameters, quadrotors, episode, before, noise, gradient, adjoint)

        parts = pytree.tree_unflatten(flight, flight_structure).differentiable
        example = [*fixed, *flight, *draw]
        adjoint = [*(torch.zeros_like(p) for p in fixed[: len(PolicyParameters._fields)]), *parts]
        self._compiled[key] = (
            compile_flat(forward, example, self._compile),
            compile_flat(backward, [*example, *adjoint], self._compile),
        )
        return self._compiled[key]

    def _step(
        self, parameters: PolicyParameters, quadrotors: Quadrotors, episode: Episode, flight: Flight, noise: Noise
    ) -> tuple[Flight, Tensor, Rating]:
        action, hidden = self._act(parameters, episode, flight)
        return self._move(quadrotors, episode, flight, action, hidden, noise)

    def _act(self, parameters: PolicyParameters, episode: Episode, flight: Flight) -> tuple[Tensor, Tensor]:
        return policy_step(parameters, observe(flight.into(episode)), flight.hidden)

    def _move(
        self,
        quadrotors: Quadrotors,
        episode: Episode,
        flight: Flight,
        action: Tensor,
        hidden: Tensor,
        noise: Noise,
    ) -> tuple[Flight, Tensor, Rating]:
        before = flight.into(episode)
        after, rating = advance(self.task, quadrotors, before, action, noise, self.method)
        cost = step_cost(self.objective, quadrotors, before, action, after)
        alive = flight.alive * _in_bounds(quadrotors, after.state)
        kept = (_keep(alive, new, old) for new, old in zip(after.state.parts(), flight.state.parts(), strict=True))
        moved = Flight(
            state=State(*kept),
            hidden=hidden,
            previous_action=after.previous_action,
            sensed=tuple(_keep(alive, new, old) for new, old in zip(after.sensed, flight.sensed, strict=True)),
            commanded=after.commanded,
            target_position=after.reference.position,
            target_velocity=after.reference.velocity,
            time=after.reference.time,
            walk=after.reference.walk,
            alive=alive,
        )
        return moved, torch.where(alive > 0, cost, 0.0), rating

    def _step_adjoint(
        self,
        parameters: PolicyParameters,
        quadrotors: Quadrotors,
        episode: Episode,
        flight: Flight,
        noise: Noise,
        gradient: Sequence[Tensor],
        adjoint: tuple[Tensor, ...],
    ) -> list[Tensor]:
        def act(parameters: PolicyParameters, parts: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
            return self._act(parameters, episode, flight.with_differentiable(parts))

        def move(parts: tuple[Tensor, ...], action: Tensor, hidden: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
            before = flight.with_differentiable(parts)
            moved, cost, _ = self._move(quadrotors, episode, before, action, hidden, noise)
            return cost, moved.differentiable

        (action, hidden), pull_act = _pull_back(act, parameters, flight.differentiable)
        _, pull_move = _pull_back(move, flight.differentiable, action, hidden)
        held, action_adjoint, hidden_adjoint = pull_move((torch.ones_like(flight.alive), adjoint))
        # The weights are shared, so what one vehicle's dynamics send back must be finite before it reaches them.
        action_adjoint = from_components([torch.where(a.isfinite(), a, 0.0) for a in components(action_adjoint)])
        step_gradient, seen = pull_act((action_adjoint, hidden_adjoint))
        parts = [a + b for a, b in zip(held, seen, strict=True)]
        norm = _rounded_norm([c for part in parts[:HIDDEN] for c in components(part)], 0.0)
        scale = self.gradient_decay * (self.adjoint_limit / norm.clamp(min=self.adjoint_limit))
        finite = torch.isfinite(norm)

        def contain(part: Tensor) -> Tensor:
            return torch.where(finite.unsqueeze(-1), part * scale.unsqueeze(-1), 0.0)

        # Each part stays in the memory layout of its own: the hidden state row by row, all else by components.
        contained = [
            contain(part) if i == HIDDEN else from_components(components(contain(part))) for i, part in enumerate(parts)
        ]
        return [*(g + s for g, s in zip(gradient, step_gradient, strict=True)), *contained]
