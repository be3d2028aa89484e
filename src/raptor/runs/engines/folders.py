"""The folder of a task: the files that it writes, and its result."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from raptor.core.atomic import write_atomically
from raptor.core.errors import UserError

RESULT = "result.json"
"""Written last; a task that has one is finished."""


@dataclass(frozen=True)
class TaskFolder:
    """The files of one task, on the machine that gathers them."""

    path: Path

    def prepare(self) -> None:
        """Create the folder, and delete what a lost worker left half-written.

        Raises:
            UserError: the folder cannot be written.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"cannot write {self.path}: {error.strerror or error}") from error
        for remains in self.path.rglob(".*.tmp"):
            with contextlib.suppress(OSError):
                remains.unlink()

    def file(self, name: str) -> Path:
        """Where a file of that name is."""
        parts = PurePosixPath(name).parts
        if not parts or ".." in parts or PurePosixPath(name).is_absolute() or name == RESULT:
            raise ValueError(f"a task cannot have a file {name!r}: give a name inside its folder other than {RESULT}")
        return self.path.joinpath(*parts)

    def read(self, name: str) -> bytes | None:
        """The content of a file, None where it is not there."""
        path = self.file(name)
        try:
            return path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise UserError(f"cannot read {path}: {error.strerror or error}") from error

    def write(self, name: str, content: bytes) -> None:
        """Write a file that appears complete or not at all."""
        write_atomically(self.file(name), content)

    def result(self) -> dict[str, Any] | None:
        """The result of the task, None where it has not finished."""
        try:
            result = json.loads((self.path / RESULT).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return result if isinstance(result, dict) else None

    def finish(self, result: str) -> dict[str, Any]:
        """Write the result, given as JSON, and return it as it will be read."""
        write_atomically(self.path / RESULT, result)
        read: dict[str, Any] = json.loads(result)
        return read


@dataclass(frozen=True)
class FolderWorkplace:
    """A workplace on the machine that gathers the files."""

    folder: TaskFolder
    device: str
    report: Callable[[Mapping[str, Any]], None]
    stop_requested: Callable[[], bool]

    def read(self, name: str) -> bytes | None:
        """The content of a file of the task's folder, None where it is not there."""
        return self.folder.read(name)

    def write(self, name: str, content: bytes) -> None:
        """Write a file of the task's folder."""
        self.folder.write(name, content)
