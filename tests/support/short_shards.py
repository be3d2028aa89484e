"""Shards in a second, also in other processes: `python short_shards.py OUTPUT ALGORITHM` reports round by round."""

from __future__ import annotations

import sys
from typing import Any

import torch

from raptor.config import load_config
from raptor.runs.engines import Workplace
from raptor.tasks.task import Task
from raptor.training.teachers import job as pre_training
from raptor.training.teachers import sac as sac_teachers
from raptor.training.teachers import shards
from raptor.training.teachers.config import PreTrainConfig

EVALUATION = Task(episode_steps=6)
STEPS_PER_ROUND = 5
TINY = (
    "compile=false",
    "shard_size=2",
    "num_validation=2",
    "num_evaluation=2",
    "max_attempts=1",
    "checkpoint_interval_s=0",
    "engine.threads_per_worker=1",
    "task.episode_steps=8",
    "apg.num_updates=4",
    "apg.shared_updates=2",
    "apg.num_envs=2",
    "apg.segment_steps=3",
    "apg.widths=[6]",
    "apg.validation_interval=2",
    "sac.num_steps=40",
    "sac.num_envs=2",
    "sac.start_steps=10",
    "sac.batch_size=6",
    "sac.actor_widths=[6]",
    "sac.critic_widths=[6]",
    "sac.validation_interval=20",
    "sac.replay.capacity=30",
    "sac.replay.kind=prioritised",
)
"""Both learners take four rounds and are validated after every second one."""


def tiny(*overrides: str) -> PreTrainConfig:
    """Settings of a tiny pre-training, with overrides."""
    return load_config(PreTrainConfig, None, [*TINY, *overrides])


def shorten() -> None:
    """Make rounds and validations of this process short."""
    shards.EVALUATION, sac_teachers.STEPS_PER_ROUND = EVALUATION, STEPS_PER_ROUND


def train_shard(task: dict[str, Any], workplace: Workplace) -> dict[str, Any] | None:
    """The same with short validations."""
    shorten()
    return shards.train_shard(task, workplace)


def main() -> None:
    shorten()
    torch.set_num_threads(1)
    pre_training.pre_train(
        sys.argv[1],
        config=tiny(f"algorithm={sys.argv[2]}"),
        generate=3,
        progress=lambda progress: print(f"{progress.done:.2f}", flush=True),
    )


if __name__ == "__main__":
    main()
