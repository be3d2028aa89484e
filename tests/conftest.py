"""What every test shares: one thread, one compile cache, reproducible examples, no windows."""

from __future__ import annotations

import os
import sys
from pathlib import Path

os.environ.setdefault("MPLBACKEND", "Agg")
# Kernels are stored by content, so all workers and later runs share them.
os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(Path(__file__).parents[1] / ".cache" / "torchinductor"))
os.environ["OMP_NUM_THREADS"] = "1"  # for the processes that a test starts

sys.path.insert(0, str(Path(__file__).parents[1] / "tools"))
sys.path.insert(0, str(Path(__file__).parent / "support"))  # modules that tests of several rooms share

import dataclasses
import functools
from collections.abc import Callable

import hypothesis
import pytest
import torch

from raptor.environments import QuadrotorEnv
from raptor.nn import MLPPolicy, RaptorPolicy
from raptor.quadrotor import sample_quadrotors

torch.set_num_threads(1)

hypothesis.settings.register_profile("reproducible", derandomize=True, deadline=None, database=None)
hypothesis.settings.load_profile("reproducible")


@pytest.fixture
def generator() -> torch.Generator:
    """A freshly seeded generator, the same for every test."""
    return torch.Generator().manual_seed(0)


@pytest.fixture
def policy():
    """A policy of the published size, its weights large and its initial hidden state not zero."""
    return random_policy()


def random_policy(hidden_dim=16, dtype=torch.float32, seed=0, network=RaptorPolicy):
    policy = network(hidden_dim=hidden_dim).to(dtype)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=dtype) * 0.4)
    return policy


@pytest.fixture
def make_policy():
    return random_policy


@pytest.fixture
def make_mlp():
    return functools.partial(random_policy, network=MLPPolicy)


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
