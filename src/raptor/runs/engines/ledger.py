"""Which tasks are still to be done, what came of the others, and how often each lost its worker."""

from __future__ import annotations

import warnings
from collections import Counter, deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from raptor.core.errors import UserError
from raptor.runs.engines.engine import LostWorkerWarning, Outcome
from raptor.runs.engines.folders import TaskFolder


class Ledger:
    """The books of one run.

    Args:
        tasks: description of each task by name.
        folder: where their folders are.
        retries: how often a task may lose its worker before the run ends.

    Raises:
        UserError: the folder cannot be written.
    """

    def __init__(self, tasks: Mapping[str, dict[str, Any]], folder: Path, retries: int = 0) -> None:
        self.tasks, self.retries = tasks, retries
        self.folders = {name: TaskFolder(Path(folder).resolve() / name) for name in tasks}
        self.failure: Exception | None = None
        self._losses: Counter[str] = Counter()
        self._results: dict[str, dict[str, Any]] = {}
        for name, place in self.folders.items():
            place.prepare()
            if (result := place.result()) is not None:
                self._results[name] = result
        self.waiting = deque(name for name in tasks if name not in self._results)

    def attempt(self, name: str) -> int:
        """How many workers the task has lost."""
        return self._losses[name]

    def finish(self, name: str, result: str) -> None:
        """Note the result of a task, given as JSON."""
        self._results[name] = self.folders[name].finish(result)

    def settle(self, name: str, outcome: Outcome, stopping: bool) -> None:
        """Note how a task ended on a worker; the first failure counts."""
        try:
            if outcome.kind == "finished":
                self.finish(name, outcome.text)
            elif outcome.kind == "refused":
                raise UserError(outcome.text)
            elif outcome.kind == "failed":
                raise RuntimeError(f"{name} failed on its worker:\n{outcome.text}")
            elif not stopping:
                self.lose(name, "it was told to end")
        except (UserError, RuntimeError) as error:
            self.failure = self.failure or error

    def lose(self, name: str, why: str, stopping: bool = False) -> None:
        """Note that a task lost its worker: it waits for another one, unless that has happened too often."""
        if stopping:
            return
        self._losses[name] += 1
        if self._losses[name] > self.retries:
            self.failure = self.failure or UserError(
                f"{name} lost its worker {self._losses[name]} times, the last time because {why}: "
                "mend that, then go on with --resume; what was written is kept"
            )
            return
        warnings.warn(f"{name} goes on with another worker, because {why}", LostWorkerWarning, stacklevel=2)
        self.folders[name].prepare()
        self.waiting.appendleft(name)

    def results(self) -> dict[str, dict[str, Any]]:
        """The results of the finished tasks, in the order of the tasks.

        Raises:
            UserError, RuntimeError: what ended the run.
        """
        if self.failure is not None:
            raise self.failure
        return {name: self._results[name] for name in self.tasks if name in self._results}
