"""From settings to an engine."""

from __future__ import annotations

import importlib.util
import os

from raptor.core.errors import MissingExtraError
from raptor.runs.engines.engine import Engine, EngineConfig
from raptor.runs.engines.machine import LocalWorkers, ProcessWorkers


def make_engine(config: EngineConfig, device: str = "cpu") -> Engine:
    """Make the engine of that name, and see whether it can work.

    Args:
        config: which one, and its settings.
        device: where to compute: `cpu`, `cuda`, or `cuda:1` and so on.

    Raises:
        UserError: a device is not there, or the Ray cluster does not answer.
        MissingExtraError: Ray is not installed.
    """
    if config.name == "ray":
        if importlib.util.find_spec("ray") is None:
            raise MissingExtraError("ray", "ray", "engine=ray")
        from raptor.runs.engines.ray_engine import RayWorkers

        return Engine(RayWorkers(config, device), config.retries)
    from raptor.core.devices import find_device  # not above: without torch, processes begin at once

    processes = config.name == "processes"
    for each in (processes and config.devices) or (device,):
        find_device(each)
    workers = (
        ProcessWorkers(_devices(config, device), config.threads_per_worker or 1)
        if processes
        else LocalWorkers(device, config.threads_per_worker)
    )
    return Engine(workers, config.retries)


def _devices(config: EngineConfig, device: str) -> tuple[str, ...]:
    """The device of each process."""
    import torch

    if config.devices:
        return config.devices[: config.num_workers]
    kind = device.partition(":")[0]
    if kind == "cpu":
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        return (device,) * (config.num_workers or max(1, cores // (config.threads_per_worker or 1)))
    if device == "cuda":
        return tuple(f"cuda:{index}" for index in range(torch.cuda.device_count()))[: config.num_workers]
    return (device,) * (config.num_workers or 1)
