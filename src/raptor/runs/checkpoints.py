"""The checkpoints of a run: complete or not there at all, the newest few kept, a damaged one passed over."""

from __future__ import annotations

import dataclasses
import io
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch

from raptor.core.atomic import Store
from raptor.core.errors import UserError
from raptor.formats.torch_files import Advice, load_torch

_ADVICE = Advice(*["it may be deleted"] * 2)


class RunWarning(UserWarning):
    """A run goes on, but not quite as one would expect."""


@dataclasses.dataclass
class Checkpoints:
    """The checkpoints in a store."""

    store: Store
    prefix: str = "checkpoints/step_"  # of their names; the number of the step follows
    keep: int = 3  # how many of the newest stay when another is written
    log: Callable[[str], None] = lambda message: None  # called with each warning

    def names(self) -> dict[int, str]:
        """Their names by step, oldest first."""
        pattern = re.compile(rf"{re.escape(self.prefix)}(\d+)\.pt")
        found = {int(match[1]): name for name in self.store if (match := pattern.fullmatch(name))}
        return dict(sorted(found.items()))

    def write(self, step: int, document: Mapping[str, Any]) -> str:
        """Write a checkpoint, then delete the oldest beyond those to keep; returns its name.

        The document is plain data and tensors; its group `training` holds all that the next step depends on.
        """
        name, buffer = f"{self.prefix}{step:06d}.pt", io.BytesIO()
        torch.save(dict(document), buffer)
        try:
            self.store[name] = buffer.getvalue()
        except UserError as error:
            if not self.names():
                raise
            raise UserError(f"{error}; earlier checkpoints are intact: correct it, then --resume") from error
        for old in list(self.names().values())[: -self.keep]:
            del self.store[old]
        return name

    def newest_first(self, device: torch.device | str = "cpu") -> Iterator[tuple[str, dict[str, Any]]]:
        """Names and states of training of those that can be read; an error where there are some and none was good.

        A caller that finds that one of them holds something else calls `pass_over` and takes the next.
        """
        names = list(self.names().values())
        for name in reversed(names):
            try:
                training = load_torch(self.store.get(name) or b"", name, device, _ADVICE).get("training")
                if not isinstance(training, dict):
                    raise UserError(f"{name} holds a policy, but no state to go on training from")
            except UserError as error:
                self.pass_over(name, error)
                continue
            yield name, training
        if names:
            raise UserError(f"no checkpoint {self.prefix}*.pt of this run can be read: start anew with --overwrite")

    def pass_over(self, name: str, problem: object) -> None:
        """Warn that this one is of no use; an earlier one is taken, if there is one."""
        message = f"{name.rsplit('/', 1)[-1]} is passed over for an earlier checkpoint, because {problem}"
        self.log(f"warning: {message}")
        warnings.warn(message, RunWarning, stacklevel=3)

    def newest(self) -> dict[str, Any]:
        """The state of training in the newest one, empty where there is none; without the warnings."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return next((training for _, training in self.newest_first()), {})
