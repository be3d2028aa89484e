"""Demonstrations: what a student sees in flight, and what the vehicle's own teacher does there.

Source: the data collection of RAPTOR's post-training; where the student flies, it is DAgger (Ross et al. 2011).
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Hashable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from raptor.core.compilation import CompiledStep, Tensors
from raptor.core.distributed import ALONE, Parts, World, cut
from raptor.environments.episode import Noise, begin_episode, draw_noise, observe, observe_as_teacher
from raptor.nn.activations import RELU_TANH, Activations
from raptor.nn.stacked_mlp import Layer, Layers, act
from raptor.quadrotor.dynamics import Method
from raptor.quadrotor.parameters import Quadrotors
from raptor.quadrotor.state import component_major, components, from_components
from raptor.rl.student_flights import EpisodeTally, StudentParameters, controller_of, initial_memory
from raptor.tasks.observation import STUDENT_DIM, TEACHER_DIM
from raptor.tasks.task import Task

ACTION_DIM = 4

BLOCK_STEPS = 50
"""Steps whose noise is drawn at once, and which are labelled together."""

LABELLED_ROWS = 2000
"""Rows that a processor labels at once: few, so that what the teachers' hidden layers give stays in its cache."""


class Demonstrations(NamedTuple):
    """Episodes of E flights, row by row; what follows the end of an episode is zero and not used."""

    observation: Tensor  # (E, S, 22) what the student sees, offset-corrected; contiguous
    label: Tensor  # (E, S, 4) what the vehicle's own teacher does there, in [-1, 1]
    length: Tensor  # (E,) int64, steps until and including the one that ended the episode, at most S

    @classmethod
    def empty(cls, num_episodes: int, episode_steps: int, like: Tensor) -> Demonstrations:
        """Room for so many episodes, in the type and on the device of `like`."""
        return cls(
            observation=like.new_zeros(num_episodes, episode_steps, STUDENT_DIM),
            label=like.new_zeros(num_episodes, episode_steps, ACTION_DIM),
            length=torch.zeros(num_episodes, dtype=torch.long, device=like.device),
        )


class Outcome(NamedTuple):
    """What came of B episodes of each of T vehicles."""

    returns: Tensor  # (T, B) sum of rewards up to and including the step that ended the episode
    lengths: Tensor  # (T, B) steps
    terminated: Tensor  # (T, B) bool; whether the episode ended before its time


class _Flight(NamedTuple):
    """What is carried from step to step."""

    parameters: StudentParameters | Layers
    quadrotors: Quadrotors
    offset: Tensor  # (N, 3) m
    progress: EpisodeTally


