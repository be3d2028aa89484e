"""Threads inside an operation: one in every job that flies or learns, unless `OMP_NUM_THREADS` says otherwise.

The kernels are small, and threads wait for each other after each of them, for ever so long where another program wants
their core. More cores are used well by processes, see `raptor.core.pool`.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

import torch


def num_threads() -> int:
    """How many threads a job computes with in this process."""
    return torch.get_num_threads() if "OMP_NUM_THREADS" in os.environ else 1


@contextlib.contextmanager
def few_threads() -> Iterator[None]:
    """Compute on so many threads as `num_threads` says; also a decorator."""
    before = torch.get_num_threads()
    torch.set_num_threads(num_threads())
    try:
        yield
    finally:
        torch.set_num_threads(before)
