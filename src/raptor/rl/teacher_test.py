"""Test of teachers, each on its own vehicle."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import torch
from torch import Tensor

from raptor.environments.collectors import Moment
from raptor.environments.episode import begin_episode
from raptor.environments.rollout import BLOCK_STEPS, Teachers, rollout
from raptor.nn.activations import RELU_TANH, Activations
from raptor.nn.stacked_mlp import Layers, laid_out
from raptor.quadrotor.parameters import Quadrotors
from raptor.quadrotor.state import component_major, components, from_components
from raptor.rl.collection import grid
from raptor.tasks.task import Task


class TeacherEpisodes(NamedTuple):
    """What came of B episodes of each of T teachers."""

    returns: Tensor  # (T, B) sum of rewards up to and including the step that ended the episode
    terminated: Tensor  # (T, B) bool; whether the episode ended before its time
    lengths: Tensor  # (T, B) steps
    position_offset: Tensor  # (T, 3) m, world; mean position in the second half of episodes that hold the origin


class _MeanPosition(NamedTuple):
    """Collector of positions, those of an episode that is over being its last."""

    first: Tensor  # (T, B) number of the first step that counts
    position: Tensor  # (T, B, 3) m; where the vehicle is, or was when its episode ended
    total: Tensor  # (T, B, 3) m

    def add(self, moment: Moment) -> _MeanPosition:
        counted, going = (moment.step >= self.first).to(self.first.dtype), moment.flying > 0
        reached = zip(components(moment.after.state.position), components(self.position), strict=True)
        position = [torch.where(going & new.isfinite(), new, old) for new, old in reached]
        total = [s + counted * x for s, x in zip(components(self.total), position, strict=True)]
        return _MeanPosition(self.first, from_components(position), from_components(total))


@dataclasses.dataclass(frozen=True)
class TeacherTest:
    """Flies teachers through episodes that are the same at each call."""

    task: Task
    quadrotors: Quadrotors  # T
    num_episodes: int  # B, of each
    seed: int  # of the episodes
    compile: bool = True  # False runs eagerly
    activations: Activations = RELU_TANH  # of the teachers
    block_steps: int = BLOCK_STEPS  # see `raptor.environments.rollout`

    def __call__(self, layers: Layers) -> TeacherEpisodes:
        """Fly with the teachers `layers`, deterministically."""
        quadrotors, counted_from = grid(self.quadrotors, self.num_episodes), self.task.episode_steps // 2
        like, generator = quadrotors.mass, torch.Generator(quadrotors.device).manual_seed(self.seed)
        start = begin_episode(self.task, quadrotors, generator)
        position = component_major(start.state.position)
        episodes, (positions,) = rollout(
            Teachers(self.activations),
            laid_out(layers),
            (),
            self.task,
            quadrotors,
            generator,
            start=start,
            collectors=[_MeanPosition(torch.full_like(like, counted_from), position, 0 * position)],
            compile=self.compile,
            block_steps=self.block_steps,
        )
        holds_origin = (start.reference.langevin_sigma == 0) & (start.reference.amplitude == 0).all(-1)
        held = holds_origin.to(like.dtype).unsqueeze(-1)
        num_counted = held.sum(1).clamp(min=1) * (self.task.episode_steps - counted_from)
        offset = (held * positions.total).sum(1) / num_counted
        return TeacherEpisodes(episodes.returns, episodes.terminated, episodes.lengths, offset)
