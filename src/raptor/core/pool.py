"""Processes beside this one that compute pieces of a job on idle cores.

A piece is a pure function of what it is given, so that its result has the same bits whoever computes it. This process
computes pieces, too, and what another one does not bring back in time it computes itself: it never waits for the
slowest, and one that dies takes nothing with it. The others yield to whatever else wants their cores.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
import statistics
import threading
import time
import warnings
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

from raptor.core.errors import UserError
from raptor.core.helper import Helper, Work, cause, dumps

PATIENCE = 1.3  # times as long as its last piece took, that another process is waited for
ROUNDS, GAIN = 3, 0.97  # batches of a trial, with and without; and what must be left of the time for a change
LEAST_INTERVAL, MOST_INTERVAL = 8, 128  # batches between two trials


class ProcessWarning(UserWarning):
    """Another process does not take part in a run, or does not any more."""


def num_processes(asked: int | Literal["auto"], device: str = "cpu", together: int = 1) -> int:
    """How many processes a job has on this machine, where `together` were started by torchrun."""
    if not device.startswith("cpu") or together > 1:
        if asked not in ("auto", 1):
            why = f"{together} processes share the job" if together > 1 else f"device is {device}"
            raise UserError(f"processes must be auto or 1 where {why}, got {asked}")
        return 1
    if asked != "auto":
        return asked
    import torch

    return max(1, num_cores() // torch.get_num_threads())


def num_cores() -> int:
    """Cores that this process may use: of the machine, or of its container."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with contextlib.suppress(OSError, ValueError):  # "max 100000" where there is no limit
        quota, period = map(int, Path("/sys/fs/cgroup/cpu.max").read_text().split())
        cores = min(cores, max(1, quota // period))
    return cores


class Pool:
    """This process, and others beside it that it starts where there are pieces for them.

    What becomes of the others is a warning, and a line for `log`.
    """

    def __init__(self, processes: int = 1, log: Callable[[str], None] | None = None) -> None:
        self._most = processes - 1  # other processes
        self._log = log or (lambda line: None)
        self._known: dict[Work, _Known] = {}
        self._helpers: list[Helper] = []  # that were started and are not lost
        self._ready: list[Helper] = []  # of these, the ones that can be given pieces
        self._batch: _Batch | None = None
        self._changed = threading.Condition()
        self._news: list[str] = []
        self._said: set[str] = set()

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """End the other processes."""
        with self._changed:
            helpers, self._helpers, self._ready, self._most = self._helpers, [], [], 0
            self._changed.notify_all()
        for helper in helpers:
            helper.process.kill()
        for helper in helpers:
            helper.end()

    def map(self, work: Work, pieces: Sequence[tuple[Any, ...]]) -> list[Any]:
        """The results of a work for some pieces, each of which is a tuple of arguments, in their order."""
        self._tell()
        if self._most < 1 or len(pieces) < 2:
            return [work(*piece) for piece in pieces]
        known, kinds = self._known.get(work), set(map(_kind, pieces))
        if known is None or known.content is None or not kinds <= known.kinds:
            # This process alone, so that what it has to compile is there when others come to it.
            results = [work(*piece) for piece in pieces[:-1]]
            begun = time.perf_counter()
            results.append(work(*pieces[-1]))
            known = known or self._learn(work, len(pieces) - 1)
            known.kinds |= kinds
            known.seconds = time.perf_counter() - begun
            return results
        batch = _Batch(known, pieces, known.trial.choose(len(self._ready)))
        begun = time.perf_counter()
        with self._changed:
            self._batch = batch
            self._changed.notify_all()
        try:
            while (place := self._own_place(batch)) is not None:
                known.seconds = self._time(work, batch, place)
        finally:
            self._batch = None
        known.trial.note((time.perf_counter() - begun) / len(pieces))
        return [batch.results[place] for place in range(len(pieces))]

    def _time(self, work: Work, batch: _Batch, place: int) -> float:
        begun = time.perf_counter()
        result = work(*batch.pieces[place])
        with self._changed:
            batch.results.setdefault(place, result)
        return time.perf_counter() - begun

    def _own_place(self, batch: _Batch) -> int | None:
        """The next piece for this process, perhaps after some waiting; None where all are done."""
        with self._changed:
            while len(batch.results) < len(batch.pieces):
                if batch.waiting:
                    return batch.waiting.popleft()
                now = time.perf_counter()
                flights = [flight for flight in batch.flights.values() if flight.place not in batch.results]
                latest = max(flights, key=lambda flight: flight.expected)
                if latest.expected - now > batch.known.seconds:
                    return latest.place
                overdue = min(flights, key=lambda flight: flight.deadline)
                if overdue.deadline <= now:
                    return overdue.place
                self._changed.wait(overdue.deadline - now)
            return None

    def _learn(self, work: Work, num: int) -> _Known:
        """Prepare a work for other processes, and start up to `num` of them."""
        try:
            content = dumps(work)
        except Exception as error:  # whatever the parts of a work raise
            content = None
            self._news.append(f"one process computes alone, because its work cannot be handed over: {cause(error)}")
        known = self._known[work] = _Known(len(self._known), content)
        while content is not None and len(self._helpers) < min(num, self._most):
            try:
                helper = Helper()
            except OSError as error:
                self._most = len(self._helpers)
                text = f"no process can be started beside this one: {cause(error)}"
                self._news.append(f"{text}; {len(self._helpers) + 1} go on" if self._helpers else text)
                break
            self._helpers.append(helper)
            threading.Thread(target=self._drive, args=(helper,), daemon=True).start()
        self._tell()
        return known

    def _drive(self, helper: Helper) -> None:
        """Give a process piece after piece; a thread of its own."""
        problem = None
        try:
            helper.receive()
            with self._changed:
                self._ready.append(helper)
            while (given := self._place_for(helper)) is not None:
                batch, place = given
                kind, found = helper.compute(batch.known.number, batch.known.content or b"", batch.pieces[place])
                with self._changed:
                    del batch.flights[helper]
                    if kind == "failed":
                        batch.give_back(place)
                    else:
                        batch.results.setdefault(place, found)
                    self._changed.notify_all()
                if kind == "failed":
                    problem = f"a process beside this one cannot take part: {found}"
                    break
        except (EOFError, OSError):
            problem = f"process {helper.process.pid} of this run {helper.how_it_ended()}: the run goes on without it"
            if helper not in self._ready:
                problem = f"a process beside this one {helper.how_it_ended()} when it should begin"
        self._lose(helper, problem)

    def _place_for(self, helper: Helper) -> tuple[_Batch, int] | None:
        """The next piece for another process, once there is one; None where it is not needed any more."""
        with self._changed:
            while helper in self._helpers:
                batch = self._batch
                if batch is not None and batch.waiting and helper in self._ready[: batch.num_helpers]:
                    place, now = batch.waiting.popleft(), time.perf_counter()
                    seconds = helper.seconds.get(batch.known.number) or math.inf
                    batch.flights[helper] = _Flight(place, now + seconds, now + PATIENCE * seconds)
                    return batch, place
                self._changed.wait()
            return None

    def _lose(self, helper: Helper, problem: str | None) -> None:
        with self._changed:
            if helper in self._helpers and problem is not None:
                self._helpers.remove(helper)
                self._news.append(problem)
                self._most = min(self._most, len(self._helpers))
            if helper in self._ready:
                self._ready.remove(helper)
            if (batch := self._batch) is not None and (flight := batch.flights.pop(helper, None)) is not None:
                batch.give_back(flight.place)
            self._changed.notify_all()
        helper.end()

    def _tell(self) -> None:
        """Warn of what happened, once of each."""
        with self._changed:
            news, self._news = self._news, []
        for text in news:
            if text not in self._said:
                self._said.add(text)
                self._log(f"warning: {text}")
                warnings.warn(text, ProcessWarning, stacklevel=4)


@dataclasses.dataclass(eq=False)
class _Flight:
    """A piece that another process has."""

    place: int
    expected: float  # when it is expected back
    deadline: float  # when it is not waited for any more


@dataclasses.dataclass(eq=False)
class _Known:
    """A work that has been done before."""

    number: int
    content: bytes | None  # that makes it in another process; None where that is impossible

    def __post_init__(self) -> None:
        self.trial = Trial()
        self.kinds: set[Any] = set()  # of the pieces that were computed so far
        self.seconds = 0.0  # that this process took for its last piece


@dataclasses.dataclass(eq=False)
class _Batch:
    """Pieces that are computed now."""

    known: _Known
    pieces: Sequence[tuple[Any, ...]]
    num_helpers: int  # most other processes that may take part

    def __post_init__(self) -> None:
        self.waiting = deque(range(len(self.pieces)))
        self.results: dict[int, Any] = {}
        self.flights: dict[Helper, _Flight] = {}

    def give_back(self, place: int) -> None:
        """Have this process, or another one, compute a piece that did not come back."""
        if place not in self.results:
            self.waiting.appendleft(place)


class Trial:
    """How many other processes pay: some batches with fewer or more of them are timed beside as many as usual.

    They may not pay though they yield: two cores may be one in truth, or a container may have less time than cores.
    """

    def __init__(self) -> None:
        self._most = self._resting = 0
        self._interval = self._left = LEAST_INTERVAL  # batches until the next trial
        self._other: int | None = None  # how many are tried; None between two trials
        self._fewer = False  # whether the last trial was of fewer
        self._times: tuple[list[float], list[float]] = [], []  # with as many as usual, and with the others

    def choose(self, most: int) -> int:
        """How many are to take part in the next batch, of so many that there are."""
        if most != self._most:
            self._most, self._other, self._left = most, None, LEAST_INTERVAL
            self._resting = min(self._resting, most)
        usual = most - self._resting
        if self._other is None and most:
            self._left -= 1
            if self._left <= 0:
                step = max(1, usual // 4)
                self._fewer = usual > 0 and not (self._fewer and self._resting)
                self._other = max(0, usual - step) if self._fewer else min(most, usual + step)
                self._times = [], []
        with_usual, with_other = self._times
        return self._other if self._other is not None and len(with_other) < len(with_usual) else usual

    def note(self, seconds: float) -> None:
        """Note how long the batch took that `choose` was asked for."""
        if self._other is None:
            return
        with_usual, with_other = self._times
        (with_other if len(with_other) < len(with_usual) else with_usual).append(seconds)
        if len(with_other) < ROUNDS:
            return
        if statistics.median(with_other) < GAIN * statistics.median(with_usual):
            self._resting, self._interval = self._most - self._other, LEAST_INTERVAL
        else:
            self._interval = min(2 * self._interval, MOST_INTERVAL)
        self._other, self._left = None, self._interval


def _kind(piece: tuple[Any, ...]) -> Any:
    """What compiled code depends on: nesting, shapes, memory orders and types."""
    from torch import Tensor
    from torch.utils import _pytree as pytree

    leaves, nesting = pytree.tree_flatten(piece)
    tensors = [(leaf.shape, leaf.stride(), leaf.dtype) if isinstance(leaf, Tensor) else type(leaf) for leaf in leaves]
    return nesting, tuple(tensors)
