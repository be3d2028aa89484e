"""The actor between the workers of a Ray cluster and the folder of a run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from raptor.core.atomic import replacing
from raptor.core.errors import UserError
from raptor.runs.engines.folders import TaskFolder


class Desk:
    """Gathers files and reports on the machine of the driver, and passes on the request to stop.

    Files come and go in pieces, so that no machine ever holds more than a piece beside what the task itself holds.
    Only the latest attempt at a task may write: a worker that is taken for lost, but lives on, changes nothing.

    Args:
        folders: the folder of each task.
    """

    def __init__(self, folders: Mapping[str, TaskFolder]) -> None:
        self._folders = folders
        self._attempts: dict[str, int] = {}
        self._messages: list[tuple[str, Mapping[str, Any]]] = []
        self._stop = False

    def begin(self, task: str, attempt: int) -> bool:
        """Note that a task begins, unless it should not begin any more."""
        if not self._stop:
            self._attempts[task] = max(attempt, self._attempts.get(task, 0))
        return not self._stop

    def begun(self) -> dict[str, int]:
        """The latest attempt at each task that has begun."""
        return self._attempts

    def report(self, task: str, values: Mapping[str, Any]) -> None:
        """Take a report."""
        self._messages.append((task, values))

    def take_reports(self) -> list[tuple[str, Mapping[str, Any]]]:
        """Hand over the reports since the last call."""
        taken, self._messages = self._messages, []
        return taken

    def ask_to_stop(self) -> None:
        """Ask all tasks to stop."""
        self._stop = True

    def stop_requested(self) -> bool:
        """Whether tasks should stop."""
        return self._stop

    def read(self, task: str, name: str, offset: int, size: int) -> bytes | None:
        """A piece of a file, empty behind its end; None where there is no such file."""
        path = self._folders[task].file(name)
        try:
            with path.open("rb") as file:
                file.seek(offset)
                return file.read(size)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise UserError(f"cannot read {path}: {error.strerror or error}") from error

    def append(self, task: str, attempt: int, name: str, offset: int, piece: npt.NDArray[np.uint8]) -> None:
        """Take a piece of a file that is not to be seen yet; offset 0 begins anew."""
        part = self._part(task, attempt, name)
        try:
            part.parent.mkdir(parents=True, exist_ok=True)
            with part.open("ab" if offset else "wb") as file:
                file.write(piece.data)
        except OSError as error:
            part.unlink(missing_ok=True)
            path = self._folders[task].file(name)
            raise UserError(f"cannot write {path}: {error.strerror or error}") from error

    def commit(self, task: str, attempt: int, name: str) -> None:
        """Let a file whose pieces are all there take the place of the one before; return when it is durable."""
        part = self._part(task, attempt, name)
        with replacing(self._folders[task].file(name)) as temporary:
            part.replace(temporary)

    def _part(self, task: str, attempt: int, name: str) -> Path:
        if attempt != self._attempts.get(task):
            raise RuntimeError(f"{task} has been given to another worker")
        path = self._folders[task].file(name)
        return path.with_name(f".{path.name}.{attempt}.tmp")
