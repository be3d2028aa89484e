"""What an engine offers, what a running task may use, and how a task ends."""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

from raptor.core.errors import UserError


class LostWorkerWarning(UserWarning):
    """A worker was lost; its task goes on with another one."""


class Workplace(Protocol):
    """What a running task may use: a device, and its own folder wherever that is."""

    @property
    def device(self) -> str:
        """The device to compute on."""
        ...

    def read(self, name: str) -> bytes | None:
        """The content of a file of the task's folder, None where it is not there."""
        ...

    def write(self, name: str, content: bytes) -> None:
        """Write a file of the task's folder, complete or not at all; return when it will survive a loss of power.

        Raises:
            UserError: it cannot be written; names the file and the reason.
        """
        ...

    def report(self, values: Mapping[str, Any]) -> None:
        """Tell how the task is getting on, in what JSON knows."""
        ...

    def stop_requested(self) -> bool:
        """Whether the task should write what it needs to go on, and return None."""
        ...


Work = Callable[[dict[str, Any], Workplace], "dict[str, Any] | None"]
"""A function of a module, of a task's description and its workplace. Description and result are what JSON knows.

It begins with looking for what an earlier attempt wrote. It returns None where it was asked to stop before its end."""

OnReport = Callable[[str, Mapping[str, Any]], None]
"""Takes the name of a task and what it reported."""


class Engine(Protocol):
    """Carries out tasks that do not depend on each other."""

    @property
    def num_at_once(self) -> int:
        """How many tasks share the memory of one machine, or of one GPU, at a time."""
        ...

    def run(
        self,
        work: Work,
        tasks: Mapping[str, dict[str, Any]],
        folder: Path,
        on_report: OnReport,
        stop: Callable[[], bool],
    ) -> dict[str, dict[str, Any]]:
        """Carry out all tasks that are not finished yet.

        Args:
            work: what is to be done.
            tasks: description of each task by its name, which is a folder inside `folder`.
            folder: where the files of the tasks are gathered, and the `result.json` of each that has finished.
            on_report: called in this thread with each report.
            stop: asked a few times a second; once it says so, tasks end where it is safe, and no more are begun.

        Returns:
            The result of each finished task, in the order of `tasks`; those that were stopped are missing.

        Raises:
            UserError: a task raised it, a worker was lost too often, or the folder cannot be written. The other tasks
                are stopped where it is safe, and the results of finished ones are kept.
            RuntimeError: a task raised anything else.
        """
        ...


class Outcome(NamedTuple):
    """How a task ended on its worker."""

    kind: Literal["finished", "stopped", "refused", "failed"]
    text: str = ""  # the result as JSON, the sentence of a UserError, or a traceback


def set_threads(threads: int) -> None:
    """Give operations of this process so many threads, of whatever is imported later too. Itself imports nothing."""
    os.environ["OMP_NUM_THREADS"] = str(threads)
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(threads)


def carry_out(work: Work, task: dict[str, Any], workplace: Workplace) -> Outcome:
    """Do the work of one task, whatever comes of it."""
    try:
        result = work(task, workplace)
        return Outcome("stopped") if result is None else Outcome("finished", json.dumps(result))
    except UserError as error:
        return Outcome("refused", str(error))
    except Exception:
        return Outcome("failed", traceback.format_exc())
