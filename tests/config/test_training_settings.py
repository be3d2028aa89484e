"""Settings of trainings: each has limits that its default obeys and that impossible values break."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from raptor.config import load_config
from raptor.config.settings import (
    limits_of,
)
from raptor.core.errors import UserError
from raptor.training import TrainDirectConfig
from raptor.training.teachers.config import PreTrainConfig


def test_every_limit_is_of_a_setting_and_every_default_obeys_it() -> None:
    def walk(config: Any) -> int:
        names = {field.name for field in dataclasses.fields(config)}
        assert set(limits_of(type(config))) <= names, type(config)
        values = [getattr(config, name) for name in names]
        lists = [entry for value in values if isinstance(value, tuple) for entry in value]
        inner = [value for value in (*values, *lists) if dataclasses.is_dataclass(value)]
        return len(limits_of(type(config))) + sum(map(walk, inner))

    assert walk(TrainDirectConfig()) > 50
    assert walk(PreTrainConfig()) > 80


@pytest.mark.parametrize(
    "override",
    [
        "num_updates=0",
        "seed=-1",
        "seed=1000000",
        "batch_size=0",
        "segment_steps=-1",
        "learning_rate=0",
        "hidden_dim=0",
        "checkpoint_interval=0",
        "keep_checkpoints=0",
        "validation_interval=-1",
        "num_validation=0",
        "task.dt=0",
        "task.episode_steps=0",
        "task.initial_states.guidance=1.5",
        "task.references.langevin_share=-0.1",
        "task.references.lissajous.interval=[10,4]",
        "task.references.lissajous.interval=[0,4]",
        "task.references.way_points.speed=0",
        "task.sensing.position_noise=-1",
        "task.sensing.observation_delay=[2,1]",
        "task.sensing.action_delay=[-1,1]",
        "task.termination.linear_velocity=0",
        "objective.cap=0",
        "objective.position_rounding=0",
        "curriculum.stages=[]",
        "curriculum.advance_at=2",
    ],
)
def test_an_impossible_value_of_a_training_setting_is_refused(override: str) -> None:
    key = override.split("=")[0]
    with pytest.raises(UserError, match=rf"^{key} must be .*, got .* \(command line\)$"):
        load_config(TrainDirectConfig, None, [override])


@pytest.mark.parametrize(
    "override",
    [
        "shard_size=0",
        "memory_gib=0",
        "num_validation=0",
        "num_evaluation=1",
        "max_attempts=0",
        "retry_factor=0",
        "checkpoint_interval_s=-1",
        "tensorboard_teachers=[-1]",
        "apg.num_envs=0",
        "apg.learning_rate=0",
        "apg.widths=[0]",
        "sac.gamma=1.1",
        "sac.polyak=2",
        "sac.batch_size=0",
        "sac.replay.capacity=0",
        "sac.replay.beta=[1,0]",
        "curriculum.stages=[]",
        "curriculum.window=0",
        "engine.num_workers=0",
    ],
)
def test_an_impossible_value_of_a_pre_training_setting_is_refused(override: str) -> None:
    key = override.split("=")[0]
    with pytest.raises(UserError, match=rf"^{key} must be .*, got .* \(command line\)$"):
        load_config(PreTrainConfig, None, [override])
