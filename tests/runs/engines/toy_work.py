"""Work that counts, for engines to carry out in whatever process they like."""

from __future__ import annotations

import json
import os
import resource
import signal
import time

from raptor.core.errors import UserError
from raptor.runs.engines import Workplace


def count(task: dict, workplace: Workplace) -> dict | None:
    """Add up `task["step"]` from where an earlier attempt came to, with a checkpoint after each step.

    At the number that they name: `killed_at` kills the process, once; `refused_at` raises a UserError; `crashed_at`
    raises something else; `wait_at` waits until the work is asked to stop; `lost_at` waits too, but in the first
    attempt only.
    """
    found = workplace.read("checkpoint.json")
    state = json.loads(found) if found else {"number": 0, "sum": 0.0, "attempts": 0}
    state["attempts"] += 1
    workplace.report({"from": state["number"], "pid": os.getpid(), "parent": os.getppid()})
    while state["number"] < task["until"]:
        if workplace.stop_requested():
            return None
        if state["number"] == task.get("wait_at") or (state["number"], state["attempts"]) == (task.get("lost_at"), 1):
            time.sleep(0.02)
            continue
        state["number"] += 1
        state["sum"] += 0.1 * task["step"] * state["number"]
        workplace.write("checkpoint.json", json.dumps(state).encode())
        workplace.report({"number": state["number"]})
        if state["number"] == task.get("killed_at") and state["attempts"] == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        if state["number"] == task.get("refused_at"):
            raise UserError(f"step must be even, got {task['step']}")
        if state["number"] == task.get("crashed_at"):
            raise ZeroDivisionError("a mistake in the work")
    return {"sum": state["sum"], "device": workplace.device}


def kill_itself(task: dict, workplace: Workplace) -> dict:
    """Never come to an end."""
    workplace.report({"attempt": 1})
    os.kill(os.getpid(), signal.SIGKILL)
    return {}


def describe_process(task: dict, workplace: Workplace) -> dict:
    """Where the work runs."""
    import torch

    return {"pid": os.getpid(), "threads": torch.get_num_threads(), "device": workplace.device}


def write_much(task: dict, workplace: Workplace) -> dict:
    """Write and read back more than travels in one piece."""
    content = bytes(range(256)) * (task["size"] // 256) + b"end"
    workplace.write("much.bin", content)
    workplace.write("empty.bin", b"")
    return {"same": workplace.read("much.bin") == content, "empty": workplace.read("empty.bin") == b""}


def write_blindly(task: dict, workplace: Workplace) -> dict:
    """Write without looking for what is there."""
    workplace.write("checkpoint.json", b"{}")
    return {}


def write_to_full_disk(task: dict, workplace: Workplace) -> dict:
    """Write more than the system lets this process write to a file."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        workplace.write("checkpoint.json", b"0" * 5000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    return {}
