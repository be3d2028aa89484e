"""The checkpoints of a run: complete or not there at all, the newest few kept, a damaged one passed over."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch

from raptor.core.errors import UserError
from raptor.formats.torch_files import load_torch
from raptor.runs.store import Store


class RunWarning(UserWarning):
    """A run goes on, but not quite as one would expect."""


class Checkpoints:
    """The checkpoints in a store.

    Args:
        store: where they are.
        prefix: what their names begin with; the number of the step follows.
        keep: how many of the newest stay when another is written.
        log: called with what is warned of.
    """

    def __init__(
        self,
        store: Store,
        prefix: str = "checkpoints/step_",
        keep: int = 3,
        log: Callable[[str], None] = lambda message: None,
    ) -> None:
        self.store, self.prefix, self.keep, self.log = store, prefix, keep, log

    def names(self) -> dict[int, str]:
        """Their names by step, oldest first."""
        pattern = re.compile(rf"{re.escape(self.prefix)}(\d+)\.pt")
        found = {int(match[1]): name for name in self.store if (match := pattern.fullmatch(name))}
        return dict(sorted(found.items()))

    def write(self, step: int, document: Mapping[str, Any]) -> str:
        """Write a checkpoint, then delete the oldest beyond those to keep; returns its name.

        Args:
            step: how many steps were made.
            document: plain data and tensors; its group `training` holds all that the next step depends on.

        Raises:
            UserError: it cannot be written; those before it are intact.
        """
        name, buffer = f"{self.prefix}{step:06d}.pt", io.BytesIO()
        torch.save(dict(document), buffer)
        try:
            self.store[name] = buffer.getvalue()
        except UserError as error:
            if not self.names():
                raise
            raise UserError(f"{error}; earlier checkpoints are intact: mend this, then go on with --resume") from error
        for old in list(self.names().values())[: -self.keep]:
            del self.store[old]
        return name

    def newest_first(self, device: torch.device | str = "cpu") -> Iterator[tuple[str, dict[str, Any]]]:
        """Those that can be read, with a warning for each one that cannot.

        A caller that finds that one of them holds something else calls `pass_over` and takes the next.

        Raises:
            UserError: there are checkpoints, and none was good.
        """
        names = list(self.names().values())
        for name in reversed(names):
            try:
                content = self.store.get(name)
                document = load_torch(content or b"", name, device)
                if not isinstance(document.get("training"), dict):
                    raise UserError(f"{name} holds a policy, but no state to go on training from")
            except UserError as error:
                self.pass_over(name, error)
                continue
            yield name, document
        if names:
            raise UserError(f"no checkpoint {self.prefix}*.pt of this run can be read: start anew with --overwrite")

    def pass_over(self, name: str, problem: object) -> None:
        """Warn that the checkpoint before this one is used."""
        message = f"the checkpoint before {name.rsplit('/', 1)[-1]} is used, because {problem}"
        self.log(f"warning: {message}")
        warnings.warn(message, RunWarning, stacklevel=3)
