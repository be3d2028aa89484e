"""Settings of the engine."""

from __future__ import annotations

import dataclasses
from typing import ClassVar, Literal

from raptor.config.settings import Settings, at_least, not_negative, optional, positive, setting


@dataclasses.dataclass(frozen=True)
class EngineConfig(Settings):
    """Where the shards of a population are computed. `engine=ray` is short for `engine.name=ray`."""

    SHORTHAND: ClassVar[str] = "name"

    name: Literal["local", "processes", "ray"] = setting(
        "local", "in this process, in one for each device, on a Ray cluster"
    )
    address: str = setting(
        "auto", "ray: auto finds the cluster that this machine is part of; host:port; local starts one here"
    )
    devices: tuple[str, ...] = setting(
        (), "processes: one for each, [cuda:0,cuda:1]; empty: all of the kind of `device`"
    )
    num_workers: int | None = setting(
        None, "most tasks at once; null: one for each core, or GPU, or what Ray has room for", optional(at_least(1))
    )
    threads_per_worker: int | None = setting(
        None, "the same number gives the same rounding everywhere; null: 1, local: torch's", optional(at_least(1))
    )
    retries: int = setting(3, "how often a task that loses its worker is started again", at_least(0))
    cpus_per_task: float = setting(1.0, "ray: cores that a task reserves", positive)
    gpus_per_task: float = setting(
        0.0, "ray: GPUs that a task reserves, 0.5 lets two share one; 0 with device=cuda means 1", not_negative
    )
