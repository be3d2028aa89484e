"""Demonstrations: what a student sees in whole episodes, and what a teacher does there.

Teachers in our own simulator label block by block; one teacher in any other vector environment labels step by step.
Source: the data collection of RAPTOR's post-training; where the student acts, it is DAgger (Ross et al. 2011).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad
from torch.utils import _pytree as pytree

from raptor.core.distributed import ALONE, Parts, World, blocks_of, cut
from raptor.core.pool import Pool
from raptor.environments.collectors import Episodes, Moment, Snapshot
from raptor.environments.episode import observe, observe_as_teacher
from raptor.environments.rollout import (
    BLOCK_STEPS,
    Memory,
    Student,
    StudentParameters,
    Teachers,
    initial_memory,
    rollout,
    student_step,
)
from raptor.environments.vec_env import CheckedVecEnv
from raptor.nn.activations import RELU_TANH, Activations
from raptor.nn.stacked_kernel import StackedActor
from raptor.nn.stacked_mlp import Layers
from raptor.quadrotor.dynamics import Method
from raptor.quadrotor.parameters import NUM_ROTORS, Quadrotors
from raptor.quadrotor.state import component_major, components, from_components
from raptor.tasks.observation import STUDENT_DIM, TEACHER_DIM
from raptor.tasks.task import Task

Observations = Mapping[str, Tensor]
"""Of a vector environment, (N, D) by group."""
VecController = Callable[[Observations, Tensor], Tensor]
"""From observations, and where episodes begin (N,) bool, to actions (N, A)."""


class Demonstrations(NamedTuple):
    """E episodes, row by row; what follows the end of an episode is not used."""

    observation: Tensor  # (E, S, D) what the student sees; contiguous
    label: Tensor  # (E, S, A) what the teacher does there
    length: Tensor  # (E,) int64, steps until and including the one that ended the episode, at most S

    @classmethod
    def empty(
        cls,
        num: int,
        episode_steps: int,
        like: Tensor,
        observation_dim: int = STUDENT_DIM,
        action_dim: int = NUM_ROTORS,
    ) -> Demonstrations:
        """Room for `num` episodes, in the type and on the device of `like`."""
        observation, label = (like.new_zeros(num, episode_steps, width) for width in (observation_dim, action_dim))
        return cls(observation, label, torch.zeros(num, dtype=torch.long, device=like.device))


EPISODES_TOGETHER = 2048
"""Most episodes that are flown together on a CPU, unless a single teacher has more."""


@dataclasses.dataclass(frozen=True)
class DemonstrationFlight:
    """Flies B episodes with each of some vehicles, labelled by the vehicles' own teachers; a pure piece of work."""

    task: Task  # the student sees what it says (target, sensor noise, delay), a teacher always sees all
    num_episodes: int  # B
    compile: bool = True  # False runs eagerly
    teacher_noise: float = 0.0  # standard deviation, on the actions of teachers that act; labels stay clean
    method: Method = "rk4"  # integrator
    activations: Activations = RELU_TANH  # of the teachers
    block_steps: int = BLOCK_STEPS  # steps that are labelled together

    def __call__(
        self,
        quadrotors: Quadrotors,
        layers: Layers,
        position_offset: Tensor,
        student: StudentParameters | None,
        randomness: torch.Generator | int,
        out: Demonstrations | None = None,
        world: World = ALONE,
    ) -> tuple[Demonstrations, Episodes]:
        """Demonstrations (T B), and what came of the episodes (T, B), of T vehicles and teachers.

        The student acts, or the teachers where it is None; `randomness` is a generator, or the seed of one. What is
        demonstrated goes into `out` where that is given.
        """
        each, steps = self.num_episodes, self.task.episode_steps
        vehicles = quadrotors.repeat_interleave(each).component_major()
        like, width = vehicles.mass, self.task.observation_dim
        out = Demonstrations.empty(len(like), steps, like, width) if out is None else out
        shares = Parts(world).shares(len(quadrotors))
        layers = cut(layers, shares[world.rank])
        episodes_of = [slice(share.start * each, share.stop * each) for share in shares]
        own, done = Demonstrations(*(tensor[episodes_of[world.rank]] for tensor in out)), 0
        seen = like.new_empty(len(own.length), self.block_steps, TEACHER_DIM)  # by the teachers, in a block of steps
        teachers, num_own = StackedActor(layers, self.activations, self.compile), len(own.length) // each
        numbers = torch.arange(self.block_steps, device=like.device)

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
            if done in (first + self.block_steps, steps):
                rows = seen[:, : done - first].reshape(num_own, -1, TEACHER_DIM)
                labels = teachers(rows).view(len(seen), -1, NUM_ROTORS)
                counted = numbers[: done - first] < (tally.lengths - first).unsqueeze(-1)
                own.label[:, first:done] = torch.where(counted.unsqueeze(-1), labels, 0.0)

        def over(snapshot: Snapshot) -> bool:
            return not world.any_rank(bool(snapshot.collectors[0].flying.any()))

        # Zeros stand for the components before the position error, if that is observed.
        place, offset = self.task.place_of("position_error"), position_offset.repeat_interleave(each, dim=0)
        offset = component_major(pad(torch.zeros_like(offset) if place is None else offset, (place or 0, 0)))
        answer = like.new_zeros(len(like), NUM_ROTORS if student is None else TEACHER_DIM)
        if isinstance(randomness, int):
            randomness = torch.Generator(like.device).manual_seed(randomness)
        episodes, _ = rollout(
            Teachers(self.activations) if student is None else Student(),
            pytree.tree_map(torch.Tensor.contiguous, layers if student is None else student),
            () if student is None else initial_memory(student, len(like)),
            self.task,
            vehicles,
            randomness,
            collectors=[_Rows(offset, like.new_zeros(len(like), width), answer)],
            watch=write,
            stop=over,
            method=self.method,
            action_noise=self.teacher_noise if student is None else 0.0,
            compile=self.compile,
            world=world,
            together=each,
            block_steps=self.block_steps,
        )
        for whole, tensor in zip(out[:2], own[:2], strict=True):
            tensor[:, done:].zero_()
            world.all_gather_into(whole, episodes_of)
        out.length.copy_(episodes.lengths)
        return out, Episodes(*(tensor.unflatten(0, (-1, each)) for tensor in episodes))


