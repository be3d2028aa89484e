"""The checkpoints of a run: complete or not there at all, the newest few kept, a damaged one passed over."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from raptor.core.errors import UserError
from raptor.formats.checkpoint import StudentPolicy, read_checkpoint, save_policy


class RunWarning(UserWarning):
    """A run goes on, but not quite as one would expect."""


class Checkpoints:
    """The checkpoints of a run.

    Args:
        folder: where the files lie.
        keep: how many of the newest stay when another is written.
        prefix: what the name of a checkpoint begins with; the number of its update follows.
        best: name of the best policy's file.
    """

    def __init__(self, folder: Path, keep: int = 3, prefix: str = "update_", best: str = "best.pt") -> None:
        self.folder, self.keep, self.prefix = folder, keep, prefix
        self.best = folder / best

    def paths(self) -> dict[int, Path]:
        """Checkpoints by update, oldest first; without the best."""
        name = re.compile(rf"{re.escape(self.prefix)}(\d+)\.pt")
        found = {int(match[1]): path for path in self.folder.glob("*.pt") if (match := name.fullmatch(path.name))}
        return dict(sorted(found.items()))

    def write(self, update: int, policy: StudentPolicy, card: Mapping[str, Any], training: Mapping[str, Any]) -> Path:
        """Write a checkpoint, then delete the oldest ones beyond those to keep.

        Args:
            update: how many updates were made.
            policy: what they led to.
            card: its card.
            training: all that the next update depends on.

        Raises:
            UserError: it cannot be written; those before it are intact.
        """
        path = self.folder / f"{self.prefix}{update:06d}.pt"
        try:
            save_policy(policy, path, card, training)
        except UserError as error:
            raise UserError(f"{error}; earlier checkpoints are intact: mend this, then go on with --resume") from error
        for old in list(self.paths().values())[: -self.keep]:
            old.unlink(missing_ok=True)
        return path

    def newest(self) -> tuple[Path, dict[str, Any]] | None:
        """The newest checkpoint that can be read, with a warning for each one that cannot; None where none was written.

        Raises:
            UserError: there are checkpoints, and all of them are damaged.
        """
        paths = list(self.paths().values())
        for path in reversed(paths):
            try:
                return path, _read(path)
            except UserError as error:
                warnings.warn(f"the checkpoint before {path.name} is used, because {error}", RunWarning, stacklevel=2)
        if paths:
            raise UserError(f"no checkpoint in {self.folder} can be read: start anew with --overwrite")
        return None

    def clear(self) -> None:
        """Delete every checkpoint, and what a killed process left half-written."""
        for path in (*self.paths().values(), self.best):
            path.unlink(missing_ok=True)
        self.clear_remains()

    def clear_remains(self) -> None:
        """Delete what a killed process left half-written."""
        for path in self.folder.glob(".*.pt.*.tmp"):
            path.unlink(missing_ok=True)


def _read(path: Path) -> dict[str, Any]:
    document = read_checkpoint(path)
    if "training" not in document:
        raise UserError(f"{path} holds a policy, but no state to go on training from")
    return document
