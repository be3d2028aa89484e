"""The pool: results do not depend on who computes them, and whatever befalls other processes, a job goes on."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from pool_works import doubled, only_here, threads

from raptor.core import helper
from raptor.core import pool as pools
from raptor.core.errors import UserError
from raptor.core.pool import ROUNDS, Pool, ProcessWarning, Trial, num_processes

SUPPORT = Path(__file__).parents[1] / "support"
PIECES = [(torch.full((3,), float(place)),) for place in range(8)]


@pytest.fixture(autouse=True)
def important(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let other processes neither yield to whatever else runs here nor rest."""
    monkeypatch.setattr(helper, "NICENESS", 0)
    monkeypatch.setattr(pools, "LEAST_INTERVAL", 10**9)


def until(holds: Callable[[], bool], seconds: float = 120.0) -> None:
    """Wait until something holds."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it does not come"
        time.sleep(0.05)


@contextlib.contextmanager
def silence() -> Iterator[None]:
    """Any warning is an error."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def begun(pool: Pool, work: Callable[..., object], pieces: list[tuple], num: int) -> None:
    """Let a pool meet a work, and wait for the other processes."""
    pool.map(work, pieces)
    until(lambda: len(pool._ready) == num)


def is_alive(pid: int) -> bool:
    """Whether a process is there, and not only waiting to be noticed."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    state = subprocess.run(["ps", "-o", "state=", "-p", str(pid)], capture_output=True, text=True).stdout.strip()
    return not state.startswith("Z") and state != ""


def test_other_processes_take_part_and_results_keep_their_order() -> None:
    with silence(), Pool(3) as pool:
        begun(pool, doubled, PIECES, 2)
        computed_by = set()
        for _ in range(3):
            found = pool.map(doubled, PIECES)
            assert all(torch.equal(tensor, 2 * piece) for (tensor, _), (piece,) in zip(found, PIECES, strict=True))
            computed_by |= {pid for _, pid in found}
        assert os.getpid() in computed_by
        assert len(computed_by) > 1
        assert {threads for _, threads in pool.map(threads, PIECES)} == {torch.get_num_threads()}
        pids = [one.process.pid for one in pool._helpers]
    assert not any(map(is_alive, pids))


def test_pieces_of_a_new_kind_are_computed_here_first_because_they_may_be_compiled() -> None:
    with Pool(2) as pool:
        begun(pool, doubled, PIECES, 1)
        until(lambda: len({pid for _, pid in pool.map(doubled, PIECES)}) == 2)
        longer = [(torch.zeros(4),), (torch.zeros(5),)] * 3
        assert {pid for _, pid in pool.map(doubled, longer)} == {os.getpid()}
        until(lambda: len({pid for _, pid in pool.map(doubled, longer)}) == 2)


@pytest.mark.parametrize("num", [1, 2])
def test_no_more_processes_are_started_than_there_are_pieces(num: int) -> None:
    with Pool(50) as pool:
        pool.map(doubled, PIECES[:num])
        assert len(pool._helpers) == num - 1


def test_one_that_is_killed_costs_nothing_and_is_named() -> None:
    lines: list[str] = []
    with Pool(2, lines.append) as pool:
        begun(pool, doubled, PIECES, 1)
        pid = pool._helpers[0].process.pid
        os.kill(pid, signal.SIGKILL)
        text = f"process {pid} of this run was killed by SIGKILL: the run goes on without it"
        found = pool.map(doubled, PIECES)
        assert all(torch.equal(tensor, 2 * piece) for (tensor, _), (piece,) in zip(found, PIECES, strict=True))
        until(lambda: not pool._helpers)
        with pytest.warns(ProcessWarning, match=text):
            pool.map(doubled, PIECES)
        assert lines == [f"warning: {text}"]
        assert {pid for _, pid in pool.map(doubled, PIECES)} == {os.getpid()}


def test_one_that_does_not_come_back_is_not_waited_for() -> None:
    with Pool(2) as pool:
        pieces = [(os.getpid(), True)] * 4
        begun(pool, only_here, pieces, 1)
        for _ in range(2):
            assert pool.map(only_here, pieces) == [os.getpid()] * 4


def test_a_work_that_fails_elsewhere_is_done_here() -> None:
    with Pool(2) as pool:
        pieces = [(os.getpid(), False)] * 4
        begun(pool, only_here, pieces, 1)
        assert pool.map(only_here, pieces) == [os.getpid()] * 4
        until(lambda: not pool._helpers)
        with pytest.warns(ProcessWarning, match="cannot take part: ValueError: not in this process"):
            assert pool.map(only_here, pieces) == [os.getpid()] * 4


def test_a_work_that_fails_here_is_an_error() -> None:
    with Pool(2) as pool, pytest.raises(ValueError, match="not in this process"):
        pool.map(only_here, [(0, False)] * 2)


def test_a_work_that_cannot_be_handed_over_is_done_here_and_that_is_said_once() -> None:
    with Pool(2) as pool:
        local = lambda number: number + 1  # noqa: E731
        with pytest.warns(ProcessWarning, match="one process computes alone"):
            assert pool.map(local, [(1,), (2,)]) == [2, 3]
        with silence():
            assert pool.map(local, [(1,), (2,)]) == [2, 3]


@pytest.mark.parametrize("program", ["/nowhere/python", ""])
def test_where_no_process_can_be_started_one_goes_on_and_says_so_once(
    monkeypatch: pytest.MonkeyPatch, program: str
) -> None:
    monkeypatch.setattr(sys, "executable", program)
    with Pool(4) as pool:
        with pytest.warns(ProcessWarning, match="no process can be started beside this one"):
            pool.map(doubled, PIECES[:2])
        with silence():
            assert len(pool.map(doubled, PIECES[:2])) == 2


def test_one_that_cannot_begin_is_done_without(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", ["/nowhere"])
    with Pool(2) as pool:
        pool.map(doubled, PIECES[:2])
        until(lambda: not pool._helpers)
        with pytest.warns(ProcessWarning, match="a process beside this one ended with status 1 when it should begin"):
            pool.map(doubled, PIECES[:2])


ABANDONED = """
import signal, sys, time
import torch
from pool_works import doubled
from raptor.core import helper
from raptor.core.pool import Pool

