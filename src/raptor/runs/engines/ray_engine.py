"""Tasks on a Ray cluster."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from raptor.core.errors import MissingExtraError, UserError
from raptor.runs.engines.engine import OnReport, Outcome, Work, carry_out, set_threads
from raptor.runs.engines.ledger import Ledger
from raptor.runs.engines.ray_desk import Desk

POLL_S = 0.2
PIECE = 32 * 2**20  # bytes of a file that travel at once
STOP_INTERVAL_S = 0.5  # between two questions of a worker whether to stop
PATIENCE_S = 20.0  # with a cluster that takes its time to answer


class RayEngine:
    """Carries out tasks on a Ray cluster. Their files come back to this machine while they are at work.

    Args:
        address: `auto`, `host:port`, or `local`, which starts a cluster on this machine.
        cpus_per_task: cores that a task reserves.
        gpus_per_task: GPUs that a task reserves; above 0, tasks compute on `cuda`, else on `cpu`.
        threads: number of threads of an operation.
        retries: how often a task whose worker was lost is started again.
        num_workers: most tasks at once; None is as many as the cluster has room for.

    Raises:
        MissingExtraError: Ray is not installed.
        UserError: the cluster does not answer, or cannot be started.
    """

    def __init__(
        self,
        address: str = "auto",
        cpus_per_task: float = 1.0,
        gpus_per_task: float = 0.0,
        threads: int = 1,
        retries: int = 3,
        num_workers: int | None = None,
    ) -> None:
        if importlib.util.find_spec("ray") is None:
            raise MissingExtraError("ray", "ray", "engine=ray")
        self.address, self.threads, self.retries, self.num_workers = address, threads, retries, num_workers
        self.resources = {"num_cpus": cpus_per_task, "num_gpus": gpus_per_task}
        self.device = "cuda" if gpus_per_task else "cpu"
        self._connected = False
        self._connect()

    @property
    def num_at_once(self) -> int:
        """As many as are asked for, which may all come to the same machine; one where nothing is said."""
        return self.num_workers or 1

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
        self._connect()
        from ray.exceptions import RayError

        try:
            with contextlib.closing(_Job(ledger, work, self)) as job:
                while job.go_on(stop):
                    job.attend(on_report)
        except RayError as error:
            raise UserError(
                f"the Ray cluster was lost ({type(error).__name__}): go on with --resume once it is back; "
                "what was written is kept"
            ) from error
        finally:
            self.close()
        return ledger.results()

    def close(self) -> None:
        """Leave the cluster, or end it, if this engine entered or started it."""
        import ray

        if self._connected:
            ray.shutdown()
            self._connected = False

    def _connect(self) -> None:
        import ray

        if ray.is_initialized():
            return
        if self.address != "local":
            _check_address(self.address)
        own = {"num_cpus": self.num_workers, "include_dashboard": False} if self.address == "local" else {}
        try:
            ray.init(address=self.address, log_to_driver=False, logging_level="WARNING", **own)
        except (ConnectionError, RuntimeError, ValueError, OSError) as error:
            raise UserError(f"cannot use Ray at {self.address}: {_first_line(error)}") from error
        self._connected = True
        if self.address == "local":
            self._check_room(ray.cluster_resources())

    def _check_room(self, there: Mapping[str, float]) -> None:
        """Refuse tasks that this machine never has room for."""
        for resource, needed in self.resources.items():
            kind = resource.removeprefix("num_")
            has = there.get(kind.upper()[:-1], 0.0)
            if needed > has:
                self.close()
                raise UserError(f"engine.{kind}_per_task must be at most {has:g} on this machine, got {needed:g}")


class _Job:
    """One run on the cluster: the tasks that are on their way."""

    def __init__(self, ledger: Ledger, work: Work, engine: RayEngine) -> None:
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        self.ledger, self.engine, self.stopping = ledger, engine, False
        self.running: dict[Any, str] = {}  # the promise of an outcome -> the name of its task
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        desk = ray.remote(num_cpus=0, concurrency_groups={"files": 4}, max_restarts=0)(Desk)
        self.desk: Any = desk.options(scheduling_strategy=here).remote(ledger.folders)
        self.work = ray.put(work)
        self.submit = ray.remote(max_retries=0, **engine.resources)(_run_task).remote

    def go_on(self, stop: Callable[[], bool]) -> bool:
        """Submit what waits, or ask what runs to stop; whether there is something to wait for."""
        import ray

        if not self.stopping and (self.ledger.failure is not None or stop()):
            self.stopping = True
            ray.get(self.desk.ask_to_stop.remote())
        most = self.engine.num_workers or len(self.ledger.tasks)
        while not self.stopping and self.ledger.waiting and len(self.running) < most:
            name = self.ledger.waiting.popleft()
            order = (name, self.ledger.attempt(name), self.ledger.tasks[name], self.engine.device, self.engine.threads)
            self.running[self.submit(self.desk, self.work, *order)] = name
        if self.stopping:  # a task that waits for room on the cluster need not begin
            return any(map(self._has_begun, self.running.values()))
        return bool(self.running)

    def attend(self, on_report: OnReport) -> None:
        """Wait a moment for reports and outcomes."""
        import ray

        done, _ = ray.wait(list(self.running), num_returns=len(self.running), timeout=POLL_S)
        for name, values in ray.get(self.desk.take_reports.remote()):
            on_report(name, values)
        for promise in done:
            self._settle(promise, self.running.pop(promise))

    def close(self) -> None:
        """Leave nothing behind on the cluster."""
        import ray

        with contextlib.suppress(Exception):  # a cluster that is gone has nothing left on it
            for promise in self.running:
                ray.cancel(promise, force=True)
            ray.kill(self.desk)

    def _settle(self, promise: Any, name: str) -> None:
        import ray
        from ray.exceptions import RayError, RayTaskError

        try:
            self.ledger.settle(name, ray.get(promise), self.stopping)
        except RayTaskError as error:
            text = str(error).strip().splitlines()[-1]
            advice = "install the same raptor-python, and what else the task needs, on every node"
            self.ledger.failure = self.ledger.failure or UserError(f"a Ray worker cannot run {name} ({text}): {advice}")
        except RayError as error:
            self.ledger.lose(name, f"Ray reports {type(error).__name__}", self.stopping)

    def _has_begun(self, name: str) -> bool:
        import ray

        return bool(ray.get(self.desk.begun.remote()).get(name, -1) == self.ledger.attempt(name))


class _RayWorkplace:
    """A workplace on any node; what is written goes to the desk."""

    def __init__(self, desk: Any, task: str, attempt: int, device: str) -> None:
        self.desk, self.task, self.attempt, self.device = desk, task, attempt, device
        self._asked_at, self._stop = -STOP_INTERVAL_S, False

    def read(self, name: str) -> bytes | None:
        content = io.BytesIO()
        while piece := self._files("read", name, content.tell(), PIECE):
            content.write(piece)
        return None if piece is None else content.getvalue()

    def write(self, name: str, content: bytes) -> None:
        pieces = np.frombuffer(content, dtype=np.uint8)
        for offset in range(0, max(1, len(pieces)), PIECE):
            self._files("append", self.attempt, name, offset, pieces[offset : offset + PIECE])
        self._files("commit", self.attempt, name)

    def report(self, values: Mapping[str, Any]) -> None:
        self.desk.report.remote(self.task, dict(values))

    def stop_requested(self) -> bool:
        now = time.monotonic()
        if now - self._asked_at >= STOP_INTERVAL_S:
            self._asked_at, self._stop = now, self._ask("stop_requested")
        return self._stop

    def flush(self) -> None:
        """Return when all reports have arrived."""
        self._ask("stop_requested")  # the desk takes calls in their order

    def _files(self, method: str, *arguments: Any) -> Any:
        return self._ask(method, self.task, *arguments, concurrency_group="files")

    def _ask(self, method: str, *arguments: Any, **options: Any) -> Any:
        import ray
        from ray.exceptions import RayTaskError

        try:
            return ray.get(getattr(self.desk, method).options(**options).remote(*arguments))
        except RayTaskError as error:
            raise error.cause from None


def _run_task(
    desk: Any, work: Work, name: str, attempt: int, task: dict[str, Any], device: str, threads: int
) -> Outcome:
    """Carry out one task; runs on a worker."""
    import ray

    if not ray.get(desk.begin.remote(name, attempt)):
        return Outcome("stopped")
    set_threads(threads)
    workplace = _RayWorkplace(desk, name, attempt, device)
    outcome = carry_out(work, task, workplace)
    workplace.flush()
    return outcome


def _check_address(address: str) -> None:
    """Refuse a cluster that does not answer, for which Ray itself would wait for minutes.

    Raises:
        UserError: says how to start a cluster.
    """
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
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, env=dict(os.environ))
    except subprocess.TimeoutExpired:
        raise UserError(f"no Ray cluster answers at {address} within {PATIENCE_S:g} s: {advice}") from None
    if done.returncode:
        lines = (done.stderr.strip() or done.stdout.strip() or "no reason given").splitlines()
        raise UserError(f"no Ray cluster can be used at {address} ({lines[-1]}): {advice}")


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
