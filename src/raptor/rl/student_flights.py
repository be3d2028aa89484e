"""Flights of a student: how it acts, where its flights stand, and what they are worth."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Hashable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from raptor.core.compilation import CompiledStep, Tensors
from raptor.core.distributed import ALONE, Parts, World, cut
from raptor.environments.episode import Episode, Noise, advance, begin_episode, draw_noise
from raptor.nn.mlp_policy import MLPParameters
from raptor.nn.policy import PolicyParameters
from raptor.quadrotor.dynamics import Method
from raptor.quadrotor.parameters import Quadrotors
from raptor.quadrotor.state import component_major
from raptor.rl.flight import Controller, MLPStudent, Student
from raptor.tasks.task import Task

STEPS_PER_DRAW = 50
"""Noise is drawn for so many steps at once."""

StudentParameters = PolicyParameters | MLPParameters
"""Of a recurrent student, or of one without memory."""


def controller_of(parameters: StudentParameters, precision: str = "float32") -> Controller:
    """Who flies with these parameters, with matrix products in this precision."""
    return (Student if isinstance(parameters, PolicyParameters) else MLPStudent)(precision)


def initial_memory(parameters: StudentParameters, num: int) -> tuple[Tensor, ...]:
    """What a student remembers at the start of `num` episodes: a hidden state (num, H) of zeros, or nothing."""
    if isinstance(parameters, PolicyParameters):
        return (parameters.output_weight.new_zeros(num, parameters.output_weight.shape[-1]),)
    return ()


class EpisodeTally(NamedTuple):
    """Where the flights of N vehicles stand."""

    episode: Episode
    memory: tuple[Tensor, ...]  # (N, H) each; what whoever flies remembers
    flying: Tensor  # (N,) 1 until the episode is over, then 0
    returns: Tensor  # (N,)
    lengths: Tensor  # (N,) steps

    @classmethod
    def begin(cls, episode: Episode, memory: tuple[Tensor, ...]) -> EpisodeTally:
        """The start of all episodes."""
        zero = torch.zeros_like(episode.noise_scale)
        return cls(pytree.tree_map(_laid_out, episode), memory, torch.ones_like(zero), zero, zero)

    def move(
        self,
        task: Task,
        quadrotors: Quadrotors,
        action: Tensor,
        memory: tuple[Tensor, ...],
        noise: Noise,
        method: Method = "rk4",
    ) -> EpisodeTally:
        """One step further. Vehicles whose episode is over fly on, without counting."""
        episode, rating = advance(task, quadrotors, self.episode, action, noise, method)
        return EpisodeTally(
            episode=episode,
            memory=memory,
            flying=torch.where(rating.terminated, 0.0, self.flying),
            returns=self.returns + torch.where(self.flying > 0, rating.reward, 0.0),
            lengths=self.lengths + self.flying,
        )


def noise_by_step(task: Task, like: Tensor, generator: torch.Generator) -> Iterator[Tensors]:
    """What each step of an episode consumes, drawn `STEPS_PER_DRAW` steps at once; undone by `Noise(*tensors)`."""
    for first in range(0, task.episode_steps, STEPS_PER_DRAW):
        for noise in draw_noise(task, like, generator, min(STEPS_PER_DRAW, task.episode_steps - first)):
            yield [draw for draw in noise if draw is not None]


class Track(NamedTuple):
    """Where some vehicles went; the first entry in time is the start."""

    position: Tensor  # (S + 1, N, 3) m, world
    orientation: Tensor  # (S + 1, N, 4) unit quaternion (w, x, y, z), body -> world
    target: Tensor  # (S + 1, N, 3) m, world
    flying: Tensor  # (S + 1, N) bool; False once the episode is over


class StudentFlights(NamedTuple):
    """What came of one episode of each of N vehicles."""

    returns: Tensor  # (N,) sum of rewards up to and including the step that ended the episode
    terminated: Tensor  # (N,) bool; whether the episode ended before its time
    lengths: Tensor  # (N,) steps
    track: Track | None = None  # of the first vehicles, where it was asked for


class _Flight(NamedTuple):
    """What is carried from step to step."""

    parameters: StudentParameters
    quadrotors: Quadrotors
    progress: EpisodeTally


class StudentTest:
    """Flies students through episodes that are the same at each call.

    Args:
        task: what is asked.
        quadrotors: N vehicles.
        seed: of the episodes.
        compile: False runs eagerly.
        num_recorded: keep the track of so many vehicles, the first ones.
        world: the processes that share the flights; tracks are kept by one that is alone.
    """

    def __init__(
        self,
        task: Task,
        quadrotors: Quadrotors,
        seed: int,
        compile: bool = True,
        num_recorded: int = 0,
        world: World = ALONE,
    ) -> None:
        self.task, self.seed, self.num_recorded = task.for_vehicles(quadrotors), seed, num_recorded
        self._parts = Parts(world)
        self._quadrotors = dataclasses.replace(quadrotors, names=None, documents=None).component_major()
        self._compile = compile

    @torch.no_grad()
    def __call__(self, parameters: StudentParameters) -> StudentFlights:
        """Fly with the student, recurrent or not."""
        task, like = self.task, self._quadrotors.mass
        generator = torch.Generator(like.device).manual_seed(self.seed)
        parameters = pytree.tree_map(lambda tensor: tensor.detach().contiguous(), parameters)
        (own,) = self._parts.own(len(like))
        quadrotors, episode = cut((self._quadrotors, begin_episode(task, self._quadrotors, generator)), own)
        progress = EpisodeTally.begin(episode, initial_memory(parameters, len(quadrotors)))
        carried, structure = pytree.tree_flatten(_Flight(parameters, quadrotors, progress))
        step = _step(task, structure, tuple((t.shape, t.dtype, t.device) for t in carried), self._compile)
        log = [self._moment(progress)]
        for noise in noise_by_step(task, like, generator):
            carried, _ = step(carried, cut(noise, own))
            if self.num_recorded:
                log.append(self._moment(pytree.tree_unflatten(carried, structure).progress))
        progress = pytree.tree_unflatten(carried, structure).progress
        mine = [progress.returns, progress.flying, progress.lengths]
        returns, flying, lengths = self._parts.gather([mine], len(like))
        return StudentFlights(
            returns=returns,
            terminated=flying == 0,
            lengths=lengths,
            track=_stack(log) if self.num_recorded else None,
        )

    def _moment(self, progress: EpisodeTally) -> Track:
        state, target = progress.episode.state, progress.episode.reference.position
        standing = (state.position, state.orientation, target, progress.flying > 0)
        return Track(*(tensor[: self.num_recorded].clone() for tensor in standing))


def _stack(log: Sequence[Track]) -> Track:
    return Track(*(torch.stack(moments) for moments in zip(*log, strict=True)))


@functools.lru_cache(maxsize=16)
def _step(task: Task, structure: pytree.TreeSpec, kinds: Hashable, compile: bool) -> CompiledStep:
    """One step of a flight, compiled once for each task and kind of flight; weights and vehicles are arguments."""

    def step(carried: Tensors, given: Tensors) -> tuple[Tensors, Tensors]:
        flight: _Flight = pytree.tree_unflatten(carried, structure)
        progress = flight.progress
        controller = controller_of(flight.parameters)
        action, memory = controller.act(flight.parameters, flight.quadrotors, progress.episode, progress.memory)
        moved = progress.move(task, flight.quadrotors, action, memory, Noise(*given))
        return pytree.tree_leaves(flight._replace(progress=moved)), []

    return CompiledStep(step, compile)


def _laid_out(tensor: Tensor) -> Tensor:
    """The same numbers in the layout in which the simulator computes."""
    return component_major(tensor, tensor.ndim - 1)
