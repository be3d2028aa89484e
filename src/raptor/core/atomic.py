"""Files that are either as they were or complete, whatever happens while they are written."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

from raptor.core.errors import UserError

PathLike = str | os.PathLike[str]


def checked_path(path: PathLike, what: str) -> Path:
    """A path that the system can look up, with ~ expanded; nothing needs to be there.

    Args:
        path: as the user gave it.
        what: should be there, for the error message.

    Raises:
        UserError: the name is too long, holds a NUL, or lies where nobody may look.
    """
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
    """Hand out a temporary file name that takes the place of `path` when the block ends well.

    Whatever goes wrong, a full disk included, leaves a file that was there as it was, and no temporary file behind.

    Args:
        path: the file to write; its folder is created if it is not there.

    Yields:
        A name in the same folder, `.NAME.*.tmp`, for the block to write to.

    Raises:
        UserError: the system refuses to write; names the file and the reason.
    """
    target = Path(path)
    if "\0" in str(target):
        raise UserError(f"cannot write {target}: a path cannot hold a NUL")
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(target)
        _sync_folder(target.parent)
    except OSError as error:
        raise UserError(f"cannot write {target}: {error.strerror or error}") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_atomically(path: PathLike, content: bytes | str) -> Path:
    """Write a file that appears complete or not at all.

    Raises:
        UserError: the disk is full, or the folder cannot be written; what was at `path` is still there.
    """
    with replacing(path) as temporary:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)
    return Path(path)


def _sync_folder(folder: Path) -> None:
    """Make a rename survive a loss of power, on systems whose folders can be synchronised."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
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
