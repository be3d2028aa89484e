"""Validation of a student that many teachers taught: flights with vehicles that none of them was trained on."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from raptor.core.distributed import ALONE, World
from raptor.formats.checkpoint import StudentPolicy
from raptor.quadrotor.sampling import sample_quadrotors
from raptor.rl.student_flights import StudentTest
from raptor.tasks.task import Task
from raptor.training.direct.config import VALIDATION_SEED, validation_task
from raptor.training.distillation.config import PostTrainConfig

FIGURES = ("mean_return", "std_return", "mean_length", "share_terminated")
NUM_FILMED = 4


class Validation:
    """Flies students through episodes that are the same at each call.

    Args:
        config: of the post-training.
        world: the processes that share the flights.
    """

    def __init__(self, config: PostTrainConfig, world: World = ALONE) -> None:
        self.config, self.world = config, world
        self.vehicles = sample_quadrotors(config.num_validation, seed=VALIDATION_SEED, device=config.device)

    def task(self, tuning: bool) -> Task:
        """What is flown: with the sensors of imitation, or with those that the student is fine-tuned for."""
        trained_in = self.config.tuning.task if tuning else self.config.flown_task
        return dataclasses.replace(validation_task(trained_in), episode_steps=self.config.validation_steps)

    def __call__(self, policy: StudentPolicy, tuning: bool) -> dict[str, float]:
        """The `FIGURES` of the flights."""
        compile = self.config.compile
        test = StudentTest(self.task(tuning), self.vehicles, VALIDATION_SEED, compile, 0, self.world)
        flights = test(policy.tensors())
        return {
            "mean_return": flights.returns.mean().item(),
            "std_return": flights.returns.std(correction=0).item(),
            "mean_length": flights.lengths.mean().item(),
            "share_terminated": flights.terminated.float().mean().item(),
        }

    def film(self, policy: StudentPolicy, tuning: bool, path: Path) -> None:
        """Write a film of the first vehicles' flights."""
        from raptor.viewer.videos import film

        task, vehicles = self.task(tuning), self.vehicles[:NUM_FILMED]
        track = StudentTest(task, vehicles, VALIDATION_SEED, self.config.compile, NUM_FILMED)(policy.tensors()).track
        assert track is not None
        film(path, track.position, track.orientation, track.target, task.dt, flying=track.flying)
