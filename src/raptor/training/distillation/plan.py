"""The plan of a post-training: what is flown and kept, and whether it fits and can be cut into parts."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import torch

from raptor.core.distributed import ALONE, DryRunWorld, Parts, World
from raptor.core.errors import UserError
from raptor.environments.episode import begin_episode
from raptor.nn.teachers import TeacherPopulation
from raptor.quadrotor.sampling import sample_quadrotors
from raptor.rl.demonstrations import BLOCK_STEPS, Demonstrations
from raptor.tasks.observation import STUDENT_DIM, TEACHER_DIM
from raptor.training.direct.learner import GradientLearner
from raptor.training.distillation.config import FineTuneConfig, PostTrainConfig
from raptor.training.distillation.guidance import shared_evenly
from raptor.training.distillation.learner import first_student
from raptor.training.memory import (
    BASE_BYTES,
    GIB,
    SAMPLE_VEHICLES,
    budget_of_each,
    largest_batch,
    nbytes,
    segment_bytes,
)


class Plan(NamedTuple):
    """What will be flown and kept."""

    num_teachers: int
    episodes: int  # of an epoch of imitation; 0 where there is none
    data_bytes: float  # of all episodes that are kept
    all_bytes: float  # of imitation, or of fine-tuning if that takes more: the one is over when the other begins
    budget: float  # bytes

    def describe(self) -> str:
        """What will be used, in words."""
        data = f"{self.episodes} flights an epoch: {self.data_bytes / GIB:.2g} GiB of data"
        return (
            f"{self.num_teachers} teachers, {data if self.episodes else 'no imitation'}, "
            f"{self.all_bytes / GIB:.2g} GiB in all of {self.budget / GIB:.3g} GiB"
        )


def make_plan(config: PostTrainConfig, teachers: TeacherPopulation, world: World = ALONE) -> Plan:
    """Plan imitation and fine-tuning.

    Args:
        config: the settings.
        teachers: those that take part.
        world: the processes that work at it. Each holds all data and its share of all else.

    Raises:
        UserError: one of them does not fit or cannot be cut into parts; names the settings to change.
    """
    _check_parts(config, len(teachers), world)
    budget = budget_of_each(config.memory_gib, config.device, world)
    base = BASE_BYTES + config.num_validation * _bytes_of_episode(config)
    imitation = tuning = base
    episodes, data = 0, 0.0
    if config.num_epochs:
        episodes = config.num_active(len(teachers)) * config.num_episodes
        kept = episodes * config.num_slots
        data = float(kept) * _bytes_of_demonstration(config)
        imitation += data + _bytes_of_imitation(config, episodes, world)
        if imitation > budget:
            fewer = "num_episodes, num_active_teachers" + ("" if config.on_policy else ", num_data_epochs")
            raise UserError(
                f"{kept} flights of {config.task.episode_steps} steps and batches of {config.batch_size} sequences "
                f"take {imitation / GIB:.3g} GiB, which does not fit into {budget / GIB:.3g} GiB: lower {fewer} or "
                "batch_size, or raise memory_gib"
            )
    if config.fine_tune.num_updates:
        tuned = config.fine_tune
        tuning += _bytes_of_fine_tuning(config, teachers, world, tuned.batch_size)
        if tuning > budget:
            raise UserError(
                f"fine-tuning with {tuned.batch_size} quadrotors flown at once through {tuned.segment_steps} steps "
                f"takes {tuning / GIB:.3g} GiB, which does not fit into {budget / GIB:.3g} GiB: lower "
                "fine_tune.batch_size or fine_tune.segment_steps, or raise memory_gib"
            )
    return Plan(len(teachers), episodes, data, max(imitation, tuning), budget)


def largest_fine_tuning(config: PostTrainConfig, teachers: TeacherPopulation, world: World) -> int:
    """The `fine_tune.batch_size` that fits; that of the settings plays no part."""
    return largest_batch(
        lambda num, world: _small_learner(config, num, world),
        config.device,
        world,
        config.fine_tune.accumulation,
        config.memory_gib,
        lambda num: num * _bytes_of_labels(config, teachers, world) + config.num_validation * _bytes_of_episode(config),
    )


def with_batch(config: PostTrainConfig, num: int) -> PostTrainConfig:
    """The settings with a batch of that size in fine-tuning."""
    return dataclasses.replace(config, fine_tune=dataclasses.replace(config.fine_tune, batch_size=num))


def _check_parts(config: PostTrainConfig, num_teachers: int, world: World) -> None:
    Parts(world).refuse_fewer("validation vehicles", config.num_validation)
    if config.num_epochs:
        Parts(world, config.accumulation).refuse_uneven("batch_size", config.batch_size)
        Parts(world).refuse_fewer("teachers", config.num_active(num_teachers))
    if config.fine_tune.num_updates:
        parts = Parts(world, config.fine_tune.accumulation)
        parts.refuse_uneven("fine_tune.batch_size", config.fine_tune.batch_size)
        flown = shared_evenly(config.tuning, num_teachers) if config.num_epochs else config.tuning
        parts.refuse_fewer("vehicles flown at once", flown.batch_size)


def _bytes_of_episode(config: PostTrainConfig) -> float:
    """Of a vehicle and its episode, before a step and after it."""
    vehicles = sample_quadrotors(SAMPLE_VEHICLES, seed=0)
    episode = begin_episode(config.flown_task, vehicles, torch.Generator().manual_seed(0))
    return 2 * nbytes((vehicles, episode)) / SAMPLE_VEHICLES


def _bytes_of_demonstration(config: PostTrainConfig) -> int:
    return nbytes(Demonstrations.empty(1, config.task.episode_steps, torch.empty(0, device="meta")))


def _bytes_of_imitation(config: PostTrainConfig, episodes: int, world: World) -> float:
    """Besides the episodes that are kept: their order while they are packed, a block of rollouts, and a batch."""
    order = 20.0 * episodes * config.num_slots * config.task.episode_steps
    rollouts = episodes * (_bytes_of_episode(config) + 4.0 * BLOCK_STEPS * (TEACHER_DIM + 24))
    width, steps = config.student.hidden_dim, config.sequence_length * config.batch_size
    batch = 4.0 * steps * (2 * STUDENT_DIM + 12 * width)
    return order + rollouts / world.size + batch / (world.size * config.accumulation)


def _bytes_of_fine_tuning(config: PostTrainConfig, teachers: TeacherPopulation, world: World, num: int) -> float:
    parts = world.size * config.fine_tune.accumulation
    small = _small_learner(config, max(SAMPLE_VEHICLES, parts), DryRunWorld(world.rank, world.size))
    return segment_bytes(small, num, parts) + num * _bytes_of_labels(config, teachers, world)


def _bytes_of_labels(config: PostTrainConfig, teachers: TeacherPopulation, world: World) -> float:
    """Of what the teachers see and say along a segment, for each vehicle."""
    tuned = config.fine_tune
    if not (config.num_epochs and tuned.imitation and tuned.imitation_updates):
        return 0.0
    numbers = 2 * TEACHER_DIM + 2 * max(teachers.widths) + 8
    return 4.0 * numbers * tuned.segment_steps / (world.size * tuned.accumulation)


def _small_learner(config: PostTrainConfig, num: int, world: World) -> GradientLearner:
    """One whose tensors are measured."""
    plain = dataclasses.replace(config.fine_tune.curriculum, enabled=False)
    tuning: FineTuneConfig = dataclasses.replace(config.tuning, batch_size=num, curriculum=plain)
    policy = first_student(config.student, 0)
    return GradientLearner(tuning, policy, 0, config.device, False, world)
