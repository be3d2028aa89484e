"""Validation: how well a student flies vehicles that no job trains on, in episodes that are always the same."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import torch

from raptor.core.distributed import ALONE, World
from raptor.formats.checkpoint import StudentPolicy
from raptor.quadrotor.sampling import Distribution, sample_quadrotors
from raptor.rl.student_flights import StudentTest
from raptor.tasks.disturbance import Disturbances
from raptor.tasks.initial_state import InitialStates
from raptor.tasks.reference import Lissajous
from raptor.tasks.task import Task

TRAINING_SEEDS, VALIDATION_SEED = 1_000_000, 2_000_000
"""Where the seeds of training begin, and the seed of validation vehicles."""

NUM_RECORDED = 4


def validation_task(task: Task) -> Task:
    """What validation draws its episodes from: RAPTOR's starts, half hover and half Langevin walk.

    Sensors and delays are those of `task`: a policy that is to live with them is chosen with them.
    """
    references = dataclasses.replace(
        task.references, langevin_share=0.5, lissajous_share=0.0, lissajous=Lissajous(), way_points_share=0.0
    )
    return dataclasses.replace(task, initial_states=InitialStates(), references=references, disturbances=Disturbances())


class Validation:
    """Flies students through one episode of each validation vehicle, in one batch.

    Args:
        task: whose sensors and delays the student lives with, see `validation_task`.
        num: vehicles.
        device: where they fly.
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
        self.compile, self.world = compile, world

    def __call__(self, policy: StudentPolicy) -> dict[str, float]:
        """Mean and standard deviation of the return, mean length, and rate of terminations."""
        test = StudentTest(self.task, self.vehicles, VALIDATION_SEED, self.compile, 0, self.world)
        episodes = test(policy.tensors())
        return {
            "mean_return": episodes.returns.mean().item(),
            "std_return": episodes.returns.std(correction=0).item(),
            "mean_length": episodes.lengths.mean().item(),
            "termination_rate": episodes.terminated.float().mean().item(),
        }

    def record(self, policy: StudentPolicy, path: Path) -> None:
        """Write a video of the first vehicles' episodes."""
        from raptor.viewer.videos import film

        vehicles = self.vehicles[:NUM_RECORDED]
        track = StudentTest(self.task, vehicles, VALIDATION_SEED, self.compile, NUM_RECORDED)(policy.tensors()).track
        assert track is not None
        film(path, track.position, track.orientation, track.target, self.task.dt, flying=track.flying)
