"""Running tasks that do not depend on each other, on whatever workers there are."""

from __future__ import annotations

import abc
import dataclasses
import json
import os
import sys
import traceback
import warnings
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

from raptor.config.settings import Settings, at_least, not_negative, optional, positive, setting
from raptor.core.atomic import FolderStore, Store, explained
from raptor.core.errors import UserError

RESULT = "result.json"  # written last; a task that has one is finished

Task = dict[str, Any]
Report = Mapping[str, Any]
Stop = Callable[[], bool]
Work = Callable[[Task, Store, str, Stop], Generator[Report, None, "dict[str, Any] | None"]]
"""A generator function of a module: of a task, the store of its files, a device, and whether to stop where it is safe.

It goes on from what an earlier attempt wrote to the store, yields reports, and returns its result, or None where it was
asked to stop before its end. Tasks, reports and results are what JSON knows."""


class LostWorkerWarning(UserWarning):
    """A worker was lost; its task goes on with another one."""


@dataclasses.dataclass(frozen=True)
class EngineConfig(Settings):
    """Where the shards of a population are computed. `engine=ray` is short for `engine.name=ray`."""

    SHORTHAND: ClassVar[str] = "name"

    name: Literal["local", "processes", "ray"] = setting("local", "in this process, one for each device, on Ray")
    address: str = setting("auto", "ray: auto finds the cluster of this machine; host:port; local starts one")
    devices: tuple[str, ...] = setting((), "processes: one for each, [cuda:0,cuda:1]; empty: all like `device`")
    num_workers: int | None = setting(None, "tasks at once; null: by cores, GPUs or Ray", optional(at_least(1)))
    threads_per_worker: int | None = setting(
        None, "the same number gives the same rounding everywhere; null: 1", optional(at_least(1))
    )
    retries: int = setting(3, "how often a task that loses its worker is started again", at_least(0))
    cpus_per_task: float = setting(1.0, "ray: cores that a task reserves", positive)
    gpus_per_task: float = setting(
        0.0, "ray: GPUs that a task reserves, 0.5 lets two share one; 0 with device=cuda means 1", not_negative
    )


class Outcome(NamedTuple):
    """How an attempt at a task ended."""

    kind: Literal["finished", "stopped", "refused", "failed", "lost"]
    text: str = "it was asked to stop"  # the result as JSON, a UserError's sentence, a traceback, why it was lost


Message = Report | Outcome


