from __future__ import annotations

import functools
import sys
from pathlib import Path

import pytest
import torch

from raptor.nn import MLPPolicy, RaptorPolicy

sys.path.insert(0, str(Path(__file__).parent))  # for foreign_files


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
