"""What a running job tells whoever watches it, and how one asks it to stop."""

from __future__ import annotations

import contextlib
import dataclasses
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from types import FrameType
from typing import Literal

from raptor.core.torchrun import started_together

Stage = Literal["testing teachers", "compiling", "training", "imitating", "fine-tuning", "validating"]


@dataclasses.dataclass(frozen=True)
class Progress:
    """Where a job stands."""

    stage: Stage
    update: int
    num_updates: int
    elapsed_s: float  # since the run began, without the pauses between its sessions
    updates_per_s: float  # of this session, without what the first update compiles; 0 where unknown
    env_steps_per_s: float
    remaining_s: float  # NaN where unknown
    values: Mapping[str, float]  # of the last update
    validation: Mapping[str, float]  # of the last validation; empty before
    best_return: float | None
    unit: str = "update"  # what is counted


ProgressFunction = Callable[[Progress], None]


class Clock:
    """Elapsed time over the sessions of a run, and the rate within this one.

    Args:
        before_s: duration of the sessions before.
    """

    def __init__(self, before_s: float = 0.0) -> None:
        self._start = time.perf_counter() - before_s
        self._counted_from: float | None = None
        self._updates = 0

    @property
    def elapsed_s(self) -> float:
        """Seconds over all sessions."""
        return time.perf_counter() - self._start

    @property
    def updates_per_s(self) -> float:
        """Updates per second of this session after its first one; 0 where unknown."""
        if self._counted_from is None or self._updates == 0:
            return 0.0
        return self._updates / (time.perf_counter() - self._counted_from)

    def tick(self) -> None:
        """Count an update."""
        if self._counted_from is None:
            self._counted_from = time.perf_counter()
        else:
            self._updates += 1


class StopRequest:
    """Whether someone asked to stop."""

    def __init__(self) -> None:
        self.made = False


@contextlib.contextmanager
def stop_on_signal() -> Iterator[StopRequest]:
    """Turn the first Ctrl-C, or a termination signal, into a request that the job meets when it is safe.

    A second Ctrl-C interrupts at once, unless several processes work at the job: those stop together. Only the main
    thread can listen; elsewhere no request is ever made.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return

    def ask(number: int, frame: FrameType | None) -> None:
        if request.made and number == signal.SIGINT and not started_together():
            raise KeyboardInterrupt
        request.made = True

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