class TaskStore(FolderStore):
    """The folder of a task; only the engine writes its result."""

    def __setitem__(self, name: str, content: bytes) -> None:
        if name in ("", RESULT) or ".." in Path(name).parts or Path(name).is_absolute():
            raise ValueError(f"a task cannot have a file {name!r}: give a name inside its folder other than {RESULT}")
        self.write(name, content)

    def write(self, name: str, content: bytes) -> None:
        """Write any file; a folder that was deleted is not created again."""
        if not self.path.is_dir():
            raise UserError(f"{self.path} is not there any more: the folder was deleted while the run was going on")
        super().__setitem__(name, content)

    def prepare(self) -> None:
        """Create the folder, without what a lost worker left half written."""
        with explained(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
            for remains in self.path.rglob(".*.tmp"):
                remains.unlink(missing_ok=True)


class Engine(abc.ABC):
    """Runs tasks that do not depend on each other; one that loses its worker is begun again up to `retries` times."""

    capacity = 1  # most tasks at once
    num_at_once = 1  # tasks that share the memory of one machine, or of one GPU, at a time

    def __init__(self, retries: int) -> None:
        self.retries = retries
        self.running: dict[Any, Any] = {}  # the tasks that have begun and not ended

    def run(
        self, work: Work, tasks: Mapping[str, Task], folder: Path, on_report: Callable[[str, Report], None], stop: Stop
    ) -> dict[str, dict[str, Any]]:
        """Run all tasks that are not finished yet; returns the results of finished ones, in the order of `tasks`.

        Each has a folder of its name inside `folder`, for its files and its `result.json`. What it reports comes to
        `on_report`, in this thread. Once `stop`, which is asked a few times a second, says so, tasks end where it is
        safe, and no more are begun.

        Raises:
            UserError: a task raised it, a worker was lost too often, or the folder cannot be written. The other tasks
                are stopped where it is safe, and the results of finished ones are kept.
            RuntimeError: a task raised anything else.
        """
        stopping, failures, losses = False, list[Exception](), Counter[str]()
        stores = {name: TaskStore(Path(folder).resolve() / name) for name in tasks}
        for store in stores.values():
            store.prepare()
        waiting = deque(name for name, store in stores.items() if read_result(store.path) is None)
        with self._opened(work, stop):
            while True:
                if not stopping and (failures or stop()):
                    stopping = True
                    self._ask_to_stop()
                while not stopping and waiting and len(self.running) < self.capacity:
                    name = waiting.popleft()
                    self._begin(name, tasks[name], stores[name])
                if not self.running:
                    break
                for name, message in self._messages():
                    if not isinstance(message, Outcome):
                        on_report(name, message)
                        continue
                    lost = message.kind in ("stopped", "lost")
                    if lost and (stopping or stop()):  # a signal to all processes may stop one before it is asked
                        continue
                    losses[name] += lost
                    try:
                        self._settle(name, message, stores[name], losses[name])
                    except (UserError, RuntimeError) as error:
                        failures.append(error)
                    else:
                        waiting.extendleft([name] if lost else [])
        if failures:
            raise failures[0]
        return {name: found for name, store in stores.items() if (found := read_result(store.path)) is not None}

    def _settle(self, name: str, outcome: Outcome, store: TaskStore, times_lost: int) -> None:
        """Keep the result of a task, or see to it that it can begin again, or raise what it raised."""
        kind, text = outcome
        if kind == "finished":
            store.write(RESULT, text.encode())
        elif kind == "refused":
            raise UserError(text)
        elif kind == "failed":
            raise RuntimeError(f"{name} failed on its worker:\n{text}")
        elif times_lost > self.retries:
            sentence = f"{name} lost its worker {times_lost} times, the last time because {text}: "
            raise UserError(f"{sentence}remedy that, then go on with --resume; what was written is kept")
        else:
            warnings.warn(f"{name} goes on with another worker, because {text}", LostWorkerWarning, 3)
            store.prepare()

    @abc.abstractmethod
    def _opened(self, work: Work, stop: Stop) -> AbstractContextManager[None]:
        """Take tasks within the block, and leave no process behind."""

    @abc.abstractmethod
    def _begin(self, name: str, task: Task, store: TaskStore) -> None:
        """Begin a task, whose files are in `store`."""

    @abc.abstractmethod
    def _ask_to_stop(self) -> None:
        """Ask the running tasks to stop where it is safe; called once."""

    @abc.abstractmethod
    def _messages(self) -> Iterable[tuple[str, Message]]:
        """Wait a moment; then what tasks have reported and how they ended, by name."""


def read_result(folder: Path) -> dict[str, Any] | None:
    """The result of the task in this folder, None where it has not finished."""
    try:
        result: dict[str, Any] = json.loads((folder / RESULT).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return result


def run_task(work: Work, task: Task, store: Store, device: str, threads: int, stop: Stop) -> Iterator[Message]:
    """Run one task on a worker, with so many threads of an operation: its reports, then how it ended."""
    os.environ["OMP_NUM_THREADS"] = str(threads)  # for whatever is imported later
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(threads)
    try:
        result = yield from work(task, store, device, stop)
        yield Outcome("stopped") if result is None else Outcome("finished", json.dumps(result))
    except UserError as error:
        yield Outcome("refused", str(error))
    except Exception:
        yield Outcome("failed", traceback.format_exc())
