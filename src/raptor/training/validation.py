"""Validation: how good a policy is with vehicles that no job trains on, in episodes that are always the same."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import torch

from raptor.core.distributed import ALONE, World
from raptor.environments.collectors import Episodes, Recorder
from raptor.environments.rollout import VEHICLES_AT_ONCE, controller_of, rollout
from raptor.formats.checkpoint import StudentPolicy
from raptor.quadrotor.around import Around, draw_vehicles
from raptor.quadrotor.parameters import Quadrotors
from raptor.quadrotor.population import Distribution
from raptor.tasks.initial_state import Disturbances, InitialStates
from raptor.tasks.reference import Lissajous
from raptor.tasks.task import Task

TRAINING_SEEDS, VALIDATION_SEED = 1_000_000, 2_000_000
"""Where the seeds of training begin, and the seed of validation vehicles."""

NUM_RECORDED = 4


def validation_task(task: Task) -> Task:
    """What validation draws its episodes from: RAPTOR's starts, half hover and half Langevin walk.

    A trajectory keeps its share of the episodes, which the others divide the rest of.

    Sensors and delays are those of `task`: a policy that meets them is chosen with them.
    """
    task = task.simplified
    references = dataclasses.replace(
        task.references, langevin_share=0.5, lissajous_share=0.0, lissajous=Lissajous(), way_points_share=0.0
    )
    return dataclasses.replace(task, initial_states=InitialStates(), references=references, disturbances=Disturbances())


@dataclasses.dataclass
class Validation:
    """Rolls a policy out for one episode of each validation vehicle."""

    task: Task  # whose sensors and delays the policy meets, see `validation_task`
    num: int  # vehicles
    _: dataclasses.KW_ONLY
    device: torch.device | str = "cpu"
    compile: bool = True  # False runs eagerly
    distribution: Distribution | Around | None = None  # that the vehicles are drawn from
    episode_steps: int | None = None  # longest episode; that of the task by default
    world: World = ALONE  # the processes that share the rollouts

    def __post_init__(self) -> None:
        flown = validation_task(self.task)
        self.task = dataclasses.replace(flown, episode_steps=self.episode_steps or flown.episode_steps)
        generator = torch.Generator().manual_seed(VALIDATION_SEED)
        self.vehicles = draw_vehicles(self.distribution or Distribution(), self.num, generator, self.device)
        self.world = self.world if self.num >= self.world.size else ALONE

    def __call__(self, policy: StudentPolicy) -> dict[str, float]:
        """Mean and standard deviation of the return, mean length, and rate of terminations."""
        device = self.vehicles.device
        most = VEHICLES_AT_ONCE.get(device.type, VEHICLES_AT_ONCE["cpu"])
        at_once = math.ceil(self.num / math.ceil(self.num / most))
        generator = torch.Generator(device).manual_seed(VALIDATION_SEED)
        parts = [
            self._fly(policy, self.vehicles[first : first + at_once], generator, world=self.world, pad_to=at_once)
            for first in range(0, self.num, at_once)
        ]
        return Episodes(*(torch.cat(tensors) for tensors in zip(*parts, strict=True))).figures()

    def record(self, policy: StudentPolicy, path: Path) -> None:
        """Write a video of the first vehicles' episodes, by this process alone."""
        from raptor.viewer.videos import write_video

        recorder, generator = Recorder(self.task.dt), torch.Generator(self.vehicles.device).manual_seed(VALIDATION_SEED)
        self._fly(policy, self.vehicles[:NUM_RECORDED], generator, watch=recorder)
        write_video(path, recorder.recording)

    def _fly(self, policy: StudentPolicy, vehicles: Quadrotors, generator: torch.Generator, **options: Any) -> Episodes:
        controller = controller_of(policy, len(vehicles))
        return rollout(*controller, self.task, vehicles, generator, compile=self.compile, **options)[0]
