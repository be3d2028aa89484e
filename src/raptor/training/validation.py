"""Validation: how good a policy is with vehicles that no job trains on, in episodes that are always the same."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import torch

from raptor.core.distributed import ALONE, World
from raptor.environments.collectors import Episodes, Recorder
from raptor.environments.controllers import controller_of
from raptor.environments.rollout import VEHICLES_AT_ONCE, rollout
from raptor.formats.checkpoint import StudentPolicy
from raptor.quadrotor.parameters import Quadrotors
from raptor.quadrotor.sampling import Distribution, sample_quadrotors
from raptor.tasks.initial_state import Disturbances, InitialStates
from raptor.tasks.reference import Lissajous
from raptor.tasks.task import Task

TRAINING_SEEDS, VALIDATION_SEED = 1_000_000, 2_000_000
"""Where the seeds of training begin, and the seed of validation vehicles."""

NUM_RECORDED = 4


def validation_task(task: Task) -> Task:
    """What validation draws its episodes from: RAPTOR's starts, half hover and half Langevin walk.

    Sensors and delays are those of `task`: a policy that meets them is chosen with them.
    """
    references = dataclasses.replace(
        task.references, langevin_share=0.5, lissajous_share=0.0, lissajous=Lissajous(), way_points_share=0.0
    )
    return dataclasses.replace(task, initial_states=InitialStates(), references=references, disturbances=Disturbances())


class Validation:
    """Rolls a policy out for one episode of each validation vehicle.

    Args:
        task: whose sensors and delays the policy meets, see `validation_task`.
        num: vehicles.
        device: of all tensors.
        compile: False runs eagerly.
        distribution: that the vehicles are drawn from.
        episode_steps: longest episode; that of the task by default.
        world: the processes that share the rollouts.
    """

    def __init__(
        self,
        task: Task,
        num: int,
        *,
        device: torch.device | str = "cpu",
        compile: bool = True,
        distribution: Distribution | None = None,
        episode_steps: int | None = None,
        world: World = ALONE,
    ) -> None:
        flown = validation_task(task)
        self.task = dataclasses.replace(flown, episode_steps=episode_steps or flown.episode_steps)
        drawn_from = Distribution() if distribution is None else distribution
        self.vehicles = sample_quadrotors(num, VALIDATION_SEED, distribution=drawn_from, device=device)
        self.compile, self.world = compile, world if num >= world.size else ALONE

    def __call__(self, policy: StudentPolicy) -> dict[str, float]:
        """Mean and standard deviation of the return, mean length, and rate of terminations."""
        num, device = len(self.vehicles), self.vehicles.device
        at_once = math.ceil(num / math.ceil(num / VEHICLES_AT_ONCE.get(device.type, VEHICLES_AT_ONCE["cpu"])))
        generator = torch.Generator(device).manual_seed(VALIDATION_SEED)
        parts = [
            self._fly(policy, self.vehicles[first : first + at_once], generator, self.world, pad_to=at_once)
            for first in range(0, num, at_once)
        ]
        return Episodes(*(torch.cat(tensors) for tensors in zip(*parts, strict=True))).figures()

    def record(self, policy: StudentPolicy, path: Path) -> None:
        """Write a video of the first vehicles' episodes, by this process alone."""
        from raptor.viewer.videos import write_video

        recorder, generator = Recorder(self.task.dt), torch.Generator(self.vehicles.device).manual_seed(VALIDATION_SEED)
        self._fly(policy, self.vehicles[:NUM_RECORDED], generator, ALONE, watch=recorder)
        write_video(path, recorder.recording)

    def _fly(
        self, policy: StudentPolicy, vehicles: Quadrotors, generator: torch.Generator, world: World, **options: Any
    ) -> Episodes:
        episodes, _ = rollout(
            *controller_of(policy, len(vehicles)),
            self.task,
            vehicles,
            generator,
            compile=self.compile,
            world=world,
            **options,
        )
        return episodes
