"""Shards in a second: `python short_shards.py OUTPUT ALGORITHM [I/N]` prints how far it is after each report."""

from __future__ import annotations

import sys

import torch

from raptor.config import load_config
from raptor.training.teachers.config import PreTrainConfig
from raptor.training.teachers.job import pre_train

TINY = (
    "compile=false",
    "shard_size=2",
    "num_validation=2",
    "num_evaluation=2",
    "validation_steps=6",
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
    "sac.block_steps=5",
    "sac.start_steps=10",
    "sac.batch_size=6",
    "sac.actor_widths=[6]",
    "sac.critic_widths=[6]",
    "sac.validation_interval=20",
    "sac.replay.capacity=30",
    "sac.replay.kind=prioritised",
)
"""Both algorithms take four steps and are validated after every second one."""


def tiny(*overrides: str) -> PreTrainConfig:
    """Settings of a tiny pre-training, with overrides."""
    return load_config(PreTrainConfig, None, [*TINY, *overrides])


def main() -> None:
    torch.set_num_threads(1)
    part = tuple(int(number) for number in sys.argv[3].split("/")) if len(sys.argv) > 3 else None
    pre_train(
        sys.argv[1],
        config=tiny(f"algorithm={sys.argv[2]}"),
        generate=3,
        part=part,
        progress=lambda progress: print(f"{progress.step:.2f}", flush=True),
    )


if __name__ == "__main__":
    main()
