"""Devices: by name, their memory, the facts about this machine that belong to a result, and CUDA graphs."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import platform
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch

from raptor.core.errors import UserError, first_line

WARM_UP_CALLS = 3


def find_device(name: torch.device | str) -> torch.device:
    """The device of that name; a `UserError` if it is not on this machine."""
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
    processor = platform.processor() or platform.machine()
    with contextlib.suppress(OSError, StopIteration), open("/proc/cpuinfo", encoding="utf-8") as file:
        processor = next(line for line in file if line.startswith("model name")).split(":", 1)[1].strip()
    facts: dict[str, Any] = {
        "processor": processor,
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "raptor-python": importlib.metadata.version("raptor-python"),
        "device": device,
    }
    return facts | ({"gpu": torch.cuda.get_device_name(device)} if torch.device(device).type == "cuda" else {})


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


class CapturedGraph:
    """A function without arguments whose kernels a GPU records after its first calls, and replays at all later ones.

    Small kernels take less time than launching them. A graph reads and writes the memory of its recording: the function
    must work in place on tensors that stay where they are, transfer nothing to the host, and do the same at each call.
    On other devices, and where it is not enabled, it is simply called. The generators that it draws from go on from
    replay to replay.
    """

    def __init__(
        self,
        function: Callable[[], None],
        device: torch.device | str,
        generators: Sequence[torch.Generator] = (),
        enabled: bool = True,
    ) -> None:
        self._function, self._generators = function, tuple(generators)
        self._enabled = enabled and torch.device(device).type == "cuda"
        self._calls = 0
        self._graph: torch.cuda.CUDAGraph | None = None

    def __call__(self) -> None:
        """Call or replay the function."""
        if self._graph is not None:
            self._graph.replay()
            return
        self._calls += 1
        if not self._enabled or self._calls <= WARM_UP_CALLS:  # what is compiled, is compiled now
            self._function()
            return
        try:
            graph = torch.cuda.CUDAGraph()
            for generator in self._generators:
                graph.register_generator_state(generator)
            torch.cuda.synchronize()
            with torch.cuda.graph(graph):
                self._function()
            self._graph = graph
            graph.replay()  # recording itself does nothing
        except RuntimeError as error:
            self._enabled = False
            warnings.warn(
                f"the training loop is launched step by step, because it cannot be recorded: {first_line(error)}",
                stacklevel=2,
            )
            torch.cuda.synchronize()
            self._function()
