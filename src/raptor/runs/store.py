"""Stores: where a part of a run keeps its files, by names that may have folders: `checkpoints/step_000001.pt`.

In memory, on a machine that the files are to leave, a plain dictionary is one.
"""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from pathlib import Path

from raptor.core.atomic import PathLike, write_atomically
from raptor.core.errors import UserError

Store = MutableMapping[str, bytes]


class FolderStore(MutableMapping[str, bytes]):
    """The files of a folder of this machine, each complete or not there; the first one that is written creates it.

    Raises:
        UserError: a file cannot be read or written.
    """

    def __init__(self, path: PathLike) -> None:
        self.path = Path(path)

    def __getitem__(self, name: str) -> bytes:
        try:
            return (self.path / name).read_bytes()
        except FileNotFoundError:
            raise KeyError(name) from None
        except OSError as error:
            raise UserError(f"cannot read {self.path / name}: {error.strerror or error}") from error

    def __setitem__(self, name: str, content: bytes) -> None:
        write_atomically(self.path / name, content)

    def __delitem__(self, name: str) -> None:
        (self.path / name).unlink(missing_ok=True)

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(str(path.relative_to(self.path)) for path in self.path.rglob("*") if not path.is_dir()))

    def __len__(self) -> int:
        return sum(1 for _ in self)
