"""Sources of demonstrations: teachers in our simulator, or one teacher in any environment."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from raptor.core.distributed import ALONE, Parts, World
from raptor.environments.rollout import StudentParameters
from raptor.environments.vec_env import CheckedVecEnv
from raptor.formats.checkpoint import StudentPolicy
from raptor.nn.teachers import TeacherPopulation
from raptor.rl.demonstrations import (
    Demonstrations,
    Observations,
    Record,
    SimulatedDemonstrations,
    VecStudent,
    rollout_vec_env,
)
from raptor.rl.imitation import weights_of
from raptor.training.distillation.config import PostTrainConfig
from raptor.training.distillation.env_config import EnvDistillConfig
from raptor.training.distillation.env_teacher import EnvTeacher
from raptor.training.validation import TRAINING_SEEDS

WEIGHTS, FLIGHTS, ORDER, EVALUATION = range(4)
"""Streams of random numbers of a source in any environment."""


class Source(Protocol):
    """Where a student and its teachers act."""

    device: torch.device
    parts: Parts  # how batches are cut
    num_episodes: int  # of an epoch

    def room(self, num_collections: int) -> Demonstrations:
        """Room for so many epochs."""
        ...

    def plan(self, epoch: int, forced: bool) -> Any:
        """What to collect in an epoch, as plain data; `forced` says that the teachers act."""
        ...

    def collect(self, plan: Any, student: StudentParameters | None, out: Demonstrations) -> dict[str, float]:
        """Collect demonstrations into `out`: the student acts, or the teachers where it is None; their figures."""
        ...

    def order(self, epoch: int) -> torch.Generator:
        """Of the order in which an epoch learns."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next plan depends on."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go back to a state that `state_dict` gave."""
        ...


class SimulatorSource:
    """T teachers, or those of them with which the student is worst, each with its own vehicle in our simulator.

    Args:
        config: the settings.
        teachers: with their vehicles.
        world: the processes that share rollouts and batches; every one of them holds all data.
    """

    def __init__(self, config: PostTrainConfig, teachers: TeacherPopulation, world: World = ALONE) -> None:
        self.config, self.device = config, torch.device(config.device)
        self.teachers = teachers.to(self.device)
        self.parts = Parts(world, config.accumulation)
        self.generator = torch.Generator(self.device).manual_seed(TRAINING_SEEDS + config.seed)
        self.student_returns = torch.full((len(teachers),), -math.inf, device=self.device)
        self.num_active = config.num_active(len(teachers))
        self.num_episodes = self.num_active * config.num_episodes
        self._demonstrations: SimulatedDemonstrations | None = None

    def room(self, num_collections: int) -> Demonstrations:
        """See `Source`."""
        like = torch.zeros(0, device=self.device)
        return Demonstrations.empty(num_collections * self.num_episodes, self.config.task.episode_steps, like)

    def plan(self, epoch: int, forced: bool) -> list[Tensor]:
        """The state of the generator, and the active teachers: in turn where they act, else those of the worst returns.

        A teacher whose vehicle the student has not flown yet comes first.
        """
        num, total = self.num_active, len(self.teachers)
        in_turn = (torch.arange(num, device=self.device) + epoch * num) % total
        active = in_turn if forced else self.student_returns.argsort(stable=True)[:num]
        return [self.generator.get_state(), active.sort().values]

    def collect(self, plan: Any, student: StudentParameters | None, out: Demonstrations) -> dict[str, float]:
        """See `Source`."""
        state, active = plan
        if self._demonstrations is None or len(active) < len(self.teachers):
            self._demonstrations = self._demonstrations_of(self.teachers[active])
        self.generator.set_state(state)
        found = self._demonstrations.collect(student, self.generator, out)
        returns = found.returns.mean(1)  # by teacher
        if student is not None:
            # A return that is not a number is the worst, but after those that were never flown.
            self.student_returns[active] = returns.nan_to_num(nan=torch.finfo(returns.dtype).min)
        over_teachers = {"mean_return": returns.mean().item(), "std_return": returns.std(correction=0).item()}
        return {**found.figures(), **over_teachers, "num_steps": found.lengths.sum().item()}

    def order(self, epoch: int) -> torch.Generator:
        """See `Source`; goes on where the rollouts ended."""
        return self.generator

    def _demonstrations_of(self, teachers: TeacherPopulation) -> SimulatedDemonstrations:
        config, offset = self.config, teachers.position_offset
        assert teachers.quadrotors is not None
        return SimulatedDemonstrations(
            config.flown_task,
            teachers.quadrotors,
            teachers.layers,
            config.num_episodes,
            offset if config.steady_state_position_correction else torch.zeros_like(offset),
            config.compile,
            0.0 if config.teacher_deterministic else config.teacher_noise,
            config.method,
            activations=teachers.activations,
            world=self.parts.world,
        )

    def state_dict(self) -> dict[str, Any]:
        """See `Source`."""
        return {"generator": self.generator.get_state(), "student_returns": self.student_returns.clone()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """See `Source`."""
        self.generator.set_state(state["generator"])
        self.student_returns = state["student_returns"].to(self.device)


class EnvSource:
    """One teacher in any vector environment.

    Args:
        config: the settings.
        env: where teacher and student act.
        teacher: that fits it.
    """

    def __init__(self, config: EnvDistillConfig, env: CheckedVecEnv, teacher: EnvTeacher) -> None:
        self.config, self.env, self.teacher = config, env, teacher
        self.device, self.parts = torch.device(env.device), Parts()
        self.num_episodes = math.ceil(config.num_episodes / env.num_envs) * env.num_envs
        env.watch(*dict.fromkeys((config.student_group, *teacher.groups)))

    def room(self, num_collections: int) -> Demonstrations:
        """See `Source`."""
        env, like = self.env, torch.zeros(0, device=self.device)
        widths = env.widths[self.config.student_group], env.num_actions
        return Demonstrations.empty(num_collections * self.num_episodes, env.episode_steps, like, *widths)

    def plan(self, epoch: int, forced: bool) -> int:
        """The epoch, from which the seed of the episodes follows."""
        return epoch

    def collect(self, plan: Any, student: StudentParameters | None, out: Demonstrations) -> dict[str, float]:
        """See `Source`."""
        generator, group = self._generator(FLIGHTS, plan), self.config.student_group
        self.env.begin(generator.initial_seed())

        def teacher_acts(observations: Observations, begins: Tensor) -> Tensor:
            deterministic = self.config.teacher_deterministic
            return self.teacher(observations) if deterministic else self.teacher.sample(observations, generator)

        controller = teacher_acts if student is None else VecStudent(student, group)
        each = self.num_episodes // self.env.num_envs
        found = rollout_vec_env(self.env, controller, each, Record(out, group, self.teacher))
        return {**found.figures(), "num_steps": float(found.lengths.sum())}

    def evaluate(self, policy: StudentPolicy | None = None) -> dict[str, float]:
        """Figures of a policy, or of the teacher, in episodes that are always the same and that nothing learns from."""
        config = self.config
        self.env.begin(draw_seed(config.seed, EVALUATION, 0))
        student = None if policy is None else VecStudent(weights_of(policy), config.student_group)
        controller = student or (lambda observations, begins: self.teacher(observations))
        num_each = math.ceil(config.num_validation_episodes / self.env.num_envs)
        return rollout_vec_env(self.env, controller, num_each).figures()

    def order(self, epoch: int) -> torch.Generator:
        """See `Source`."""
        return self._generator(ORDER, epoch)

    def state_dict(self) -> dict[str, Any]:
        """See `Source`; everything follows from the epoch."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """See `Source`."""

    def _generator(self, stream: int, number: int) -> torch.Generator:
        return torch.Generator(self.device).manual_seed(draw_seed(self.config.seed, stream, number))


def draw_seed(seed: int, stream: int, number: int) -> int:
    """A seed of its own for each purpose; environments that count up from it do not meet."""
    return int(np.random.SeedSequence([seed, stream, number]).generate_state(1)[0]) >> 1
