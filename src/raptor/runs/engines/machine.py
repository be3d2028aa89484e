"""Tasks on this machine: in this process, or in processes of their own, one for each device."""

from __future__ import annotations

import contextlib
import copy
import json
import multiprocessing
import os
import signal
import threading
from collections.abc import Generator, Iterator, Sequence
from multiprocessing.connection import Connection, wait
from typing import Any

from raptor.runs.engines.engine import Outcome, Report, Stop, Task, TaskStore, Work, run_task, set_threads
from raptor.runs.stopping import stop_on_signal

POLL_S = 0.1
PATIENCE_S = 5.0  # with a process that has nothing more to do


class LocalWorkers:
    """This process, where one task runs after another, and what it raises is raised.

    Args:
        device: where to compute.
        threads: number of threads of an operation; None leaves it as it is.
    """

    capacity = num_at_once = 1

    def __init__(self, device: str = "cpu", threads: int | None = None) -> None:
        self.device, self.threads = device, threads
        self.running: dict[str, Generator[Report, None, dict[str, Any] | None]] = {}

    @contextlib.contextmanager
    def opened(self, work: Work, stop: Stop) -> Iterator[None]:
        """Compute with so many threads within the block."""
        import torch  # not above: without it, the processes of the other engine begin at once

        self._work, self._stop, before = work, stop, torch.get_num_threads()
        try:
            torch.set_num_threads(self.threads or before)
            yield
        finally:
            torch.set_num_threads(before)
            self.running.clear()

    def begin(self, name: str, task: Task, store: TaskStore) -> None:
        """Begin a task."""
        self.running[name] = self._work(copy.deepcopy(task), store, self.device, self._stop)

    def stop(self) -> None:
        """Do nothing: the task asks by itself."""

    def messages(self) -> list[tuple[str, Report | Outcome]]:
        """The next report of the task, or how it ended."""
        [(name, reports)] = self.running.items()
        try:
            return [(name, next(reports))]
        except StopIteration as end:
            self.running.clear()
            return [(name, Outcome("stopped") if end.value is None else Outcome("finished", json.dumps(end.value)))]


class ProcessWorkers:
    """Processes that run one task after another. One that dies is replaced; all end with this one, however it ends.

    Args:
        devices: one process for each.
        threads: number of threads of an operation in each process.
    """

    def __init__(self, devices: Sequence[str], threads: int = 1) -> None:
        self.devices, self.threads = tuple(devices), threads
        self.capacity, self.num_at_once = len(devices), max(map(self.devices.count, self.devices))
        self._processes: dict[int, _Process] = {}  # by place in self.devices

    @property
    def running(self) -> list[int]:
        """The places where a task runs."""
        return [place for place, process in self._processes.items() if process.task is not None]

    @contextlib.contextmanager
    def opened(self, work: Work, stop: Stop) -> Iterator[None]:
        """Begin processes as they are needed within the block."""
        self._work, patience_s = work, 0.0
        try:
            yield
            for process in self._processes.values():
                process.send(None)
            patience_s = PATIENCE_S
        finally:
            for process in self._processes.values():
                process.end(patience_s)
            self._processes.clear()

    def begin(self, name: str, task: Task, store: TaskStore) -> None:
        """Begin a task in a process that is free."""
        place = min({*range(len(self.devices))} - {*self.running})
        process = self._processes.get(place)
        if process is None or not process.process.is_alive():
            process = self._processes[place] = _Process(self._work, self.devices[place], self.threads)
        process.task = name
        process.send((task, store))

    def stop(self) -> None:
        """Ask all processes to stop."""
        for process in self._processes.values():
            process.process.terminate()

    def messages(self) -> Iterator[tuple[str, Report | Outcome]]:
        """Wait a moment for what the processes send."""
        busy = [self._processes[place] for place in self.running]
        wait([process.connection for process in busy], timeout=POLL_S)
        for process in busy:
            yield from process.messages()


class _Process:
    """A process, and the task that it is at."""

    def __init__(self, work: Work, device: str, threads: int) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, work, device, threads), name=f"raptor {device}")
        self.task: str | None = None
        with _interrupts_held(), theirs:
            self.process.start()

    def send(self, message: object) -> None:
        with contextlib.suppress(OSError):  # whether it is still there is found out elsewhere
            self.connection.send(message)

    def messages(self) -> Iterator[tuple[str, Report | Outcome]]:
        alive = self.process.is_alive()  # before its messages are read: what it sent before its death counts
        try:
            while (name := self.task) is not None and self.connection.poll():
                message = self.connection.recv()
                if isinstance(message, Outcome):
                    self.task = None
                yield name, message
        except (EOFError, OSError):
            alive = False
        if (name := self.task) is not None and not alive:
            self.process.join()
            self.task = None
            yield name, Outcome("lost", _cause_of_death(self.process.exitcode))

    def end(self, patience_s: float) -> None:
        """Make sure that the process is gone."""
        self.process.join(patience_s)
        self.process.kill()
        self.process.join()
        self.connection.close()


def _serve(connection: Connection, work: Work, device: str, threads: int) -> None:
    """Run one task after another; the main function of a process."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    set_threads(threads)
    with stop_on_signal() as stop:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent gets it too, and says when to stop
        while not stop() and (order := connection.recv()) is not None:
            task, store = order
            for message in run_task(work, task, store, device, stop):
                connection.send(message)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


@contextlib.contextmanager
def _interrupts_held() -> Iterator[None]:
    """Let processes begin with Ctrl-C blocked, or it would reach them before they can ignore it."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _cause_of_death(exit_code: int | None) -> str:
    if exit_code is None or exit_code >= 0:
        return f"its process ended with status {exit_code}"
    name = signal.Signals(-exit_code).name
    memory = ", as it is where memory runs out" if name == "SIGKILL" else ""
    return f"its process was killed by {name}{memory}"
