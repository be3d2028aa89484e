"""Flying in bulk: one policy, N vehicles, one episode each."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Hashable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from raptor.core.compilation import CompiledStep
from raptor.environments.episode import Episode, Noise, advance, begin_episode, draw_noise, observe
from raptor.nn.mlp_policy import MLPParameters, MLPPolicy, mlp_step
from raptor.nn.policy import PolicyParameters, RaptorPolicy, policy_step
from raptor.quadrotor.parameters import Quadrotors
from raptor.quadrotor.state import component_major, components, from_components
from raptor.tasks.task import Task

ERROR_CAP = 100.0
"""m; bound on each axis of the position error, so that a vehicle that is lost, or not finite, counts, and as bad."""

STEPS_PER_DRAW = 50
"""Noise is drawn for so many steps at once, which bounds the memory that it takes."""


class Policy(Protocol):
    """What can be evaluated: anything recurrent that maps observations (N, 22) to actions (N, 4)."""

    def initial_hidden_state(self, *shape: int) -> Tensor:
        """Hidden state of a fresh start, (*shape, H)."""
        ...

    def __call__(self, observation: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """Action (N, 4) and next hidden state (N, H)."""
        ...


@dataclasses.dataclass(frozen=True)
class Recording:
    """Everything that happened, step by step; the first entry in time is the start."""

    position: Tensor  # (T + 1, N, 3) m, world
    orientation: Tensor  # (T + 1, N, 4) unit quaternion (w, x, y, z), body -> world
    linear_velocity: Tensor  # (T + 1, N, 3) m/s, world
    target: Tensor  # (T + 1, N, 3) m, world
    flying: Tensor  # (T + 1, N) bool; False once the episode is over
    dt: float  # s

    def __getitem__(self, index: tuple[slice, slice]) -> Recording:
        """A part of it: steps from the start, vehicles."""
        tensors = {name: value[index] for name, value in vars(self).items() if name != "dt"}
        return Recording(**tensors, dt=self.dt)

    @property
    def time(self) -> Tensor:
        """(T + 1,) s."""
        return self.dt * torch.arange(len(self.position))

    @property
    def tracking_error(self) -> Tensor:
        """(T + 1, N) m; distance from the target."""
        return torch.linalg.vector_norm(self.position - self.target, dim=-1)

    @property
    def tilt(self) -> Tensor:
        """(T + 1, N) rad between the body's z axis and the vertical."""
        _, x, y, _ = self.orientation.unbind(-1)
        return torch.acos((1 - 2 * (x * x + y * y)).clamp(-1, 1))


@dataclasses.dataclass(frozen=True)
class Flights:
    """What came of the episodes of N vehicles."""

    returns: Tensor  # (N,) sum of rewards up to and including the step that ended the episode
    terminated: Tensor  # (N,) bool; whether the episode ended before its time
    lengths: Tensor  # (N,) steps
    position_rmse: Tensor  # (N,) m; over the counted steps, terminated or not
    offset: Tensor  # (N, 3) m, world; mean position error over the counted steps
    recording: Recording | None = None  # where it was asked for

    @property
    def recorded(self) -> Recording:
        """The recording of a flight that was asked to make one."""
        if self.recording is None:
            raise ValueError("nothing was recorded: fly with record=True")
        return self.recording


class _Tally(NamedTuple):
    """Sums that are kept instead of the steps themselves."""

    flying: Tensor  # (N,) 1 until the episode is over, then 0
    returns: Tensor  # (N,)
    lengths: Tensor  # (N,)
    squared_error: Tensor  # (N,) m^2
    error: Tensor  # (N, 3) m

    @classmethod
    def begin(cls, quadrotors: Quadrotors) -> _Tally:
        zero = torch.zeros_like(quadrotors.mass)
        return cls(torch.ones_like(zero), zero, zero, zero, from_components([zero] * 3))

    def add(self, episode: Episode, value: Tensor, over: Tensor, counted: Tensor) -> _Tally:
        """Count a step that led to `episode`; `counted` (scalar, 0 or 1) says whether its position error matters."""
        target = components(episode.reference.position)
        apart = [x - r for x, r in zip(components(episode.state.position), target, strict=True)]
        error = [torch.where(e.abs() <= ERROR_CAP, e, ERROR_CAP) for e in apart]
        return _Tally(
            flying=torch.where(over, 0.0, self.flying),
            returns=self.returns + torch.where(self.flying > 0, value, 0.0),
            lengths=self.lengths + self.flying,
            squared_error=self.squared_error + counted * sum(e * e for e in error),
            error=from_components(
                [total + counted * e for total, e in zip(components(self.error), error, strict=True)]
            ),
        )


