"""Tasks in processes of this machine, one for each device."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import queue
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from raptor.runs.engines.engine import OnReport, Outcome, Work, carry_out, set_threads
from raptor.runs.engines.folders import FolderWorkplace, TaskFolder
from raptor.runs.engines.ledger import Ledger

POLL_S = 0.1
STOP = "stop"


class ProcessEngine:
    """Carries out tasks in processes of their own, which are used for several tasks in turn.

    A process that dies is replaced. All end with this process, however it ends.

    Args:
        devices: one process for each.
        threads: number of threads of an operation in each process.
        retries: how often a task whose process died is started again.

    Raises:
        UserError: one of the devices is not there.
    """

    def __init__(self, devices: Sequence[str], threads: int = 1, retries: int = 3) -> None:
        for device in sorted({*devices} - {"cpu"}):
            from raptor.core.devices import find_device  # not above: without torch, processes begin at once

            find_device(device)
        self.devices, self.threads, self.retries = tuple(devices), threads, retries

    @property
    def num_at_once(self) -> int:
        """Processes of the device that has most of them."""
        return max(self.devices.count(device) for device in self.devices)

    def run(
        self,
        work: Work,
        tasks: Mapping[str, dict[str, Any]],
        folder: Path,
        on_report: OnReport,
        stop: Callable[[], bool],
    ) -> dict[str, dict[str, Any]]:
        """Carry out all tasks that are not finished yet; see `Engine`."""
        ledger = Ledger(tasks, folder, self.retries)
        workers: dict[int, _Worker] = {}  # by place in self.devices
        stopping = False
        try:
            while True:
                stopping = stopping or ledger.failure is not None or stop()
                if not stopping:
                    self._give_out(work, ledger, workers)
                busy = [worker for worker in workers.values() if worker.task is not None]
                if not busy:
                    break
                for worker in busy:
                    worker.ask_to_stop(stopping)
                wait([worker.connection for worker in busy], timeout=POLL_S)
                stopping = stopping or stop()  # a signal to all processes may stop a worker before it is asked
                for worker in busy:
                    worker.attend(ledger, on_report, stopping)
            for worker in workers.values():
                worker.dismiss()
        finally:
            for worker in workers.values():
                worker.end()
        return ledger.results()

    def _give_out(self, work: Work, ledger: Ledger, workers: dict[int, _Worker]) -> None:
        """Give a waiting task to each place that is free."""
        for place, device in enumerate(self.devices):
            if not ledger.waiting:
                return
            worker = workers.get(place)
            if worker is not None and not worker.process.is_alive():
                worker.end()
                worker = None
            if worker is None:
                worker = workers[place] = _Worker(work, device, self.threads)
            if worker.task is None:
                worker.begin(ledger.waiting.popleft(), ledger)


class _Worker:
    """A process, and the task that it is at."""

    def __init__(self, work: Work, device: str, threads: int) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, work, device, threads), name=f"raptor {device}")
        self.task: str | None = None
        self._asked = self._dismissed = False
        with _interrupts_held(), theirs:
            self.process.start()

    def begin(self, name: str, ledger: Ledger) -> None:
        self.task = name
        self._tell((ledger.tasks[name], ledger.folders[name]))

    def ask_to_stop(self, stopping: bool) -> None:
        if stopping and not self._asked:
            self._asked = True
            self._tell(STOP)

    def attend(self, ledger: Ledger, on_report: OnReport, stopping: bool) -> None:
        """Take what the process has sent; find out whether it is still there."""
        alive = self.process.is_alive()  # before its messages are read: what it sent before its death counts
        name = self.task
        try:
            while name is not None and self.connection.poll():
                message = self.connection.recv()
                if isinstance(message, Outcome):
                    self.task = None
                    ledger.settle(name, message, stopping)
                    name = None
                else:
                    on_report(name, message)
        except (EOFError, OSError):
            alive = False
        if not alive and name is not None:
            self.process.join()
            self.task = None
            ledger.lose(name, _cause_of_death(self.process.exitcode), stopping)

    def dismiss(self) -> None:
        """Let the process end by itself, once it has nothing to do."""
        self._dismissed = True
        self._tell(None)

    def end(self, patience_s: float = 5.0) -> None:
        """Make sure that the process is gone."""
        if self._dismissed:
            self.process.join(patience_s)
        self.process.kill()
        self.process.join()
        self.connection.close()

    def _tell(self, message: object) -> None:
        with contextlib.suppress(OSError):  # whether it is still there is found out elsewhere
            self.connection.send(message)


def _serve(connection: Connection, work: Work, device: str, threads: int) -> None:
    """Carry out one task after another; the main function of a process."""
    stop = threading.Event()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent gets it too, and says when to stop
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    set_threads(threads)
    orders: queue.SimpleQueue[tuple[dict[str, Any], TaskFolder] | None] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(connection, orders, stop), daemon=True).start()
    while (order := orders.get()) is not None:
        task, folder = order
        connection.send(carry_out(work, task, FolderWorkplace(folder, device, connection.send, stop.is_set)))


def _listen(connection: Connection, orders: queue.SimpleQueue[Any], stop: threading.Event) -> None:
    """Pass on what the parent says. Without a parent, end at once."""
    while True:
        try:
            message = connection.recv()
        except (EOFError, OSError):
            os._exit(1)
        if message == STOP:
            stop.set()
        else:
            orders.put(message)


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
