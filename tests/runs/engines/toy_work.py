"""Work that counts, for engines to run in whatever process they like."""

from __future__ import annotations

import json
import os
import resource
import signal
import time
from collections.abc import Generator
from typing import Any

from raptor.core.atomic import Store
from raptor.core.errors import UserError
from raptor.runs.engines import Report, Stop

Reports = Generator[Report, None, "dict[str, Any] | None"]


def count(task: dict, store: Store, device: str, stop: Stop) -> Reports:
    """Add up `task["step"]` from where an earlier attempt came to, with a checkpoint after each step.

    At the number that they name: `killed_at` kills the process, once; `refused_at` raises a UserError; `crashed_at`
    raises something else; `wait_at` waits until the work is asked to stop; `lost_at` waits too, but in the first
    attempt only.
    """
    found = store.get("checkpoint.json")
    state = json.loads(found) if found else {"number": 0, "sum": 0.0, "attempts": 0}
    state["attempts"] += 1
    yield {"from": state["number"], "pid": os.getpid(), "parent": os.getppid()}
    while state["number"] < task["until"]:
        if stop():
            return None
        if state["number"] == task.get("wait_at") or (state["number"], state["attempts"]) == (task.get("lost_at"), 1):
            time.sleep(0.02)
            continue
        state["number"] += 1
        state["sum"] += 0.1 * task["step"] * state["number"]
        store["checkpoint.json"] = json.dumps(state).encode()
        yield {"number": state["number"]}
        if state["number"] == task.get("killed_at") and state["attempts"] == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        if state["number"] == task.get("refused_at"):
            raise UserError(f"step must be even, got {task['step']}")
        if state["number"] == task.get("crashed_at"):
            raise ZeroDivisionError("a mistake in the work")
    return {"sum": state["sum"], "device": device}


def kill_itself(task: dict, store: Store, device: str, stop: Stop) -> Reports:
    """Never come to an end."""
    yield {"attempt": 1}
    os.kill(os.getpid(), signal.SIGKILL)
    return {}


def describe_process(task: dict, store: Store, device: str, stop: Stop) -> Reports:
    """Where the work runs."""
    import torch

    yield {}
    return {"pid": os.getpid(), "threads": torch.get_num_threads(), "device": device}


def write_much(task: dict, store: Store, device: str, stop: Stop) -> Reports:
    """Write and read back a large file and an empty one, and remove another, without a word in between."""
    content = bytes(range(256)) * (task["size"] // 256) + b"end"
    earlier = store.pop("earlier.bin", None)
    store["much.bin"] = content
    store["empty.bin"] = b""
    yield from ()
    same = store.get("much.bin") == content
    return {"same": same, "empty": store.get("empty.bin") == b"", "earlier": earlier and len(earlier)}


def write_blindly(task: dict, store: Store, device: str, stop: Stop) -> Reports:
    """Write without looking for what is there."""
    store["checkpoint.json"] = b"{}"
    yield from ()
    return {}


def write_outside(task: dict, store: Store, device: str, stop: Stop) -> Reports:
    """Write to a name that is none of the task's."""
    store[task["name"]] = b""
    yield from ()
    return {}


def write_to_full_disk(task: dict, store: Store, device: str, stop: Stop) -> Reports:
    """Write more than the system lets this process write to a file."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        store["checkpoint.json"] = b"0" * 5000
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    yield from ()
    return {}
