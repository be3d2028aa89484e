"""What a segment of a rollout is: what its steps hand on, what each depends on, and what comes of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from raptor.environments.episode import Episode
from raptor.environments.rollout import Memory
from raptor.quadrotor.parameters import Quadrotors


class RolloutState(NamedTuple):
    """What is handed from step to step. The leading shape (...) is (N,), or (T, B): T networks in B episodes each."""

    episode: Episode
    memory: Memory
    alive: Tensor  # (...) 1 while the vehicle is within bounds, 0 from the step on that it left them

    @classmethod
    def begin(cls, episode: Episode, memory: Memory) -> RolloutState:
        """The start of a segment: every vehicle where its episode stands, and alive."""
        return cls(episode, memory, torch.ones_like(episode.noise_scale)).acting()

    def acting(self, last_action: Tensor | None = None) -> RolloutState:
        """The same where the reward compares the next action with this one, by default the previous one."""
        last_action = self.episode.previous_action if last_action is None else last_action
        return self._replace(episode=dataclasses.replace(self.episode, last_action=last_action))

    @property
    def _differentiable(self) -> tuple[Any, ...]:
        episode = self.episode
        own = episode.own[:3]
        return episode.state, episode.previous_action, self.memory, episode.sensed, episode.commanded, own

    @property
    def differentiable(self) -> tuple[Tensor, ...]:
        """The tensors that the gradient flows through: state, previous action, memory, histories, what is `own`."""
        return tuple(pytree.tree_leaves(self._differentiable))

    @property
    def moving(self) -> tuple[Tensor, ...]:
        """The tensors that each step replaces."""
        target = self.episode.reference
        replaced = target.position, target.velocity, target.time, target.walk
        return (*self.differentiable, *replaced, *(h for course in target.course for h in course.heading), self.alive)

    def with_differentiable(self, parts: Sequence[Tensor]) -> RolloutState:
        """The same with these tensors in place of `differentiable`."""
        structure = pytree.tree_structure(self._differentiable)
        state, previous, memory, sensed, commanded, own = pytree.tree_unflatten(list(parts), structure)
        changes = {"state": state, "previous_action": previous, "sensed": sensed, "commanded": commanded}
        changes["own"] = self.episode.own._replace(observation=own[0], past=own[1], memory=own[2])
        return self._replace(episode=dataclasses.replace(self.episode, **changes), memory=memory)


class Segment(NamedTuple):
    """What came of S steps; first the `RolloutState` where they ended."""

    episode: Episode
    memory: Memory
    alive: Tensor  # (...) 1 where the vehicle stayed within bounds, else 0
    cost: Tensor  # (S, ...)
    reward: Tensor  # (S, ...)
    terminated: Tensor  # (S, ...) bool; whether this step is one that would have ended the episode


class StepInputs(NamedTuple):
    """Everything that one step depends on."""

    parameters: Any  # of the controller, in any nesting
    quadrotors: Quadrotors  # (...) in component-major layout
    rollout: RolloutState  # (...) before the step
    noise: tuple[Tensor, ...]  # the fields of `Noise` that the task needs
