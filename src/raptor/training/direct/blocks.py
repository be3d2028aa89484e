"""Blocks of a batch: a segment of some vehicles and its gradient, as a pure function that any process can compute."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from raptor.core.distributed import blocks_of
from raptor.environments.episode import Episode, Noise, draw_noise
from raptor.environments.rollout import Memory
from raptor.quadrotor.parameters import Quadrotors
from raptor.rl.analytic_policy_gradient import SegmentGradient
from raptor.rl.objective import TeacherGuide
from raptor.tasks.task import Task

VEHICLES = {"cpu": 512, "cuda": 65536}
"""Most vehicles whose noise is drawn together, by type of device; on a CPU also most that are flown together."""


class Places(NamedTuple):
    """Some places of a batch at an update, and the seed of its noise."""

    first: int
    last: int  # after the last one
    num: int  # of the whole batch
    update: int
    seed: int

    def noise(self, task: Task, like: Tensor, num_steps: int) -> list[Noise]:
        """The noise of these places, for so many steps, in the type and on the device of `like`.

        Fixed stretches of the batch have generators of their own: nobody draws what others fly, and the numbers do not
        depend on how the batch is cut.
        """
        drawn = []
        for number, lot in enumerate(blocks_of(self.num, VEHICLES.get(like.device.type, VEHICLES["cpu"]))):
            first, last = max(self.first, lot.start), min(self.last, lot.stop)
            if first < last:
                seed = int(np.random.SeedSequence([self.seed, self.update, number]).generate_state(1)[0])
                generator = torch.Generator(like.device).manual_seed(seed)
                noise = draw_noise(task, like.new_empty(lot.stop - lot.start), generator, num_steps)
                own = slice(first - lot.start, last - lot.start)
                drawn.append(noise if own == slice(0, lot.stop - lot.start) else [_part(step, own) for step in noise])
        return drawn[0] if len(drawn) == 1 else [_joined(steps) for steps in zip(*drawn, strict=True)]


def _part(noise: Noise, own: slice) -> Noise:
    return Noise(*[draw if draw is None else draw.mT[:, own].contiguous().mT for draw in noise])  # type: ignore[arg-type]


def _joined(noises: tuple[Noise, ...]) -> Noise:
    columns = [*zip(*noises, strict=True)]
    return Noise(*[None if draws[0] is None else torch.cat([draw.mT for draw in draws], 1).mT for draws in columns])  # type: ignore[arg-type]


class Flown(NamedTuple):
    """What comes of a segment of a block."""

    means: list[Tensor]  # gradient by the parameters, cost and reward, over vehicles and steps
    end: tuple[Episode, Memory, Tensor, Tensor]  # with (N,) 1 or 0: is within bounds; would have ended its episode


@dataclasses.dataclass(eq=False)
class BlockGradient:
    """Flies a segment of a block, and differentiates it; another process makes it anew from what it is pickled as."""

    gradient: SegmentGradient
    num_steps: int

    def __call__(
        self,
        parameters: Any,
        quadrotors: Quadrotors,
        episode: Episode,
        memory: Memory,
        places: Places,
        guide: TeacherGuide | None,
    ) -> Flown:
        """Fly from `episode` and `memory` on, pulled by the teachers of a guide, if any."""
        noise = places.noise(self.gradient.task, quadrotors.mass, self.num_steps)
        gradient, segment = self.gradient(parameters, quadrotors, episode, memory, noise, guide)
        means = [*gradient, segment.cost.mean(), segment.reward.clamp(min=-20).mean()]
        return Flown(means, (*segment[:3], segment.terminated.any(0).to(segment.alive.dtype)))

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "gradient": dataclasses.replace(self.gradient)}  # without what it has compiled
