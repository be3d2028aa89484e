"""What every test shares: one thread, one compile cache, reproducible examples, no windows."""

from __future__ import annotations

import os
import sys
from pathlib import Path

os.environ.setdefault("MPLBACKEND", "Agg")
# Kernels are stored by content, so all workers and later runs share them.
os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(Path(__file__).parents[1] / ".cache" / "torchinductor"))
os.environ["OMP_NUM_THREADS"] = "1"  # for the processes that a test starts

sys.path.insert(0, str(Path(__file__).parent))  # for point_env, in every room

import hypothesis
import pytest
import torch

torch.set_num_threads(1)

hypothesis.settings.register_profile("reproducible", derandomize=True, deadline=None, database=None)
hypothesis.settings.load_profile("reproducible")


@pytest.fixture
def generator() -> torch.Generator:
    """A freshly seeded generator, the same for every test."""
    return torch.Generator().manual_seed(0)
