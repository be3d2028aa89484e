"""Works of a pool, which other processes import."""

from __future__ import annotations

import dataclasses
import os
import sys
import time
from collections.abc import Callable
from typing import Any

from torch import Tensor

HELD_S = 0.2
"""Longer than it takes to hand over a piece."""


def doubled(tensor: Tensor) -> tuple[Tensor, int]:
    """Twice a tensor, and who computed it."""
    time.sleep(HELD_S)
    return 2 * tensor, os.getpid()


def only_here(here: int, hang: bool) -> int:
    """Fails or hangs in every process but one."""
    if os.getpid() != here:
        if hang:
            time.sleep(3600)
        raise ValueError("not in this process")
    time.sleep(HELD_S)
    return os.getpid()


def threads(_: Any) -> tuple[int, int]:
    """Who computes, and on how many threads."""
    time.sleep(HELD_S)
    return os.getpid(), sys.modules["torch"].get_num_threads()


@dataclasses.dataclass(frozen=True)
class Slow:
    """A work that takes long in one process, so that others come to it."""

    work: Callable[..., Any]
    where: int = dataclasses.field(default_factory=os.getpid)

    def __call__(self, *piece: Any) -> tuple[Any, int]:
        """What the work gives, and who computed it."""
        if os.getpid() == self.where:
            time.sleep(HELD_S)
        return self.work(*piece), os.getpid()