class DemonstrationFlights:
    """Flies T vehicles B times each, all at once, and has each vehicle's own teacher say what it would do.

    The demonstrations of a teacher stand next to each other: E = T B, the vehicle's number first.

    Args:
        task: what is flown; the student sees what it says (target, sensor noise, delay), a teacher always sees all.
        quadrotors: T vehicles.
        layers: of their T teachers.
        num_episodes: B.
        position_offset: (T, 3) m, subtracted from the position in the stored observations, and nowhere else.
        compile: False runs eagerly.
        teacher_noise: standard deviation of what is added to the actions of teachers that fly; labels stay clean.
        method: integrator.
        activations: of the teachers.
        world: the processes that share the flights, by teachers; each of them is given all of everything.
    """

    def __init__(
        self,
        task: Task,
        quadrotors: Quadrotors,
        layers: Layers,
        num_episodes: int,
        position_offset: Tensor,
        compile: bool = True,
        teacher_noise: float = 0.0,
        method: Method = "rk4",
        activations: Activations = RELU_TANH,
        world: World = ALONE,
    ) -> None:
        self.activations, self.world = activations, world
        shares = Parts(world).shares(len(quadrotors))
        self._shares = [slice(share.start * num_episodes, share.stop * num_episodes) for share in shares]
        self._own = self._shares[world.rank]
        self.task, self.num_episodes = task.for_vehicles(quadrotors), num_episodes
        self.layers: Layers = cut(layers, shares[world.rank])
        self.teacher_noise, self.method = teacher_noise, method
        plain = dataclasses.replace(quadrotors, names=None, documents=None)
        self._everyone = plain.repeat_interleave(num_episodes).component_major()  # for whom everything is drawn
        self._quadrotors = cut(self._everyone, self._own)
        self._offset = component_major(position_offset.repeat_interleave(num_episodes, dim=0)[self._own])
        self._compile = compile
        self._seen = torch.empty(0)  # (N, BLOCK_STEPS, 26), what the teachers see in a block

    @property
    def num_teachers(self) -> int:
        """T, or the share of this process."""
        return len(self.layers[0].weight)

    @torch.no_grad()
    def __call__(
        self, student: StudentParameters | None, generator: torch.Generator, out: Demonstrations | None = None
    ) -> tuple[Demonstrations, Outcome]:
        """Fly one episode with each of the T B vehicles.

        Args:
            student: who flies, recurrent or not; None: the teachers fly.
            generator: of the episodes and of all noise, on the device of the vehicles.
            out: is filled and handed back; new ones by default.

        Returns:
            The demonstrations and the outcome of the flights.
        """
        task, like = self.task, self._everyone.mass
        whole = Demonstrations.empty(len(like), task.episode_steps, like) if out is None else out
        out = Demonstrations(*(tensor[self._own] for tensor in whole))
        flight = self._begin(student, generator)
        carried, structure = pytree.tree_flatten(flight)
        kinds = tuple((tensor.shape, tensor.dtype, tensor.device) for tensor in carried)
        step = _step(task, self.method, self.activations, structure, kinds, self._compile)
        first = 0
        while first < task.episode_steps and self.world.any_rank(bool(flight.progress.flying.any())):
            block = slice(first, min(first + BLOCK_STEPS, task.episode_steps))
            seen = self._room(block.stop - first)
            for number, given in enumerate(self._draw(block.stop - first, student is None, generator)):
                carried, (observation, answer) = step(carried, given)
                out.observation[:, first + number] = observation
                if student is None:
                    out.label[:, first + number] = answer
                else:
                    seen[:, number] = answer
            flight = pytree.tree_unflatten(carried, structure)
            if student is not None:
                self._label(seen, flight.progress.lengths - first, out.label[:, block])
            first = block.stop
        out.observation[:, first:].zero_()
        out.label[:, first:].zero_()
        out.length.copy_(flight.progress.lengths)
        progress = flight.progress
        outcome = map(self._shared, (progress.returns, progress.lengths, progress.flying == 0))
        for tensor in whole:
            self.world.all_gather_into(tensor, self._shares)
        return whole, Outcome(*(tensor.unflatten(0, (-1, self.num_episodes)) for tensor in outcome))

    def _shared(self, own: Tensor) -> Tensor:
        """(T B,) of all processes, from what this one has."""
        if self.world.size == 1:
            return own
        whole = own.new_empty(len(self._everyone))
        whole[self._own] = own
        self.world.all_gather_into(whole, self._shares)
        return whole

    def _begin(self, student: StudentParameters | None, generator: torch.Generator) -> _Flight:
        episode = cut(begin_episode(self.task, self._everyone, generator), self._own)
        memory = () if student is None else initial_memory(student, len(self._quadrotors.mass))
        parameters = pytree.tree_map(
            lambda tensor: tensor.detach().contiguous(), self.layers if student is None else student
        )
        return _Flight(parameters, self._quadrotors, self._offset, EpisodeTally.begin(episode, memory))

    def _draw(self, num: int, teachers_fly: bool, generator: torch.Generator) -> Iterator[Tensors]:
        """What each of `num` steps consumes: noise of the task, then of the teachers' actions where there is any."""
        like = self._everyone.mass
        noise = [[draw for draw in step if draw is not None] for step in draw_noise(self.task, like, generator, num)]
        if teachers_fly and self.teacher_noise:
            action = torch.randn(num, ACTION_DIM, len(like), generator=generator, dtype=like.dtype, device=like.device)
            noise = [[*given, self.teacher_noise * a.mT] for given, a in zip(noise, action, strict=True)]
        yield from (cut(given, self._own) for given in noise)

    def _label(self, seen: Tensor, length: Tensor, label: Tensor) -> None:
        """Write what the teachers do at `seen` (N, K, 26) to `label` (N, K, 4), for the first `length` (N,) steps."""
        num_steps = seen.shape[1]
        counted = (torch.arange(num_steps, device=length.device) < length.unsqueeze(-1)).unsqueeze(-1)
        most = LABELLED_ROWS if seen.device.type == "cpu" else len(seen) * num_steps
        size = max(1, most // (self.num_episodes * num_steps))
        for first in range(0, self.num_teachers, size):
            teachers = slice(first, first + size)
            rows = slice(first * self.num_episodes, (first + size) * self.num_episodes)
            layers = tuple(Layer(*(tensor[teachers] for tensor in layer)) for layer in self.layers)
            done = act(layers, seen[rows].view(-1, self.num_episodes * num_steps, TEACHER_DIM), self.activations)
            label[rows] = torch.where(counted[rows], done.view(-1, num_steps, ACTION_DIM), 0.0)

    def _room(self, num_steps: int) -> Tensor:
        """(N, num_steps, 26) for what the teachers see in a block."""
        num = len(self._quadrotors.mass)
        if self._seen.numel() != num * num_steps * TEACHER_DIM:
            self._seen = self._quadrotors.mass.new_empty(num, num_steps, TEACHER_DIM)
        return self._seen


@functools.lru_cache(maxsize=16)
def _step(
    task: Task,
    method: Method,
    activations: Activations,
    structure: pytree.TreeSpec,
    kinds: Hashable,
    compile: bool,
) -> CompiledStep:
    """One step of a flight, compiled once for each task and kind of flight; weights and vehicles are arguments.

    It brings, row by row and zero once the episode is over, what is stored of the observation, and beside it what the
    teachers see where the student flies, what they do where they fly.
    """
    num_noise = 1 + task.sensing.noisy

    def step(carried: Tensors, given: Tensors) -> tuple[Tensors, Tensors]:
        flight: _Flight = pytree.tree_unflatten(carried, structure)
        parameters, quadrotors, offset, progress = flight
        going = progress.flying > 0

        def rows(tensor: Tensor) -> Tensor:
            return from_components([torch.where(going, x, 0.0) for x in components(tensor)]).contiguous()

        x, y, z, *others = components(observe(progress.episode))
        corrected = [a - b for a, b in zip((x, y, z), components(offset), strict=True)]
        shown = rows(from_components([*corrected, *others]))
        seen = rows(observe_as_teacher(quadrotors, progress.episode))
        noise, deviations = Noise(*given[:num_noise]), given[num_noise:]
        if isinstance(parameters, StudentParameters):
            controller, answer = controller_of(parameters), seen
            action, memory = controller.act(parameters, quadrotors, progress.episode, progress.memory)
        else:
            done = act(parameters, seen.view(len(parameters[0].weight), -1, TEACHER_DIM), activations).flatten(0, 1)
            action, memory, answer = sum(deviations, component_major(done)), (), rows(done)
        moved = progress.move(task, quadrotors, action, memory, noise, method)
        return pytree.tree_leaves(flight._replace(progress=moved)), [shown, answer]

    return CompiledStep(step, compile)
