"""A run that takes a second."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from raptor.config import load_config
from raptor.training import TrainDirectConfig

TINY = (
    "num_updates=6",
    "batch_size=4",
    "segment_steps=2",
    "task.episode_steps=6",
    "task.clean_share=1",
    "compile=false",
    "checkpoint_interval=2",
    "validation_interval=3",
    "num_validation=4",
    "seed=3",
)


@pytest.fixture(scope="session")
def tiny() -> Callable[..., TrainDirectConfig]:
    """Builds the settings of a tiny run, with overrides."""
    return lambda *overrides: load_config(TrainDirectConfig, None, [*TINY, *overrides])


@pytest.fixture(scope="session")
def tiny_overrides() -> list[str]:
    """The same as they are written on the command line."""
    return list(TINY)
