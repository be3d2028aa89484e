"""How much memory a post-training takes, planned before it begins."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch

from raptor.core.distributed import ALONE, World
from raptor.core.errors import UserError
from raptor.environments.rollout import BLOCK_STEPS
from raptor.tasks.observation import NUM_SENSED, STUDENT_DIM, TEACHER_DIM
from raptor.tasks.task import Task
from raptor.training.direct.config import GradientConfig
from raptor.training.distillation.config import PostTrainConfig
from raptor.training.distillation.learner import episodes_per_epoch, num_slots
from raptor.training.teachers.memory import BASE_BYTES, EPISODE_NUMBERS, GIB, VEHICLE_NUMBERS, budget_bytes

TEACHER_WIDTHS = (TEACHER_DIM, 64, 64, 4)
"""Of the teachers of `raptor pre-train`."""


class PostTrainPlan(NamedTuple):
    """What will be flown and kept."""

    num_teachers: int
    episodes: int  # of an epoch of imitation; 0 where there is none
    data_bytes: float  # of all flights that are kept
    all_bytes: float  # of imitation, or of fine-tuning if that takes more: the one is over when the other begins
    budget: float  # bytes

    def describe(self) -> str:
        """What will be used, in words."""
        data = f"{self.episodes} flights an epoch: {self.data_bytes / GIB:.2g} GiB of data"
        return (
            f"{self.num_teachers} teachers, {data if self.episodes else 'no imitation'}, "
            f"{self.all_bytes / GIB:.2g} GiB in all of {self.budget / GIB:.3g} GiB"
        )


def plan_post_training(
    config: PostTrainConfig,
    num_teachers: int,
    teacher_widths: Sequence[int] = TEACHER_WIDTHS,
    world: World = ALONE,
) -> PostTrainPlan:
    """Plan the memory of imitation and of fine-tuning.

    Args:
        config: the settings.
        num_teachers: how many take part.
        teacher_widths: of their networks, from the observation to the action.
        world: the processes that work at it. Each holds all data and its share of all else.

    Raises:
        UserError: one of them does not fit; names the settings to lower.
    """
    budget = budget_of_each(config.memory_gib, config.device, world)
    imitation = tuning = _bytes_of_any(config)
    episodes, data = 0, 0.0
    if config.num_epochs:
        episodes = episodes_per_epoch(config, num_teachers)
        data = 4.0 * episodes * num_slots(config) * config.task.episode_steps * (STUDENT_DIM + 4)
        imitation += data + _bytes_of_imitation(config, episodes, world.size)
        _check_imitation(config, episodes, imitation, budget)
    if config.fine_tune.num_updates:
        tuning += bytes_of_fine_tuning(config, teacher_widths, world.size)
        _check_fine_tuning(config, tuning, budget)
    return PostTrainPlan(num_teachers, episodes, data, max(imitation, tuning), budget)


def budget_of_each(memory_gib: float | None, device: str, world: World) -> float:
    """What each process may take, in bytes: together the memory of a machine, or each that of a GPU of its own.

    All come to the same answer, that of the one with the least.
    """
    least = min(world.all_gather(budget_bytes(memory_gib, device)))
    return least / world.size if torch.device(device).type == "cpu" else least


def fine_tuning_fits(config: PostTrainConfig, teacher_widths: Sequence[int], budget: float, num_processes: int) -> bool:
    """Whether `plan_post_training` finds room for the fine-tuning, with so many bytes for each process."""
    return _bytes_of_any(config) + bytes_of_fine_tuning(config, teacher_widths, num_processes) <= budget


def _bytes_of_any(config: PostTrainConfig) -> float:
    """Of what each process holds at any time: the libraries, and a validation."""
    return BASE_BYTES + 4.0 * config.num_validation * _numbers_of_flight(config.flown_task)


def _bytes_of_imitation(config: PostTrainConfig, episodes: int, num_processes: int) -> float:
    """Besides the flights that are kept."""
    order = 20.0 * episodes * num_slots(config) * config.task.episode_steps  # of the rows, while they are packed
    flights = 4.0 * episodes * (_numbers_of_flight(config.flown_task) + BLOCK_STEPS * (TEACHER_DIM + 24))
    width = config.student.hidden_dim
    batch = 4.0 * config.sequence_length * config.batch_size * (2 * STUDENT_DIM + 12 * width)
    return order + flights / num_processes + batch / (num_processes * config.accumulation)


def bytes_of_fine_tuning(
    config: PostTrainConfig, teacher_widths: Sequence[int] = TEACHER_WIDTHS, num_processes: int = 1
) -> float:
    """Of a segment, and of what the teachers say along it."""
    tuning = config.tuning
    guided = config.num_epochs and tuning.imitation and tuning.imitation_updates
    told = 2 * TEACHER_DIM + 2 * max(teacher_widths) + 8 if guided else 0
    return bytes_of_segment(tuning, config.student.hidden_dim, num_processes, told)


def bytes_of_segment(config: GradientConfig, hidden_dim: int, num_processes: int = 1, told: int = 0) -> float:
    """Of a segment, each step of which is kept for the way back.

    Args:
        config: the settings.
        hidden_dim: of the policy.
        num_processes: that share the batch.
        told: further numbers of each vehicle and step.
    """
    noise = 3 + NUM_SENSED * config.task.sensing.noisy
    step = 45 + _history(config.task) + hidden_dim + noise + 3 + told
    parts = num_processes * config.accumulation
    drawn = config.segment_steps * noise if parts > 1 else 0  # for the whole batch, beside that of the part
    kept = config.segment_steps * step / parts
    return 4.0 * config.batch_size * (kept + drawn + 2 * _numbers_of_flight(config.task))


def _numbers_of_flight(task: Task) -> int:
    """Of one vehicle, before a step and after it."""
    return 2 * (VEHICLE_NUMBERS + EPISODE_NUMBERS + _history(task))


def _history(task: Task) -> int:
    """Numbers that late sensors and motors remember."""
    return NUM_SENSED * (task.sensing.observation_delay[1] + 1) + 4 * task.sensing.action_delay[1]


def _check_imitation(config: PostTrainConfig, episodes: int, used: float, budget: float) -> None:
    if used > budget:
        fewer = "num_episodes, num_active_teachers" + ("" if config.on_policy else ", num_data_epochs")
        raise UserError(
            f"{episodes * num_slots(config)} flights of {config.task.episode_steps} steps and batches of "
            f"{config.batch_size} sequences take {used / GIB:.3g} GiB, which does not fit into {budget / GIB:.3g} GiB: "
            f"lower {fewer} or batch_size, or raise memory_gib"
        )


def _check_fine_tuning(config: PostTrainConfig, used: float, budget: float) -> None:
    if used > budget:
        tuning = config.fine_tune
        raise UserError(
            f"fine-tuning with {tuning.batch_size} quadrotors flown at once through {tuning.segment_steps} steps takes "
            f"{used / GIB:.3g} GiB, which does not fit into {budget / GIB:.3g} GiB: lower fine_tune.batch_size or "
            "fine_tune.segment_steps, or raise memory_gib"
        )
