"""Distillations in a second."""

from __future__ import annotations

import functools

import torch

from raptor.config import load_config
from raptor.nn.stacked_mlp import Layer, initial_layers
from raptor.nn.teachers import TeacherPopulation
from raptor.quadrotor import sample_quadrotors
from raptor.tasks.task import Task
from raptor.training.distillation.config import PostTrainConfig

TEST_TASK = Task(episode_steps=4)
"""In place of `raptor.training.distillation.teachers.TEST_TASK`."""

TINY = (
    "compile=false",
    "method=midpoint",
    "num_epochs=4",
    "num_episodes=2",
    "batch_size=2",
    "sequence_length=5",
    "learning_rate=1e-2",
    "final_learning_rate=0.02",
    "warm_up_batches=3",
    "gradient_norm=1",
    "epoch_teacher_forcing=2",
    "on_policy=true",
    "num_data_epochs=2",
    "num_teacher_episodes=2",
    "solved_return=-1e6",
    "validation_interval=2",
    "num_validation=4",
    "validation_steps=4",
    "checkpoint_interval=1",
    "keep_checkpoints=20",
    "task.episode_steps=8",
    "student.hidden_dim=5",
    "fine_tune.num_updates=5",
    "fine_tune.updates_per_epoch=2",
    "fine_tune.batch_size=7",
    "fine_tune.segment_steps=2",
    "fine_tune.imitation=1",
    "fine_tune.imitation_updates=3",
    "fine_tune.task.episode_steps=6",
    "fine_tune.task.clean_share=1",
)
"""Two epochs of teachers, two of the student, then three of fine-tuning, the last one of a single update."""


@functools.cache
def tiny(*overrides: str) -> PostTrainConfig:
    """Settings of a tiny post-training, with overrides."""
    return load_config(PostTrainConfig, None, [*TINY, *overrides])


def few_teachers(num: int = 3, seed: int = 0) -> TeacherPopulation:
    """Random ones that about hover, each of which rests somewhere else."""
    vehicles = sample_quadrotors(num, seed=seed)
    *hidden, last = initial_layers(num, (26, 8, 4), torch.Generator().manual_seed(seed))
    hover = torch.atanh((2 * vehicles.hover_throttle - 1).clamp(-0.9, 0.9)).unsqueeze(-1)
    layers = (*hidden, Layer(0.5 * last.weight, hover.expand_as(last.bias).clone()))
    return TeacherPopulation(layers, vehicles, tuple({"name": f"number-{i}"} for i in range(num)))
