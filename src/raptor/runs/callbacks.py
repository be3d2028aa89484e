"""Callbacks: a job calls them as it goes, to watch a training, to record it elsewhere, to stop it early."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from raptor.core.atomic import PathLike
from raptor.core.errors import UserError, first_line
from raptor.runs.progress import Progress

if TYPE_CHECKING:
    from raptor.runs.learner import Learner

EVENTS = ("on_update", "on_validation", "on_checkpoint", "on_end")


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunContext(Progress):
    """Where a run stands when a callback is called; in `raptor pre-train`, what its shards have reported."""

    folder: Path  # of the run
    env_steps: float = 0.0  # steps of simulation so far
    learner: Learner | None = None  # what learns; None in pre-train, whose shards learn elsewhere
    shard: str = ""  # of pre-train, whose update, validation or checkpoint this is
    path: Path | None = None  # on_checkpoint: what was written, a file; in pre-train the folder of the shard
    finished: bool = False  # on_end: whether nothing is left to do; otherwise the run can be resumed

    @property
    def policy(self) -> Any:
        """The module that is trained, as it is now; None in pre-train."""
        return None if self.learner is None else self.learner.policy


class Callback:
    """Base of callbacks: override what you need, and hand them to a job as `callbacks=[...]`.

    They are called one after the other, by the main process, between steps. One that returns False asks the run to
    stop, as Ctrl-C does: with a checkpoint. So does one that raises; the job then ends with a `UserError` that names
    it. A run whose callbacks only read comes to the same bits as without them, resumed or not.
    """

    def __init_subclass__(cls, **more: Any) -> None:
        super().__init_subclass__(**more)
        if unknown := [name for name in vars(cls) if name.startswith("on_") and name not in EVENTS]:
            raise UserError(f"{cls.__name__}.{unknown[0]} is never called: the events are {', '.join(EVENTS)}")

    def on_update(self, run: RunContext) -> bool | None:
        """After each step, an update or an epoch; in pre-train at each report of a shard's progress."""

    def on_validation(self, run: RunContext) -> bool | None:
        """After each validation, with its figures in `run.validation`; in pre-train those of the shard."""

    def on_checkpoint(self, run: RunContext) -> bool | None:
        """After each checkpoint, written to `run.path`; in pre-train once a shard is trained."""

    def on_end(self, run: RunContext) -> bool | None:
        """At the end of the session, when all files are written, also where a callback failed before."""


class Callbacks:
    """The callbacks of one session of a run."""

    def __init__(self, callbacks: Sequence[Callback] = (), folder: PathLike = ".") -> None:
        given = callbacks if isinstance(callbacks, (list, tuple)) else [callbacks]
        if wrong := [each for each in given if not isinstance(each, Callback)]:
            raise UserError(f"callbacks must be objects of raptor.training.Callback, got {wrong[0]!r}")
        self.callbacks, self.folder = tuple(given), Path(folder)
        self.asks_to_stop = False
        self.failure: UserError | None = None

    def call(self, event: str, progress: Progress, **facts: Any) -> None:
        """Call one event of all callbacks; after a failure only the last event."""
        context = RunContext(**vars(progress), folder=self.folder, **facts)
        for callback in self.callbacks:
            if self.failure is not None and event != "on_end":
                return
            try:
                self.asks_to_stop |= _is_no(getattr(callback, event)(context))
            except (Exception, SystemExit) as error:
                self.asks_to_stop, self.failure = True, self.failure or _failure(callback, event, context, error)

    def raise_failure(self) -> None:
        """Raise what the first one that failed gave as the reason."""
        if self.failure is not None:
            raise self.failure


def _is_no(answer: Any) -> bool:
    """Whether the answer of a callback asks to stop."""
    if answer is None or isinstance(answer, (bool, np.bool_)):
        return answer is not None and not answer
    raise TypeError(f"it must return None, True or False, got {answer!r}")


def _failure(callback: Callback, event: str, run: RunContext, error: BaseException) -> UserError:
    what = f"the callback {type(callback).__name__}.{event} failed at {run.unit} {run.step:.5g}"
    remedy = "what the run has written is kept: correct the callback, then go on with --resume"
    failure = UserError(f"{what} ({type(error).__name__}: {first_line(error)}); {remedy}")
    failure.__cause__ = error
    return failure
