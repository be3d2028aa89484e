"""Tasks in this process, one after another."""

from __future__ import annotations

import contextlib
import copy
import json
from collections.abc import Generator, Iterator
from typing import Any

import torch

from raptor.core.devices import find_device
from raptor.runs.engines.engine import Outcome, Report, Stop, Task, Work
from raptor.runs.engines.task_queue import TaskStore


class LocalWorkers:
    """This process.

    Args:
        device: where to compute.
        threads: number of threads of an operation; None leaves it as it is.

    Raises:
        UserError: there is no such device.
    """

    capacity = num_at_once = 1

    def __init__(self, device: str = "cpu", threads: int | None = None) -> None:
        find_device(device)
        self.device, self.threads = device, threads
        self.running: dict[str, Generator[Report, None, dict[str, Any] | None]] = {}

    @contextlib.contextmanager
    def opened(self, work: Work, stop: Stop) -> Iterator[None]:
        """Compute with so many threads within the block."""
        self._work, self._stop, before = work, stop, torch.get_num_threads()
        try:
            torch.set_num_threads(self.threads or before)
            yield
        finally:
            torch.set_num_threads(before)
            self.running.clear()

    def begin(self, name: str, task: Task, store: TaskStore) -> None:
        """Begin a task."""
        self.running[name] = self._work(copy.deepcopy(task), store, self.device, self._stop)

    def stop(self) -> None:
        """Do nothing: the task asks by itself."""

    def messages(self) -> list[tuple[str, Report | Outcome]]:
        """The next report of the task, or how it ended; what it raises is raised here."""
        [(name, reports)] = self.running.items()
        try:
            return [(name, next(reports))]
        except StopIteration as end:
            self.running.clear()
            return [(name, Outcome("stopped") if end.value is None else Outcome("finished", json.dumps(end.value)))]
