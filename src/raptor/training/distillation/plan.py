"""The plan of a post-training: what is collected and kept, and whether it fits and can be cut into parts."""

from __future__ import annotations

import dataclasses

import torch

from raptor.core.distributed import ALONE, Parts, World
from raptor.environments.episode import begin_episode
from raptor.nn.teachers import TeacherPopulation
from raptor.quadrotor.parameters import NUM_ROTORS
from raptor.quadrotor.population import sample_quadrotors
from raptor.rl.demonstrations import BLOCK_STEPS, Demonstrations
from raptor.tasks.observation import STUDENT_DIM, TEACHER_DIM
from raptor.training import memory
from raptor.training.distillation.config import DistillConfig, PostTrainConfig
from raptor.training.distillation.learner import first_student, shared_evenly


def make_plan(config: PostTrainConfig, teachers: TeacherPopulation, world: World = ALONE) -> str:
    """What will be collected and kept, in words; each process holds all data and its share of all else.

    What does not fit into memory, or cannot be cut into parts, is refused by the settings to change.
    """
    check_parts(config, len(teachers), world)
    budget = memory.budget_of_each(config.memory_gib, config.device, world)
    episode, tuned, collected = _episode_bytes(config), config.fine_tune, "no imitation"
    imitation = tuning = memory.BASE_BYTES + config.num_validation * episode  # the one is over when the other begins
    if config.num_epochs:
        num, steps = config.num_active(len(teachers)) * config.num_episodes, config.task.episode_steps
        kept = num * config.num_slots
        shape, parts = (steps, STUDENT_DIM, NUM_ROTORS), world.size * config.accumulation
        data, learning = imitation_bytes(config, kept, shape, parts)
        imitation += data + learning + num * (episode + 4.0 * BLOCK_STEPS * (TEACHER_DIM + 24)) / world.size
        fewer = "num_episodes, num_active_teachers" + ("" if config.on_policy else ", num_data_epochs")
        what = f"{kept} episodes of {steps} steps and batches of {config.batch_size} sequences take"
        memory.refuse_too_large(what, imitation, budget, f"lower {fewer} or batch_size")
        collected = f"{num} episodes an epoch: {data / memory.GIB:.2g} GiB of data"
    if tuned.num_updates:
        each = memory.segment_bytes(config.tuning, first_student(config.student, 0), world)
        tuning += tuned.batch_size * (each + _labels_bytes(config, teachers, world))
        what = f"fine-tuning with {tuned.batch_size} quadrotors at once through {tuned.segment_steps} steps takes"
        memory.refuse_too_large(what, tuning, budget, "lower fine_tune.batch_size or fine_tune.segment_steps")
    used = f"{max(imitation, tuning) / memory.GIB:.2g} GiB in all of {budget / memory.GIB:.3g} GiB"
    return f"{len(teachers)} teachers, {collected}, {used}"


def check_parts(config: PostTrainConfig, num_teachers: int, world: World) -> None:
    """Check that all processes get something to do, and equal parts of a batch; names what is too few or uneven."""
    Parts(world).refuse_fewer("validation vehicles", config.num_validation)
    if config.num_epochs:
        Parts(world, config.accumulation).refuse_uneven("batch_size", config.batch_size)
        Parts(world).refuse_fewer("teachers", config.num_active(num_teachers))
    if config.fine_tune.num_updates:
        parts = Parts(world, config.fine_tune.accumulation)
        parts.refuse_uneven("fine_tune.batch_size", config.fine_tune.batch_size)
        tuning = shared_evenly(config.tuning, num_teachers) if config.num_epochs else config.tuning
        parts.refuse_fewer("vehicles flown at once", tuning.batch_size)


def with_largest_batch(config: PostTrainConfig, teachers: TeacherPopulation, world: World) -> PostTrainConfig:
    """The settings with the largest `fine_tune.batch_size` that fits."""
    besides = _labels_bytes(config, teachers, world), config.num_validation * _episode_bytes(config)
    policy = first_student(config.student, 0)
    num = memory.largest_batch(config.tuning, policy, config.device, world, config.memory_gib, besides)
    return dataclasses.replace(config, fine_tune=dataclasses.replace(config.fine_tune, batch_size=num))


def imitation_bytes(
    config: DistillConfig, num: int, shape: tuple[int, int, int], parts: int = 1
) -> tuple[float, float]:
    """What `num` kept episodes take, see `Source.shape`, and what learning from them does: their order, and a batch."""
    steps, *widths = shape
    data = float(num) * memory.nbytes(Demonstrations.empty(1, steps, torch.empty(0, device="meta"), *widths))
    batch = 4.0 * config.sequence_length * config.batch_size * (2 * sum(widths) + 12 * config.student.hidden_dim)
    return data, 20.0 * num * steps + batch / parts


def _episode_bytes(config: PostTrainConfig) -> float:
    """Of a vehicle and its episode, before a step and after it."""
    vehicles = sample_quadrotors(memory.SAMPLE_VEHICLES, seed=0)
    episode = begin_episode(config.flown_task, vehicles, torch.Generator().manual_seed(0))
    return 2 * memory.nbytes((vehicles, episode)) / memory.SAMPLE_VEHICLES


def _labels_bytes(config: PostTrainConfig, teachers: TeacherPopulation, world: World) -> float:
    """Of what teachers see and do along a segment, for each vehicle."""
    tuned = config.fine_tune
    if not (config.num_epochs and tuned.is_guided):
        return 0.0
    numbers = 2 * TEACHER_DIM + 2 * max(teachers.widths) + 8
    return 4.0 * numbers * tuned.segment_steps / (world.size * tuned.accumulation)
