"""Files that are either as they were or complete, whatever happens while they are written."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
from collections.abc import Iterator, MutableMapping
from pathlib import Path

from raptor.core.errors import UserError

PathLike = str | os.PathLike[str]

Store = MutableMapping[str, bytes]
"""Files by names that may have folders, `checkpoints/step_000001.pt`; in memory, a plain dictionary is one."""


def checked_path(path: PathLike, what: str) -> Path:
    """A path that the system can look up, of `what` for errors, with ~ expanded; nothing needs to be there."""
    try:
        found = Path(path).expanduser()
        found.stat()
        if not os.access(found, os.R_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except (FileNotFoundError, NotADirectoryError):
        return found
    except (OSError, ValueError, RuntimeError) as error:
        name = os.fspath(path)
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"cannot read {what} {name if len(name) < 200 else name[:197] + '...'!r}: {reason}") from error
    return found


@contextlib.contextmanager
def replacing(path: PathLike) -> Iterator[Path]:
    """Hand out a temporary file `.NAME.*.tmp` that takes the place of `path` when the block ends well.

    Whatever goes wrong, a full disk included, leaves a file that was there as it was, and no temporary file behind. The
    folder is created if it is not there. Where the system refuses to write, a `UserError` names the reason.
    """
    target = Path(path)
    if "\0" in str(target):
        raise UserError(f"cannot write {target}: a path cannot hold a NUL")
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        _sync(temporary, os.O_RDWR)
        temporary.replace(target)
        with contextlib.suppress(OSError):  # on systems whose folders can be synchronised, it survives a loss of power
            _sync(target.parent, os.O_RDONLY)
    except OSError as error:
        raise UserError(f"cannot write {target}: {error.strerror or error}") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def replacing_folder(path: PathLike, mark: str) -> Iterator[Path]:
    """Hand out a temporary folder that takes the place of `path` when the block ends well.

    A folder that is there must be empty, or hold a file named `mark`, which says that it is one of these. Errors leave
    it as it was, and no temporary folder behind.
    """
    target = Path(path)
    temporary, old = (target.with_name(f".{target.name}.{secrets.token_hex(4)}.{end}") for end in ("tmp", "old"))
    try:
        if target.exists() and not (target.is_dir() and ((target / mark).is_file() or not any(target.iterdir()))):
            raise UserError(f"cannot write {target}: something else is there; choose another name")
        temporary.mkdir(parents=True)
        yield temporary
        if target.exists():
            target.replace(old)
        temporary.replace(target)
    except OSError as error:
        if old.exists() and not target.exists():
            old.replace(target)
        raise UserError(f"cannot write {target}: {error.strerror or error}") from error
    finally:
        for folder in (temporary, old):
            shutil.rmtree(folder, ignore_errors=True)


def write_atomically(path: PathLike, content: bytes | str) -> Path:
    """Write a file that appears complete or not at all, as `replacing` does."""
    with replacing(path) as temporary:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)
    return Path(path)


def _sync(path: Path, flags: int) -> None:
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def explained(path: PathLike) -> Iterator[None]:
    """Turn an error of the file system into one that says what to do."""
    try:
        yield
    except OSError as error:
        name = os.fsdecode(error.filename) if error.filename else path
        raise UserError(f"cannot write {name}: {error.strerror}") from error


class FolderStore(MutableMapping[str, bytes]):
    """The files of a folder of this machine, each complete or not there; the first one that is written creates it."""

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
