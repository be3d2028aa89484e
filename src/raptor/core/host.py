"""Facts about this machine that belong to a result."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import platform
from collections.abc import Iterator
from typing import Any

import torch

from raptor.core.errors import UserError


def host(device: str) -> dict[str, Any]:
    """Processor, cores, threads, system and versions."""
    facts: dict[str, Any] = {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "raptor-python": importlib.metadata.version("raptor-python"),
        "device": device,
    }
    if torch.device(device).type == "cuda":
        facts["gpu"] = torch.cuda.get_device_name(device)
    return facts


def gpu_use(device: str) -> dict[str, float]:
    """How a GPU is used, for the metrics of a job: most memory taken so far, and utilisation where it can be told."""
    if torch.device(device).type != "cuda":
        return {}
    use = {"speed/gpu_memory_gib": torch.cuda.max_memory_allocated(device) / 2**30}
    with contextlib.suppress(Exception):  # whatever its library raises where it is missing
        use["speed/gpu_utilisation"] = torch.cuda.utilization(device) / 100
    return use


@contextlib.contextmanager
def memory_explained(what: str) -> Iterator[None]:
    """Turn an allocation that fails into an error that says what to make smaller."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        known = isinstance(error, (MemoryError, torch.OutOfMemoryError))
        if not known and not any(words in str(error) for words in ("can't allocate memory", "overflow")):
            raise
        raise UserError(f"{what} does not fit into memory: take a smaller one") from error


def _processor() -> str:
    with contextlib.suppress(OSError), open("/proc/cpuinfo", encoding="utf-8") as file:
        for line in file:
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
