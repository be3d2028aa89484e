"""Validation of a policy that is trained through the simulator's gradient: whole episodes, flown in segments."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from raptor.core.distributed import Parts, cut
from raptor.environments.episode import Episode, Noise, draw_noise
from raptor.formats.checkpoint import StudentPolicy
from raptor.quadrotor.parameters import Quadrotors
from raptor.rl.analytic_policy_gradient import SegmentGradient
from raptor.tasks.task import Task


class _Flights(NamedTuple):
    """Where the episodes of a part stand."""

    quadrotors: Quadrotors
    episode: Episode
    memory: tuple[Tensor, ...]
    flying: Tensor  # (N,) 1 until the episode is over, then 0
    returns: Tensor  # (N,)
    lengths: Tensor  # (N,) steps

    def moved(self, segments: SegmentGradient, policy: StudentPolicy, noise: list[Noise]) -> _Flights:
        """After one step for each entry of `noise`."""
        segment = segments.fly(policy.tensors(), self.quadrotors, self.episode, self.memory, noise)
        flying = self.flying
        # A step counts as long as no step before it ended the episode.
        going = flying * torch.cat(
            [torch.ones_like(flying)[None], (~segment.terminated[:-1]).to(flying.dtype).cumprod(0)]
        )
        return _Flights(
            self.quadrotors,
            segment.episode,
            segment.memory,
            going[-1] * (~segment.terminated[-1]).to(flying.dtype),
            self.returns + (going * segment.reward).sum(0),
            self.lengths + going.sum(0),
        )


def fly_validation(
    segments: SegmentGradient,
    policy: StudentPolicy,
    task: Task,
    begun: tuple[Quadrotors, Episode, tuple[Tensor, ...]],
    generator: torch.Generator,
    segment_steps: int,
    parts: Parts,
) -> Tensor:
    """Fly one episode with each of N vehicles.

    Args:
        segments: flies them.
        policy: who acts.
        task: its length and its sensors.
        begun: the vehicles, their episodes at the start, and what the policy remembers there.
        generator: of the noise.
        segment_steps: of a segment.
        parts: how the vehicles are cut.

    Returns:
        (3, N): return, 1 where the episode ended before its time and 0 elsewhere, and length.
    """
    like = begun[0].mass
    own, flights = parts.own(len(like)), []
    for places in own:
        there = cut(begun, places)
        zero = torch.zeros_like(there[0].mass)
        flights.append(_Flights(*there, torch.ones_like(zero), zero, zero))
    for first in range(0, task.episode_steps, segment_steps):
        noise = draw_noise(task, like, generator, min(segment_steps, task.episode_steps - first))
        flights = [part.moved(segments, policy, cut(noise, places)) for part, places in zip(flights, own, strict=True)]
    return torch.stack(parts.gather([[part.returns, 1 - part.flying, part.lengths] for part in flights], len(like)))
