"""How much memory a distillation takes, planned before it begins."""

from __future__ import annotations

from typing import NamedTuple

from raptor.errors import UserError
from raptor.rl.demonstrations import BLOCK_STEPS
from raptor.tasks.observation import NUM_SENSED, STUDENT_DIM, TEACHER_DIM
from raptor.training.distillation import episodes_per_epoch, num_slots
from raptor.training.memory import BASE_BYTES, EPISODE_NUMBERS, GIB, VEHICLE_NUMBERS, budget_bytes
from raptor.training.post_training_config import PostTrainConfig


class PostTrainPlan(NamedTuple):
    """What will be flown and kept."""

    num_teachers: int
    episodes: int  # of an epoch
    data_bytes: float  # of all flights that are kept
    all_bytes: float
    budget: float  # bytes

    def describe(self) -> str:
        """What will be used, in words."""
        return (
            f"{self.num_teachers} teachers, {self.episodes} flights an epoch: {self.data_bytes / GIB:.2g} GiB of data, "
            f"{self.all_bytes / GIB:.2g} GiB in all of {self.budget / GIB:.3g} GiB"
        )


def plan_post_training(config: PostTrainConfig, num_teachers: int) -> PostTrainPlan:
    """Plan the memory of an epoch.

    Raises:
        UserError: the data does not fit; names the settings to lower.
    """
    episodes, steps = episodes_per_epoch(config, num_teachers), config.task.episode_steps
    kept = episodes * num_slots(config)
    history = NUM_SENSED * (config.task.sensing.observation_delay[1] + 1) + 4 * config.task.sensing.action_delay[1]
    data = 4.0 * kept * steps * (STUDENT_DIM + 4)
    order = 20.0 * kept * steps  # of the rows, while they are packed
    flights = 4.0 * episodes * (2 * (VEHICLE_NUMBERS + EPISODE_NUMBERS + history) + BLOCK_STEPS * (TEACHER_DIM + 24))
    width = config.student.hidden_dim
    batch = 4.0 * config.sequence_length * config.batch_size * (2 * STUDENT_DIM + 12 * width)
    budget = budget_bytes(config.memory_gib, config.device)
    used = BASE_BYTES + data + order + flights + batch
    if used > budget:
        fewer = "num_episodes, num_active_teachers" + ("" if config.on_policy else ", num_data_epochs")
        raise UserError(
            f"{kept} flights of {steps} steps and batches of {config.batch_size} sequences take {used / GIB:.3g} GiB, "
            f"which does not fit into {budget / GIB:.3g} GiB: lower {fewer} or batch_size, or raise memory_gib"
        )
    return PostTrainPlan(num_teachers, episodes, data, used, budget)
