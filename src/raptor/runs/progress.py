"""What a running job reports, and its clock."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Mapping


@dataclasses.dataclass(frozen=True)
class Progress:
    """Where a job stands."""

    stage: str  # such as testing teachers, compiling, training, imitating, fine-tuning, validating
    step: int
    num_steps: int
    unit: str = "update"  # what a step is
    elapsed_s: float = 0.0  # since the run began, without the pauses between its sessions
    rate: float = 0.0  # steps per second of this session, without what the first one compiles; 0 where unknown
    env_steps_per_s: float = math.nan
    remaining_s: float = math.nan
    values: Mapping[str, float] = dataclasses.field(default_factory=dict)  # of the last step
    validation: Mapping[str, float] = dataclasses.field(default_factory=dict)  # the last one; empty before
    best_return: float | None = None


ProgressFunction = Callable[[Progress], None]


class Clock:
    """Elapsed time over the sessions of a run, and the rates within this one.

    Args:
        before_s: duration of the sessions before.
    """

    def __init__(self, before_s: float = 0.0) -> None:
        self._start = time.perf_counter() - before_s
        self._first: tuple[float, float, float] | None = None  # time, steps and env-steps after the first step
        self._last: tuple[float, float, float] | None = None

    @property
    def elapsed_s(self) -> float:
        """Seconds over all sessions."""
        return time.perf_counter() - self._start

    def tick(self, steps: float, env_steps: float) -> None:
        """Take note of how many steps, and steps of flight, were made so far."""
        self._last = time.perf_counter(), steps, env_steps
        self._first = self._first or self._last

    @property
    def rate(self) -> float:
        """Steps per second of this session after its first one; 0 where unknown."""
        return self._per_second(1)

    @property
    def env_steps_per_s(self) -> float:
        """Steps of flight per second; 0 where unknown."""
        return self._per_second(2)

    def restart_rates(self) -> None:
        """Count rates anew: something else begins."""
        self._first = self._last = None

    def _per_second(self, what: int) -> float:
        if self._first is None or self._last is None or self._last[1] == self._first[1]:
            return 0.0
        return (self._last[what] - self._first[what]) / (time.perf_counter() - self._first[0])
