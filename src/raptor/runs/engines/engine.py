"""Running tasks that do not depend on each other, on whatever workers there are."""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

from raptor.core.errors import UserError
from raptor.runs.engines.task_queue import TaskQueue, TaskStore
from raptor.runs.store import Store

Task = dict[str, Any]
Report = Mapping[str, Any]
Stop = Callable[[], bool]
Work = Callable[[Task, Store, str, Stop], Generator[Report, None, "dict[str, Any] | None"]]
"""A generator function of a module: of a task, the store of its files, a device, and whether to stop where it is safe.

It goes on from what an earlier attempt wrote to the store, yields reports, and returns its result, or None where it was
asked to stop before its end. Tasks, reports and results are what JSON knows."""


class Outcome(NamedTuple):
    """How an attempt at a task ended."""

    kind: Literal["finished", "stopped", "refused", "failed", "lost"]
    text: str = ""  # the result as JSON, the sentence of a UserError, a traceback, or why the worker was lost


class Workers(Protocol):
    """What runs the tasks of one run at a time."""

    capacity: int  # most tasks at once
    num_at_once: int  # tasks that share the memory of one machine, or of one GPU, at a time

    @property
    def running(self) -> Collection[Any]:
        """The tasks that have begun and not ended."""
        ...

    def opened(self, work: Work, stop: Stop) -> AbstractContextManager[None]:
        """Take tasks within the block, and leave no process behind."""
        ...

    def begin(self, name: str, task: Task, store: TaskStore) -> None:
        """Begin a task, whose files are in `store`."""
        ...

    def stop(self) -> None:
        """Ask the running tasks to stop where it is safe; called once."""
        ...

    def messages(self) -> Iterable[tuple[str, Report | Outcome]]:
        """Wait a moment; then what tasks have reported and how they ended, by name."""
        ...


class Engine:
    """Runs tasks that do not depend on each other; one that loses its worker is begun again up to `retries` times."""

    def __init__(self, workers: Workers, retries: int = 0) -> None:
        self.workers, self.retries = workers, retries

    def run(
        self, work: Work, tasks: Mapping[str, Task], folder: Path, on_report: Callable[[str, Report], None], stop: Stop
    ) -> dict[str, dict[str, Any]]:
        """Run all tasks that are not finished yet.

        Args:
            work: what is to be done.
            tasks: each task by its name, which is a folder inside `folder`.
            folder: where the files of the tasks are gathered, and the `result.json` of each that has finished.
            on_report: called in this thread with the name of a task and what it reported.
            stop: asked a few times a second; once it says so, tasks end where it is safe, and no more are begun.

        Returns:
            The result of each finished task, in the order of `tasks`; those that were stopped are missing.

        Raises:
            UserError: a task raised it, a worker was lost too often, or the folder cannot be written. The other tasks
                are stopped where it is safe, and the results of finished ones are kept.
            RuntimeError: a task raised anything else.
        """
        queue, workers, stopping = TaskQueue(tasks, folder, self.retries), self.workers, False
        with workers.opened(work, stop):
            while True:
                if not stopping and (queue.failure is not None or stop()):
                    stopping = True
                    workers.stop()
                while not stopping and queue.waiting and len(workers.running) < workers.capacity:
                    name = queue.waiting.popleft()
                    workers.begin(name, tasks[name], queue.stores[name])
                if not workers.running:
                    return queue.results()
                for name, message in workers.messages():
                    if not isinstance(message, Outcome):
                        on_report(name, message)
                    elif message.kind == "finished":
                        queue.finish(name, message.text)
                    elif message.kind == "refused":
                        queue.fail(UserError(message.text))
                    elif message.kind == "failed":
                        queue.fail(RuntimeError(f"{name} failed on its worker:\n{message.text}"))
                    elif not (stopping or stop()):  # a signal to all processes may stop a task before it is asked
                        queue.lose(name, message.text or "it was asked to stop")


def run_task(work: Work, task: Task, store: Store, device: str, stop: Stop) -> Iterator[Report | Outcome]:
    """Run one task on a worker: its reports, then how it ended."""
    try:
        result = yield from work(task, store, device, stop)
        outcome = Outcome("stopped") if result is None else Outcome("finished", json.dumps(result))
    except UserError as error:
        outcome = Outcome("refused", str(error))
    except Exception:
        outcome = Outcome("failed", traceback.format_exc())
    yield outcome


def set_threads(threads: int) -> None:
    """Give operations of this process so many threads, of whatever is imported later too. Itself imports nothing."""
    os.environ["OMP_NUM_THREADS"] = str(threads)
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(threads)
