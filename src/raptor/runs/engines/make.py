"""From settings to an engine."""

from __future__ import annotations

import os

from raptor.runs.engines.config import EngineConfig
from raptor.runs.engines.engine import Engine
from raptor.runs.engines.local import LocalEngine
from raptor.runs.engines.processes import ProcessEngine


def make_engine(config: EngineConfig, device: str = "cpu") -> Engine:
    """Make the engine of that name, and see whether it can work.

    Args:
        config: which one, and its settings.
        device: where to compute: `cpu`, `cuda`, or `cuda:1` and so on.

    Raises:
        UserError: a device is not there, or the Ray cluster does not answer.
        MissingExtraError: Ray is not installed.
    """
    threads = config.threads_per_worker
    if config.name == "local":
        return LocalEngine(device, threads)
    if config.name == "processes":
        return ProcessEngine(_places(config, device), threads or 1, config.retries)
    from raptor.runs.engines.ray_engine import RayEngine

    return RayEngine(
        address=config.address,
        gpus_per_task=config.gpus_per_task or float(device.startswith("cuda")),
        cpus_per_task=config.cpus_per_task,
        threads=threads or 1,
        retries=config.retries,
        num_workers=config.num_workers,
    )


def _places(config: EngineConfig, device: str) -> tuple[str, ...]:
    """The device of each process."""
    import torch

    from raptor.core.devices import find_device

    if config.devices:
        return config.devices[: config.num_workers]
    kind = find_device(device).type
    if kind == "cpu":
        return (device,) * (config.num_workers or max(1, _cores() // (config.threads_per_worker or 1)))
    if kind == "cuda" and ":" not in device:
        return tuple(f"cuda:{index}" for index in range(torch.cuda.device_count()))[: config.num_workers]
    return (device,) * (config.num_workers or 1)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
