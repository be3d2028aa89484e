"""Which tasks wait, what came of the others, and how often each lost its worker."""

from __future__ import annotations

import contextlib
import json
import warnings
from collections import Counter, deque
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from raptor.core.atomic import explained
from raptor.core.errors import UserError
from raptor.runs.store import FolderStore

RESULT = "result.json"
"""Written last; a task that has one is finished."""


class LostWorkerWarning(UserWarning):
    """A worker was lost; its task goes on with another one."""


class TaskStore(FolderStore):
    """The folder of a task; only the engine writes its result."""

    def write(self, name: str, content: bytes) -> None:
        """See `Store`; a folder that somebody deleted is not made again."""
        if name in ("", RESULT) or ".." in Path(name).parts or Path(name).is_absolute():
            raise ValueError(f"a task cannot have a file {name!r}: give a name inside its folder other than {RESULT}")
        self._write(name, content)

    def finish(self, result: str) -> None:
        """Write the result, given as JSON."""
        self._write(RESULT, result.encode())

    def _write(self, name: str, content: bytes) -> None:
        if not self.path.is_dir():
            raise UserError(f"{self.path} is not there any more: the folder was deleted while the run was going on")
        super().write(name, content)


class TaskQueue:
    """The tasks of one run by name, each with a folder in `folder`; they may lose their worker `retries` times.

    Raises:
        UserError: the folder cannot be written.
    """

    def __init__(self, tasks: Iterable[str], folder: Path, retries: int) -> None:
        self.stores = {name: TaskStore(Path(folder).resolve() / name) for name in tasks}
        self.retries = retries
        self.failure: Exception | None = None
        self._losses: Counter[str] = Counter()
        self._results: dict[str, dict[str, Any]] = {}
        for name, store in self.stores.items():
            self._prepare(name)
            if (result := read_result(store.path)) is not None:
                self._results[name] = result
        self.waiting = deque(name for name in self.stores if name not in self._results)

    def finish(self, name: str, result: str) -> None:
        """Write the result of a task, given as JSON."""
        try:
            self.stores[name].finish(result)
        except UserError as error:
            self.fail(error)
        self._results[name] = json.loads(result)

    def lose(self, name: str, why: str) -> None:
        """Note that a task lost its worker: it waits for another one, unless that has happened too often."""
        self._losses[name] += 1
        if self._losses[name] > self.retries:
            sentence = f"{name} lost its worker {self._losses[name]} times, the last time because {why}: "
            self.fail(UserError(f"{sentence}mend that, then go on with --resume; what was written is kept"))
            return
        warnings.warn(f"{name} goes on with another worker, because {why}", LostWorkerWarning, stacklevel=3)
        self._prepare(name)
        self.waiting.appendleft(name)

    def fail(self, error: Exception) -> None:
        """Note what ends the run; the first failure counts."""
        self.failure = self.failure or error

    def results(self) -> dict[str, dict[str, Any]]:
        """The results of the finished tasks, in the order of the tasks; raises what ended the run."""
        if self.failure is not None:
            raise self.failure
        return {name: self._results[name] for name in self.stores if name in self._results}

    def _prepare(self, name: str) -> None:
        path = self.stores[name].path
        with explained(path):
            path.mkdir(parents=True, exist_ok=True)
        for remains in path.rglob(".*.tmp"):
            with contextlib.suppress(OSError):
                remains.unlink()


def read_result(folder: Path) -> dict[str, Any] | None:
    """The result of the task in this folder, None where it has not finished."""
    try:
        result: dict[str, Any] = json.loads((folder / RESULT).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return result
