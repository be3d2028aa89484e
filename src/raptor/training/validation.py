"""Validation of a student on vehicles that no training flies."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import torch
from torch.utils import _pytree as pytree

from raptor.core.distributed import ALONE, World
from raptor.environments.collectors import Episodes, Recorder, Snapshot
from raptor.environments.controllers import controller_of
from raptor.environments.rollout import VEHICLES_AT_ONCE, rollout
from raptor.formats.checkpoint import StudentPolicy
from raptor.quadrotor.parameters import Quadrotors
from raptor.quadrotor.sampling import Distribution, sample_quadrotors
from raptor.tasks.task import Task
from raptor.training.direct.config import VALIDATION_SEED

FIGURES = ("mean_return", "std_return", "mean_length", "share_terminated")
NUM_RECORDED = 4


class Validation:
    """Flies students through episodes that are the same at each call.

    Args:
        num: validation vehicles, an episode each.
        device: of the simulation.
        compile: False runs eagerly.
        distribution: of the vehicles.
        world: the processes that share the vehicles.
    """

    def __init__(
        self,
        num: int,
        device: torch.device | str = "cpu",
        compile: bool = True,
        distribution: str | Distribution = "published",
        world: World = ALONE,
    ) -> None:
        self.vehicles = sample_quadrotors(num, VALIDATION_SEED, distribution=distribution, device=device)
        self._compile, self._world = compile, world if num >= world.size else ALONE

    def __call__(self, policy: StudentPolicy, task: Task) -> Episodes:
        """Episodes (N,) of the policy, so many at once as it pays to fly."""
        num, device = len(self.vehicles), self.vehicles.device
        at_once = math.ceil(num / math.ceil(num / VEHICLES_AT_ONCE.get(device.type, VEHICLES_AT_ONCE["cpu"])))
        generator = torch.Generator(device).manual_seed(VALIDATION_SEED)
        parts = [
            self._fly(policy, task, self.vehicles[first : first + at_once], generator, at_once)
            for first in range(0, num, at_once)
        ]
        return pytree.tree_map(lambda *tensors: torch.cat(tensors), *parts)

    def record(self, policy: StudentPolicy, task: Task, path: Path) -> None:
        """Write a video of the first vehicles, flown by this process alone."""
        from raptor.viewer.videos import write_video

        recorder, generator = Recorder(task.dt), torch.Generator(self.vehicles.device).manual_seed(VALIDATION_SEED)
        self._fly(policy, task, self.vehicles[:NUM_RECORDED], generator, None, recorder)
        write_video(path, recorder.recording)

    def _fly(
        self,
        policy: StudentPolicy,
        task: Task,
        vehicles: Quadrotors,
        generator: torch.Generator,
        pad_to: int | None,
        watch: Callable[[Snapshot], None] | None = None,
    ) -> Episodes:
        episodes, _ = rollout(
            *controller_of(policy, len(vehicles)),
            task,
            vehicles,
            generator,
            watch=watch,
            pad_to=pad_to,
            compile=self._compile,
            world=self._world if watch is None else ALONE,
        )
        return episodes


def figures(episodes: Episodes) -> dict[str, float]:
    """Means over the episodes, and how much their returns vary: the `FIGURES`."""
    return {
        "mean_return": episodes.returns.mean().item(),
        "std_return": episodes.returns.std(correction=0).item(),
        "mean_length": episodes.lengths.mean().item(),
        "share_terminated": episodes.terminated.float().mean().item(),
    }
