"""Environments that several tests of the room share."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest
import torch

from raptor.environments import QuadrotorEnv
from raptor.quadrotor import sample_quadrotors

ENDING = (0, 2)
"""The vehicles of `half_ending` whose episodes end with every step."""


@pytest.fixture
def make_env() -> Callable[..., QuadrotorEnv]:
    """A function that makes an eager environment of freshly drawn vehicles."""

    def make(num: int = 4, dtype: torch.dtype = torch.float32, **settings: object) -> QuadrotorEnv:
        settings = {"compile": False, "seed": 1, **settings}
        return QuadrotorEnv(sample_quadrotors(num, seed=0, dtype=dtype), **settings)

    return make


@pytest.fixture
def half_ending() -> Callable[..., QuadrotorEnv]:
    """A function that makes an environment in which vehicles 0 and 2 end with every step, and 1 and 3 fly on."""

    def make(**settings: object) -> QuadrotorEnv:
        box = torch.full((4,), 100.0)
        box[list(ENDING)] = 1e-6
        quadrotors = dataclasses.replace(sample_quadrotors(4, seed=0), position_threshold=box)
        return QuadrotorEnv(quadrotors, **{"compile": False, "seed": 1, **settings})

    return make


@pytest.fixture
def actions() -> Callable[[int, int], torch.Tensor]:
    """A function that draws (T, N, 4) gentle actions."""

    def draw(num_steps: int, num: int) -> torch.Tensor:
        return 0.4 * torch.rand(num_steps, num, 4, generator=torch.Generator().manual_seed(7)) + 0.2

    return draw
