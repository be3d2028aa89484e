"""Demonstrations: what a student sees in whole episodes, and what a teacher does there; here in our own simulator.

Source: the data collection of RAPTOR's post-training; where the student flies, it is DAgger (Ross et al. 2011).
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from raptor.core.distributed import ALONE, Parts, World, cut
from raptor.environments.collectors import Episodes, Moment, Snapshot
from raptor.environments.controllers import Controller, Student, StudentParameters, Teachers, initial_memory
from raptor.environments.episode import observe, observe_as_teacher
from raptor.environments.rollout import BLOCK_STEPS, rollout
from raptor.nn.activations import RELU_TANH, Activations
from raptor.nn.stacked_mlp import Layer, Layers, act
from raptor.quadrotor.dynamics import Method
from raptor.quadrotor.parameters import NUM_ROTORS, Quadrotors
from raptor.quadrotor.state import component_major, components, from_components
from raptor.tasks.observation import STUDENT_DIM, TEACHER_DIM
from raptor.tasks.task import Task


class Demonstrations(NamedTuple):
    """E episodes, row by row; what follows the end of an episode is not used."""

    observation: Tensor  # (E, S, D) what the student sees; contiguous
    label: Tensor  # (E, S, A) what the teacher does there
    length: Tensor  # (E,) int64, steps until and including the one that ended the episode, at most S

    @classmethod
    def empty(
        cls,
        num_episodes: int,
        episode_steps: int,
        like: Tensor,
        observation_dim: int = STUDENT_DIM,
        action_dim: int = NUM_ROTORS,
    ) -> Demonstrations:
        """Room for so many episodes, in the type and on the device of `like`."""
        return cls(
            observation=like.new_zeros(num_episodes, episode_steps, observation_dim),
            label=like.new_zeros(num_episodes, episode_steps, action_dim),
            length=torch.zeros(num_episodes, dtype=torch.long, device=like.device),
        )


class SimulatedDemonstrations:
    """T vehicles in our simulator, B episodes of each, labelled by each vehicle's own teacher.

    The demonstrations of a teacher stand next to each other: E = T B, the vehicle's number first.

    Args:
        task: what is flown; the student sees what it says (target, sensor noise, delay), a teacher always sees all.
        quadrotors: T vehicles.
        layers: of their T teachers.
        num_episodes: B.
        position_offset: (T, 3) m, subtracted from the position in the stored observations, and nowhere else.
        compile: False runs eagerly.
        teacher_noise: standard deviation of what is added to the actions of teachers that act; labels stay clean.
        method: integrator.
        activations: of the teachers.
        world: the processes that share the vehicles, by teachers; each of them is given all of everything.
    """

    block_steps = BLOCK_STEPS
    """Steps that are labelled together."""
    labelled_rows = 2000
    """Rows that a processor labels at once: few, so that what the teachers' hidden layers give stays in its cache."""

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
        self.task, self.num_episodes, self.teacher_noise, self.method = task, num_episodes, teacher_noise, method
        self.activations, self.world, self._compile = activations, world, compile
        shares = Parts(world).shares(len(quadrotors))
        self._shares = [slice(share.start * num_episodes, share.stop * num_episodes) for share in shares]
        self.layers: Layers = cut(layers, shares[world.rank])
        plain = dataclasses.replace(quadrotors, names=None, documents=None)
        self._quadrotors = plain.repeat_interleave(num_episodes).component_major()
        self._offset = component_major(position_offset.repeat_interleave(num_episodes, dim=0))
        self._seen = torch.empty(0)  # (N, block_steps, 26), what the teachers see in a block

    def collect(self, student: StudentParameters | None, generator: torch.Generator, out: Demonstrations) -> Episodes:
        """Fill the room of one collection; the same student and state of the generator give the same one.

        Args:
            student: acts, recurrent or not; None: the teachers act.
            generator: of everything random.
            out: is filled.

        Returns:
            What came of the episodes, (T, B).
        """
        own, like = Demonstrations(*(tensor[self._shares[self.world.rank]] for tensor in out)), self._quadrotors.mass
        if self._seen.shape[:2] != (len(own.length), self.block_steps):
            self._seen = like.new_empty(len(own.length), self.block_steps, TEACHER_DIM)
        seen, done = self._seen, 0

        def write(snapshot: Snapshot) -> None:
            nonlocal done
            if snapshot.step == 0:
                return
            (tally, rows), step, done = snapshot.collectors, done, snapshot.step
            own.observation[:, step] = rows.observation
            if student is None:
                own.label[:, step] = rows.answer
                return
            first = step - step % self.block_steps
            seen[:, step - first] = rows.answer
            if done in (first + self.block_steps, self.task.episode_steps):
                self._label(seen[:, : done - first], tally.lengths - first, own.label[:, first:done])

        def over(snapshot: Snapshot) -> bool:
            return not self.world.any_rank(bool(snapshot.collectors[0].flying.any()))

        actor: Controller = Teachers(self.activations) if student is None else Student()
        answer = like.new_zeros(len(like), NUM_ROTORS if student is None else TEACHER_DIM)
        episodes, _ = rollout(
            actor,
            pytree.tree_map(torch.Tensor.contiguous, self.layers if student is None else student),
            () if student is None else initial_memory(student, len(like)),
            self.task,
            self._quadrotors,
            generator,
            collectors=[_Rows(self._offset, like.new_zeros(len(like), STUDENT_DIM), answer)],
            watch=write,
            stop=over,
            method=self.method,
            action_noise=self.teacher_noise if student is None else 0.0,
            compile=self._compile,
            world=self.world,
            together=self.num_episodes,
            block_steps=self.block_steps,
        )
        for whole, tensor in zip(out[:2], own[:2], strict=True):
            tensor[:, done:].zero_()
            self.world.all_gather_into(whole, self._shares)
        out.length.copy_(episodes.lengths)
        return Episodes(*(tensor.unflatten(0, (-1, self.num_episodes)) for tensor in episodes))

    def _label(self, seen: Tensor, length: Tensor, label: Tensor) -> None:
        """Write what the teachers do at `seen` (N, K, 26) to `label` (N, K, 4), for the first `length` (N,) steps."""
        num_steps, each = seen.shape[1], self.num_episodes
        counted = (torch.arange(num_steps, device=length.device) < length.unsqueeze(-1)).unsqueeze(-1)
        most = self.labelled_rows if seen.device.type == "cpu" else len(seen) * num_steps
        size = max(1, most // (each * num_steps))
        for first in range(0, len(seen) // each, size):
            layers = tuple(Layer(*(tensor[first : first + size] for tensor in layer)) for layer in self.layers)
            rows = slice(first * each, (first + size) * each)
            done = act(layers, seen[rows].reshape(-1, each * num_steps, TEACHER_DIM), self.activations)
            label[rows] = torch.where(counted[rows], done.view(-1, num_steps, NUM_ROTORS), 0.0)


class _Rows(NamedTuple):
    """Collector of the last step, row by row and zero once the episode is over.

    The answer is what the teachers did, (N, 4), or what they see where the student acts, (N, 26).
    """

    offset: Tensor  # (N, 3) m
    observation: Tensor  # (N, 22) offset-corrected
    answer: Tensor

    def add(self, moment: Moment) -> _Rows:
        going = moment.flying > 0

        def rows(tensor: Tensor) -> Tensor:
            return from_components([torch.where(going, x, 0.0) for x in components(tensor)]).contiguous()

        x, y, z, *others = components(observe(moment.before))
        corrected = [a - b for a, b in zip((x, y, z), components(self.offset), strict=True)]
        teachers_act = self.answer.shape[-1] == NUM_ROTORS
        answer = moment.action if teachers_act else observe_as_teacher(moment.quadrotors, moment.before)
        return _Rows(self.offset, rows(from_components([*corrected, *others])), rows(answer))
