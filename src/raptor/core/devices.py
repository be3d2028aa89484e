"""Devices by name, their memory, and the facts about this machine that belong to a result."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import platform
from collections.abc import Iterator
from typing import Any

import torch

from raptor.core.errors import UserError, first_line


def find_device(name: torch.device | str) -> torch.device:
    """The device of that name.

    Raises:
        UserError: there is no such device on this machine.
    """
    available = " or ".join(["cpu", *(f"cuda:{index}" for index in range(torch.cuda.device_count()))])
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UserError(f"device must be {available}, got {str(name)!r}") from None
    try:
        torch.empty(1, device=device)
    except Exception as error:  # whatever the device's library raises
        why = first_line(error) if device.type != "cuda" or torch.cuda.is_available() else "no GPU is usable"
        raise UserError(f"device {str(name)!r} is not there ({why}): use {available}") from error
    return device


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


def _processor() -> str:
    with contextlib.suppress(OSError), open("/proc/cpuinfo", encoding="utf-8") as file:
        for line in file:
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def gpu_use(device: str) -> dict[str, float]:
    """Metrics of a GPU: peak memory so far, and utilisation where its library knows; none of other devices."""
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