if __name__ == "__main__":
    helper.NICENESS = 0
    signal.signal(signal.SIGINT, signal.default_int_handler)  # it is ignored where the tests run in the background
    pool, pieces = Pool(2), [(torch.zeros(1),)] * 4
    pool.map(doubled, pieces)
    while not pool._ready:
        time.sleep(0.05)
    print(*(one.process.pid for one in pool._helpers), flush=True)
    while True:
        pool.map(doubled, pieces)
"""


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGKILL"])
def test_none_is_left_when_the_job_ends_in_whatever_way(name: str, tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(ABANDONED, encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(SUPPORT), *sys.path])}
    command = [sys.executable, str(tmp_path / "script.py")]
    quiet = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True, "env": environment}
    with subprocess.Popen(command, start_new_session=True, **quiet) as job:
        assert job.stdout is not None
        pids = [int(word) for word in job.stdout.readline().split()]
        assert len(pids) == 1
        if name == "SIGINT":  # which a terminal sends to all of them
            os.killpg(job.pid, signal.SIGINT)
        else:
            job.send_signal(signal.Signals[name])
        job.wait(timeout=60)
    until(lambda: not any(map(is_alive, pids)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.bool, torch.int64])
def test_tensors_arrive_with_their_content_and_memory_order(dtype: torch.dtype) -> None:
    whole = torch.arange(120).reshape(4, 5, 6).to(dtype)
    for tensor in (whole, whole.permute(2, 0, 1), whole[1:, ::2], whole[0, 0, 0], whole[:0], whole[:1].expand(3, 5, 6)):
        arrived = helper.loads(helper.dumps({"here": [tensor]}))["here"][0]
        assert arrived.dtype == dtype
        assert torch.equal(arrived, tensor)
        if tensor.is_contiguous() or tensor.shape == (6, 4, 5) or not tensor.numel():
            assert arrived.stride() == tensor.stride()


def usual(trial: Trial, seconds: Callable[[int], float], batches: int, most: int = 4) -> int:
    """How many take part most often in the last batches of many."""
    chosen = []
    for _ in range(batches):
        num = trial.choose(most)
        trial.note(seconds(num))
        chosen.append(num)
    last = chosen[-50:]
    return max(set(last), key=last.count)


def test_as_many_take_part_as_pay_and_that_is_found_out_again_when_it_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    trial = Trial()
    assert usual(trial, lambda num: 1 / (1 + num), 300) == 4
    assert usual(trial, lambda num: 1 + num, 600) == 0
    assert usual(trial, lambda num: abs(num - 2) + 1.0, 600) == 2
    assert usual(trial, lambda num: 1 / (1 + num), 600) == 4


def test_trials_are_rare_where_nothing_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    trial, chosen = Trial(), []
    for _ in range(2000):
        chosen.append(trial.choose(1))
        trial.note(2.0 - chosen[-1])
    assert chosen.count(0) < 20 * ROUNDS


def test_there_are_as_many_processes_as_cores_for_them_or_as_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pools, "num_cores", lambda: 6)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    assert num_processes("auto") == 3
    assert num_processes(5) == 5
    assert num_processes("auto", "cuda") == num_processes("auto", together=2) == num_processes(1, together=2) == 1
    with pytest.raises(UserError, match="processes must be auto or 1 where 4 processes share the job, got 2"):
        num_processes(2, together=4)
    with pytest.raises(UserError, match="processes must be auto or 1 where device is cuda, got 3"):
        num_processes(3, "cuda")
