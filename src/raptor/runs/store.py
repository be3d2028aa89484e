"""Stores: where a part of a run keeps its files, on this machine or on another."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from raptor.core.atomic import PathLike, write_atomically
from raptor.core.errors import UserError


class Store(Protocol):
    """A flat set of files by name; a name may have folders, `checkpoints/step_000001.pt`."""

    def read(self, name: str) -> bytes | None:
        """The content of a file, None where it is not there.

        Raises:
            UserError: it cannot be read.
        """
        ...

    def write(self, name: str, content: bytes) -> None:
        """Write a file, complete or not at all.

        Raises:
            UserError: it cannot be written.
        """
        ...

    def names(self) -> list[str]:
        """The files that there are, sorted."""
        ...

    def remove(self, name: str) -> None:
        """Delete a file, if it is there."""
        ...


class FolderStore:
    """A folder of this machine.

    Args:
        path: the folder; created by the first write.
    """

    def __init__(self, path: PathLike) -> None:
        self.path = Path(path)

    def read(self, name: str) -> bytes | None:
        """See `Store`."""
        try:
            return (self.path / name).read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise UserError(f"cannot read {self.path / name}: {error.strerror or error}") from error

    def write(self, name: str, content: bytes) -> None:
        """See `Store`; returns when the file survives a loss of power."""
        write_atomically(self.path / name, content)

    def names(self) -> list[str]:
        """See `Store`."""
        return sorted(str(path.relative_to(self.path)) for path in self.path.rglob("*") if not path.is_dir())

    def remove(self, name: str) -> None:
        """See `Store`."""
        (self.path / name).unlink(missing_ok=True)


class MemoryStore:
    """Files in memory; what is written can be handed over to another store.

    Args:
        files: that are there at the beginning, by name.
    """

    def __init__(self, files: dict[str, bytes] | None = None) -> None:
        self.files = dict(files or {})
        self._changes: dict[str, bytes | None] = {}

    def read(self, name: str) -> bytes | None:
        """See `Store`."""
        return self.files.get(name)

    def write(self, name: str, content: bytes) -> None:
        """See `Store`."""
        self.files[name] = self._changes[name] = content

    def names(self) -> list[str]:
        """See `Store`."""
        return sorted(self.files)

    def remove(self, name: str) -> None:
        """See `Store`."""
        if self.files.pop(name, None) is not None:
            self._changes[name] = None

    def take(self) -> dict[str, bytes | None]:
        """What was written since the last call, None for a file that was deleted."""
        changes, self._changes = self._changes, {}
        return changes


def apply(changes: dict[str, bytes | None], store: Store) -> None:
    """Write what `MemoryStore.take` gave to another store."""
    for name, content in changes.items():
        if content is None:
            store.remove(name)
        else:
            store.write(name, content)
