"""What is left when a whole run is interrupted from outside: checkpoints, and no process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks for processes in /proc")


def runs(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


@pytest.fixture
def run(tmp_path):
    """A run in its own process group whose two workers have come to 3, and the numbers of their processes."""
    command = [sys.executable, str(Path(__file__).with_name("interrupted_run.py")), str(tmp_path)]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    pids: list[int] = []
    at_three = 0
    while at_three < 2:
        line = process.stdout.readline()
        assert line, process.stderr.read()
        values = json.loads(line)
        pids += [values["pid"]] if "pid" in values else []
        at_three += values.get("number") == 3
    yield process, pids
    if any(map(runs, [process.pid, *pids])):
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_to_all_processes_at_once_stops_them_where_it_is_safe(run, number, tmp_path):
    process, pids = run
    os.killpg(process.pid, number)  # as a terminal does on Ctrl-C, and a batch system before its time limit
    _, complaints = process.communicate(timeout=60)
    assert (process.returncode, complaints) == (0, "")
    assert not any(map(runs, pids))
    for name in "ab":
        assert json.loads((tmp_path / name / "checkpoint.json").read_text())["number"] == 3
        assert not (tmp_path / name / "result.json").exists()


def test_workers_end_with_a_run_that_is_killed(run):
    process, pids = run
    assert all(map(runs, pids))
    process.kill()
    deadline = time.monotonic() + 30
    while any(map(runs, pids)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(runs, pids))
