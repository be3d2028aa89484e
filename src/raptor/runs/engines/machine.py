"""From settings to an engine, and tasks on this machine: in this process, or in one for each device."""

from __future__ import annotations

import contextlib
import copy
import importlib.util
import json
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection, wait

from raptor.core.errors import MissingExtraError
from raptor.runs.engines.engine import Engine, EngineConfig, Message, Outcome, Stop, Task, TaskStore, Work, run_task
from raptor.runs.stopping import stop_on_signal

POLL_S = 0.1


def make_engine(config: EngineConfig, device: str = "cpu") -> Engine:
    """Make the engine of that name to compute on a device; `UserError` where the device, Ray or its cluster lacks."""
    if config.name == "ray":
        if importlib.util.find_spec("ray") is None:
            raise MissingExtraError("ray", "ray", "engine=ray")
        from raptor.runs.engines.ray_engine import RayEngine

        return RayEngine(config, device)
    import torch  # not above: without it, processes begin at once

    from raptor.core.devices import find_device

    for each in (config.name == "processes" and config.devices) or (device,):
        find_device(each)
    if config.name == "local":
        return LocalEngine(config, device)
    devices, cores = config.devices, os.cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    if not devices and device == "cuda":
        devices = tuple(f"cuda:{index}" for index in range(torch.cuda.device_count()))
    elif not devices:
        fitting = max(1, cores // (config.threads_per_worker or 1)) if device.startswith("cpu") else 1
        devices = (device,) * (config.num_workers or fitting)
    return ProcessEngine(config, devices[: config.num_workers])


class LocalEngine(Engine):
    """This process, where one task runs after another, and what it raises is raised."""

    def __init__(self, config: EngineConfig, device: str) -> None:
        super().__init__(config.retries)
        self.device, self.threads = device, config.threads_per_worker

    @contextlib.contextmanager
    def _opened(self, work: Work, stop: Stop) -> Iterator[None]:
        import torch

        self._work, self._stop, before = work, stop, torch.get_num_threads()
        try:
            torch.set_num_threads(self.threads or before)
            yield
        finally:
            torch.set_num_threads(before)
            self.running.clear()

    def _begin(self, name: str, task: Task, store: TaskStore) -> None:
        self.running[name] = self._work(copy.deepcopy(task), store, self.device, self._stop)

    def _ask_to_stop(self) -> None: ...  # the task asks by itself

    def _messages(self) -> Iterator[tuple[str, Message]]:
        [(name, reports)] = self.running.items()
        try:
            yield name, next(reports)
        except StopIteration as end:
            self.running.clear()
            yield name, Outcome("stopped") if end.value is None else Outcome("finished", json.dumps(end.value))


class ProcessEngine(Engine):
    """Processes that run one task after another. One that dies is replaced; all end with this one, however it ends."""

    def __init__(self, config: EngineConfig, devices: Sequence[str]) -> None:
        super().__init__(config.retries)
        self.devices, self.threads = tuple(devices), config.threads_per_worker or 1  # one process for each device
        self.capacity, self.num_at_once = len(devices), max(map(self.devices.count, self.devices))
        self._processes: dict[int, _Process] = {}  # by place in self.devices

    @contextlib.contextmanager
    def _opened(self, work: Work, stop: Stop) -> Iterator[None]:
        self._work = work
        try:
            yield
        finally:
            for process in self._processes.values():
                process.process.kill()
                process.process.join()
                process.connection.close()
            self._processes.clear()
            self.running.clear()

    def _begin(self, name: str, task: Task, store: TaskStore) -> None:
        busy = [*self.running.values()]
        place = next(i for i in range(self.capacity) if self._processes.get(i) not in busy)
        process = self._processes.get(place)
        if process is None or not process.process.is_alive():
            process = self._processes[place] = _Process(self._work, self.devices[place], self.threads)
        self.running[name] = process
        with contextlib.suppress(OSError):  # whether it is still there is found out in `messages`
            process.connection.send((task, store))

    def _ask_to_stop(self) -> None:
        for process in self._processes.values():
            process.process.terminate()

    def _messages(self) -> Iterator[tuple[str, Message]]:
        wait([process.connection for process in self.running.values()], timeout=POLL_S)
        for name, process in [*self.running.items()]:
            for message in process.messages():
                if isinstance(message, Outcome):
                    del self.running[name]
                yield name, message


class _Process:
    """A process that runs one task at a time."""

    def __init__(self, work: Work, device: str, threads: int) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, work, device, threads), name=f"raptor {device}")
        # It begins with Ctrl-C blocked, which would reach it before it can ignore it.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT}) if os.name == "posix" else None
        try:
            with theirs:
                self.process.start()
        finally:
            if before is not None:
                signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def messages(self) -> Iterator[Message]:
        """What the task has sent, up to how it ended."""
        alive = self.process.is_alive()  # before its messages are read: what it sent before its death counts
        try:
            while self.connection.poll():
                message = self.connection.recv()
                yield message
                if isinstance(message, Outcome):
                    return
        except (EOFError, OSError):
            alive = False
        if not alive:
            self.process.join()
            code = self.process.exitcode or 0
            how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with status {code}"
            memory = ", as it is where memory runs out" if code == -signal.SIGKILL else ""
            yield Outcome("lost", f"its process {how}{memory}")


def _serve(connection: Connection, work: Work, device: str, threads: int) -> None:
    """Run one task after another; the main function of a process."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    with stop_on_signal() as stop:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent gets it too, and says when to stop
        while not stop():
            task, store = connection.recv()
            for message in run_task(work, task, store, device, threads, stop):
                connection.send(message)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