@dataclasses.dataclass(eq=False)
class SimulatedDemonstrations:
    """T vehicles in our simulator, B episodes of each, labelled by each vehicle's own teacher.

    The demonstrations of a teacher stand next to each other: E = T B, the vehicle's number first. On a CPU they are
    flown in blocks, each with randomness of its own, so that it makes no difference which process flies one.
    """

    flight: DemonstrationFlight
    quadrotors: Quadrotors  # T
    layers: Layers  # of the T teachers
    position_offset: Tensor  # (T, 3) m, subtracted from stored positions, and nowhere else
    _: dataclasses.KW_ONLY
    world: World = ALONE  # shares the vehicles, by teachers; each process is given all of everything
    pool: Pool = dataclasses.field(default_factory=Pool)  # that flies the blocks, where `world` is one process
    most_together: int = EPISODES_TOGETHER

    def __post_init__(self) -> None:
        self.quadrotors = dataclasses.replace(self.quadrotors, names=None, documents=None)
        whole = self.world.size > 1 or self.quadrotors.device.type != "cpu"
        most = None if whole else max(1, self.most_together // self.flight.num_episodes)
        self._blocks = blocks_of(len(self.quadrotors), most)

    def collect(self, student: StudentParameters | None, generator: torch.Generator, out: Demonstrations) -> Episodes:
        """Fill `out` with one collection; the same student and state of the generator give the same one.

        The student acts, recurrent or not, or the teachers where it is None. Returns what came of the episodes, (T, B).
        """
        flown = self.quadrotors, self.layers, self.position_offset
        if len(self._blocks) == 1:
            return self.flight(*flown, student, generator, out, self.world)[1]
        seeds = torch.randint(2**31, (len(self._blocks),), generator=generator).tolist()
        pieces = [
            (self.quadrotors[own], *cut((self.layers, self.position_offset), own), student, seed)
            for own, seed in zip(self._blocks, seeds, strict=True)
        ]
        found, episodes = zip(*self.pool.map(self.flight, pieces), strict=True)
        for tensor, parts in zip(out, zip(*found, strict=True), strict=True):
            torch.cat(parts, out=tensor)
        return Episodes(*(torch.cat(parts) for parts in zip(*episodes, strict=True)))


class _Rows(NamedTuple):
    """Collector of the last step, row by row and zero once the episode is over."""

    offset: Tensor  # (N, K + 3) m; the last three are subtracted from the observation after its first K numbers
    observation: Tensor  # (N, D) offset-corrected
    answer: Tensor  # what the teachers did, (N, 4), or what they see where the student acts, (N, 26)

    def add(self, moment: Moment) -> _Rows:
        def rows(tensor: Tensor) -> Tensor:
            going = moment.flying > 0
            return from_components([torch.where(going, x, 0.0) for x in components(tensor)]).contiguous()

        row, (*before, dx, dy, dz) = list(components(observe(moment.before))), components(self.offset)
        for place, offset in enumerate((dx, dy, dz), start=len(before)):
            row[place] = row[place] - offset
        teachers_act = self.answer.shape[-1] == NUM_ROTORS
        answer = moment.action if teachers_act else observe_as_teacher(moment.quadrotors, moment.before)
        return _Rows(self.offset, rows(from_components(row)), rows(answer))


@dataclasses.dataclass(eq=False)
class VecStudent:
    """A student as a `VecController`, with a memory for each environment."""

    parameters: StudentParameters  # recurrent or not
    group: str  # of observations, that it sees
    _memory: Memory | None = None

    def __call__(self, observations: Observations, begins: Tensor) -> Tensor:
        """Actions (N, A); the memory starts afresh where an episode `begins`, (N,)."""
        observation = observations[self.group]
        fresh = initial_memory(self.parameters, len(observation))
        pairs = zip(fresh, self._memory or fresh, strict=True)
        memory = tuple(torch.where(begins.unsqueeze(-1), new, old) for new, old in pairs)
        action, self._memory = student_step(self.parameters, observation, memory)
        return action


class Record(NamedTuple):
    """Where demonstrations are written to."""

    demonstrations: Demonstrations  # (N K, S, ...), the environment's number first
    group: str  # of observations, that the student sees
    label: Callable[[Observations], Tensor]  # what a teacher does, (N, A)


@torch.no_grad()
def rollout_vec_env(
    env: CheckedVecEnv, controller: VecController, num_episodes: int, record: Record | None = None
) -> Episodes:
    """Run K whole episodes in each of N environments, so that short ones do not count more; what came of them, (N, K).

    One that is under way is run to its end and not counted. What is seen and what is to be done goes into `record`.
    """
    shape = env.num_envs, num_episodes
    returns, lengths = torch.zeros(2, *shape, device=env.device)
    terminated = torch.zeros(shape, dtype=torch.bool, device=env.device)
    observations = env.observe()
    begins = torch.ones(env.num_envs, dtype=torch.bool, device=env.device)
    episode = -(env.steps > 0).long()  # (N,) which of the K; -1 for one that is under way
    while bool((episode < num_episodes).any()):
        flying = ((episode >= 0) & (episode < num_episodes)).nonzero().squeeze(-1)
        action = controller(observations, begins)
        if record is not None:  # what an ignored action leaves is written, and not counted
            stored = record.demonstrations
            fits = flying[env.steps[flying] < stored.observation.shape[1]]  # not what follows the last step
            row, step = fits * num_episodes + episode[fits], env.steps[fits]
            stored.observation[row, step] = observations[record.group][fits]
            stored.label[row, step] = record.label(observations)[fits]
        result = env.step(action)
        counted = flying[~result.ignored[flying]]
        place = counted, episode[counted]
        returns[place] += result.reward[counted]
        lengths[place] += 1
        terminated[flying, episode[flying]] = result.done[flying] & ~result.timed_out[flying]
        observations, begins = result.observations, result.done
        episode = episode + begins
    if record is not None:
        record.demonstrations.length.copy_(lengths.flatten())
    return Episodes(returns, lengths, terminated)