@torch.no_grad()
def fly(
    policy: Policy,
    task: Task,
    quadrotors: Quadrotors,
    generator: torch.Generator,
    num_steps: int | None = None,
    *,
    start: Episode | None = None,
    first_counted_step: int | None = None,
    pad_to: int | None = None,
    record: bool = False,
    compile: bool = True,
) -> Flights:
    """Fly one episode with each vehicle.

    Vehicles whose episode is over fly on, but no longer add to return and length.

    Args:
        policy: a `RaptorPolicy` or an `MLPPolicy`, which is compiled into the step, or any other policy, which is
            called at each step.
        task: what is asked.
        quadrotors: N vehicles.
        generator: source of randomness, on the device of the vehicles.
        num_steps: length of the flight; the task's by default.
        start: where the episodes begin; drawn by default.
        first_counted_step: position errors count from this step on; from the middle of the flight by default.
        pad_to: fly so many vehicles, at least N, by repeating them, and return the first N. Compiled code is made for
            one number of vehicles, which this keeps the same from call to call; eager flights have no use for it.
        record: keep the flight step by step, which takes memory.
        compile: False runs eagerly.

    Returns:
        What came of it, on the device of the vehicles.
    """
    task = task.for_vehicles(quadrotors)
    num_steps = task.episode_steps if num_steps is None else num_steps
    first_counted_step = num_steps // 2 if first_counted_step is None else first_counted_step
    device, num = quadrotors.device, len(quadrotors)
    start = begin_episode(task, quadrotors, generator) if start is None else start
    if compile and pad_to is not None and pad_to != num:
        places = torch.arange(pad_to, device=device) % num
        quadrotors, start = quadrotors[places], pytree.tree_map(lambda tensor: tensor[places], start)
    flight = _Flight.begin(policy, quadrotors.component_major(), pytree.tree_map(_laid_out, start))
    carried, structure = pytree.tree_flatten(flight)
    step = _step(task, structure, tuple((t.shape, t.dtype, t.device) for t in carried), compile)
    hidden = None if flight.weights else policy.initial_hidden_state(len(quadrotors)).to(device)
    log = [_Moment.of(flight, num)]
    for given in _inputs(task, quadrotors.mass, generator, num_steps, first_counted_step):
        if hidden is not None:
            action, hidden = policy(observe(flight.episode), hidden)
            given.append(_laid_out(action.to(device)))
        carried, _ = step(carried, given)
        if record or hidden is not None:
            flight = pytree.tree_unflatten(carried, structure)
        if record:
            log.append(_Moment.of(flight, num))
    tally: _Tally = pytree.tree_map(lambda tensor: tensor[:num], pytree.tree_unflatten(carried, structure).tally)
    counted = num_steps - first_counted_step
    return Flights(
        returns=tally.returns,
        terminated=tally.flying == 0,
        lengths=tally.lengths,
        position_rmse=(tally.squared_error / counted).sqrt(),
        offset=tally.error / counted,
        recording=_recording(log, task.dt) if record else None,
    )


class _Flight(NamedTuple):
    """What is carried from step to step."""

    weights: tuple[Tensor, ...]  # of a policy that is part of the step; empty where the action is given
    quadrotors: Quadrotors
    episode: Episode
    hidden: Any  # (N, H); empty where the policy is memoryless or the action is given
    tally: _Tally

    @classmethod
    def begin(cls, policy: Policy, quadrotors: Quadrotors, start: Episode) -> _Flight:
        tally = _Tally.begin(quadrotors)
        if not isinstance(policy, (RaptorPolicy, MLPPolicy)):
            return cls((), quadrotors, start, (), tally)
        weights = pytree.tree_map(lambda w: w.detach().to(quadrotors.device).contiguous(), policy.tensors())
        if isinstance(policy, MLPPolicy):
            return cls(weights, quadrotors, start, (), tally)
        hidden = policy.initial_hidden_state(len(quadrotors)).to(quadrotors.device)
        return cls(weights, quadrotors, start, hidden.contiguous(), tally)


class _Moment(NamedTuple):
    """What a recording keeps of a step, in the order of its fields."""

    position: Tensor
    orientation: Tensor
    linear_velocity: Tensor
    target: Tensor
    flying: Tensor

    @classmethod
    def of(cls, flight: _Flight, num: int) -> _Moment:
        state = flight.episode.state
        target = flight.episode.reference.position
        kept = (tensor[:num].clone() for tensor in (state.position, state.orientation, state.linear_velocity, target))
        position, orientation, linear_velocity, target = kept
        return cls(position, orientation, linear_velocity, target, flight.tally.flying[:num] > 0)


def _recording(log: Sequence[_Moment], dt: float) -> Recording:
    columns = _Moment(*(torch.stack(column) for column in zip(*log, strict=True)))
    return Recording(**columns._asdict(), dt=dt)


def _laid_out(tensor: Tensor) -> Tensor:
    """The same numbers in the layout that the compiled step gives back."""
    return component_major(tensor, tensor.ndim - 1)


def _inputs(
    task: Task, like: Tensor, generator: torch.Generator, num_steps: int, first_counted_step: int
) -> Iterator[list[Tensor]]:
    """What each step consumes: noise, and 1 or 0 for whether its position error counts."""
    flags = like.new_tensor([0.0, 1.0]).unbind()
    for first in range(0, num_steps, STEPS_PER_DRAW):
        block = draw_noise(task, like, generator, min(STEPS_PER_DRAW, num_steps - first))
        for step, noise in enumerate(block, start=first):
            yield [*(n for n in noise if n is not None), flags[int(step >= first_counted_step)]]


@functools.lru_cache(maxsize=64)
def _step(task: Task, structure: pytree.TreeSpec, kinds: Hashable, compile: bool) -> CompiledStep:
    """One step of a flight, compiled once for each task and kind of flight.

    The weights of a policy are arguments, so that policies of one architecture share the compiled code.
    """

    def step(carried: list[Tensor], given: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        weights, quadrotors, episode, hidden, tally = pytree.tree_unflatten(carried, structure)
        if weights:
            *noise, counted = given
            action, hidden = _act(weights, observe(episode), hidden)
        else:
            *noise, counted, action = given
        episode, rating = advance(task, quadrotors, episode, action, Noise(*noise))
        tally = tally.add(episode, rating.reward, rating.terminated, counted)
        return pytree.tree_leaves(_Flight(weights, quadrotors, episode, hidden, tally)), []

    return CompiledStep(step, compile)


def _act(weights: PolicyParameters | MLPParameters, observation: Tensor, hidden: Any) -> tuple[Tensor, Any]:
    if isinstance(weights, MLPParameters):
        return mlp_step(weights, observation), hidden
    action, following = policy_step(weights, observation, hidden)
    return action, following.contiguous()
