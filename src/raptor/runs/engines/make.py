"""From settings to an engine."""

from __future__ import annotations

import os

from raptor.runs.engines.config import EngineConfig
from raptor.runs.engines.engine import Engine, Workers


def make_engine(config: EngineConfig, device: str = "cpu") -> Engine:
    """Make the engine of that name, and see whether it can work.

    Args:
        config: which one, and its settings.
        device: where to compute: `cpu`, `cuda`, or `cuda:1` and so on.

    Raises:
        UserError: a device is not there, or the Ray cluster does not answer.
        MissingExtraError: Ray is not installed.
    """
    workers: Workers
    if config.name == "local":
        from raptor.runs.engines.local import LocalWorkers

        workers = LocalWorkers(device, config.threads_per_worker)
    elif config.name == "processes":
        from raptor.runs.engines.processes import ProcessWorkers

        workers = ProcessWorkers(_devices(config, device), config.threads_per_worker or 1)
    else:
        from raptor.runs.engines.ray_engine import RayWorkers

        workers = RayWorkers(config, device)
    return Engine(workers, config.retries)


def _devices(config: EngineConfig, device: str) -> tuple[str, ...]:
    """The device of each process."""
    import torch

    from raptor.core.devices import find_device

    if config.devices:
        return config.devices[: config.num_workers]
    kind = find_device(device).type
    if kind == "cpu":
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        return (device,) * (config.num_workers or max(1, cores // (config.threads_per_worker or 1)))
    if kind == "cuda" and ":" not in device:
        return tuple(f"cuda:{index}" for index in range(torch.cuda.device_count()))[: config.num_workers]
    return (device,) * (config.num_workers or 1)
