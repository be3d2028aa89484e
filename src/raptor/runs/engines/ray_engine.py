"""Tasks on a Ray cluster. This file needs Ray."""

from __future__ import annotations

import contextlib
import functools
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from raptor.core.errors import UserError
from raptor.runs.engines.engine import Engine, EngineConfig, Message, Outcome, Stop, Task, TaskStore, Work, run_task
from raptor.runs.stopping import stop_on_signal

POLL_S = 0.2  # between two looks at what the tasks have sent, or at whether to stop
PATIENCE_S = 20.0  # with a cluster that takes its time to answer


class RayEngine(Engine):
    """Workers of a Ray cluster. A task is a streaming generator whose items carry reports and files to the driver.

    Ray does not retry a task that lost its worker, for it would begin from the start: it is submitted again, with its
    newest files. Tasks that reserve a GPU compute on `cuda`.
    """

    def __init__(self, config: EngineConfig, device: str = "cpu") -> None:
        super().__init__(config.retries)
        gpus = config.gpus_per_task or float(device.startswith("cuda"))
        self.config, self.device = config, "cuda" if gpus else "cpu"
        self.resources = {"num_cpus": config.cpus_per_task, "num_gpus": gpus}
        self.capacity = config.num_workers or sys.maxsize
        self.num_at_once = config.num_workers or 1  # all may come to the same machine
        self.running: dict[Any, tuple[str, TaskStore]] = {}  # by the stream of a task's items
        self._leaving = contextlib.ExitStack()
        self._connect()

    @contextlib.contextmanager
    def _opened(self, work: Work, stop: Stop) -> Iterator[None]:
        self._connect()
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        flag: Any = ray.remote(num_cpus=0)(threading.Event).options(scheduling_strategy=here).remote()
        # A worker waits until its last item is taken: it loses no checkpoint with its life, nor fills the object store.
        streaming = {"num_returns": "streaming", "_generator_backpressure_num_objects": 1, "max_retries": 0}
        submit = ray.remote(**streaming, **self.resources)(_stream).remote
        threads = self.config.threads_per_worker or 1
        self._submit = functools.partial(submit, flag, ray.put(work), self.device, threads)
        self._flag, self._begun = flag, set[Any]()
        try:
            yield
        except RayError as error:
            raise UserError(
                f"the Ray cluster was lost ({type(error).__name__}): go on with --resume once it is back; "
                "what was written is kept"
            ) from error
        finally:
            with contextlib.suppress(Exception):  # a cluster that is gone has nothing left on it
                for stream in self.running:
                    ray.cancel(stream, force=True)
                ray.kill(flag)
            self.running.clear()
            self._leaving.close()

    def _begin(self, name: str, task: Task, store: TaskStore) -> None:
        self.running[self._submit(task, dict(store))] = name, store

    def _ask_to_stop(self) -> None:
        ray.get(self._flag.set.remote())
        for stream in {*self.running} - self._begun:
            del self.running[stream]  # it waits for room on the cluster
            ray.cancel(stream)

    def _messages(self) -> Iterator[tuple[str, Message]]:
        ready, _ = ray.wait([*self.running], timeout=POLL_S)
        if ready:
            ready, _ = ray.wait([*self.running], num_returns=len(self.running), timeout=0)
        for stream in ready:
            name, store = self.running[stream]
            message: Message | None
            try:
                written, deleted, message = ray.get(next(stream))
                store.update(written)
                for file in deleted:
                    del store[file]
                self._begun.add(stream)
            except UserError as error:
                ray.cancel(stream, force=True)
                message = Outcome("refused", str(error))
            except RayTaskError as error:
                why = str(error).strip().splitlines()[-1]
                advice = "install the same raptor-python, and what else the task needs, on every node"
                message = Outcome("refused", f"a Ray worker cannot run {name} ({why}): {advice}")
            except RayError as error:
                message = Outcome("lost", f"Ray reports {type(error).__name__}")
            if isinstance(message, Outcome):
                del self.running[stream]
            if message is not None:
                yield name, message

    def _connect(self) -> None:
        if ray.is_initialized():
            return
        address, own = self.config.address, {}
        if address == "local":
            own = {"num_cpus": self.config.num_workers, "include_dashboard": False}
        else:
            _check_address(address)
        try:
            ray.init(address=address, log_to_driver=False, logging_level="WARNING", **own)
        except (ConnectionError, RuntimeError, ValueError, OSError) as error:
            first_line = next(iter(str(error).strip().splitlines()), type(error).__name__)
            raise UserError(f"cannot use Ray at {address}: {first_line}") from error
        self._leaving.callback(ray.shutdown)  # which also ends a cluster of its own
        for kind in ("cpus", "gpus") if own else ():
            needed, there = self.resources[f"num_{kind}"], ray.cluster_resources().get(kind.upper()[:-1], 0.0)
            if needed > there:
                self._leaving.close()
                raise UserError(f"engine.{kind}_per_task must be at most {there:g} on this machine, got {needed:g}")


def _stream(
    flag: Any, work: Work, device: str, threads: int, task: Task, files: dict[str, bytes]
) -> Iterator[tuple[dict[str, bytes], list[str], Message | None]]:
    """Run one task on a worker; an item: files written since the one before, names of those deleted, and a report."""
    store, ended = dict(files), threading.Event()

    def watch() -> None:
        while not ended.wait(POLL_S):
            if ray.get(flag.is_set.remote()):
                os.kill(os.getpid(), signal.SIGTERM)
                return

    with stop_on_signal() as stop:
        threading.Thread(target=watch, daemon=True).start()
        try:
            yield {}, [], None  # it has begun
            for message in run_task(work, task, store, device, threads, stop):
                written = {name: content for name, content in store.items() if content is not files.get(name)}
                deleted, files = [*files.keys() - store.keys()], dict(store)
                yield written, deleted, message
        finally:
            ended.set()


def _check_address(address: str) -> None:
    """Refuse a cluster that does not answer, for which Ray itself would wait for minutes, and say how to start one."""
    advice = "start a cluster with `ray start --head`, or give engine.address=local to start one on this machine"
    if address != "auto":
        if not (match := re.fullmatch(r"\[?([^\s/]+?)\]?:(\d{1,5})", address)):
            raise UserError(f"engine.address must be auto, local or host:port, got {address!r}")
        try:
            socket.create_connection((match[1], int(match[2])), timeout=5.0).close()
        except (OSError, OverflowError) as error:
            raise UserError(f"no Ray cluster answers at {address} ({error}): {advice}") from error
    command = [sys.executable, "-m", "ray.scripts.scripts", "health-check", "--address", address]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S)
    except subprocess.TimeoutExpired:
        raise UserError(f"no Ray cluster answers at {address} within {PATIENCE_S:g} s: {advice}") from None
    if done.returncode:
        lines = (done.stderr.strip() or done.stdout.strip() or "no reason given").splitlines()
        raise UserError(f"no Ray cluster can be used at {address} ({lines[-1]}): {advice}")
