"""Segments of rollouts, through which the gradient flows: what is handed from step to step."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from raptor.environments.controllers import Memory
from raptor.environments.episode import Episode
from raptor.environments.rollout import Transition
from raptor.quadrotor.parameters import Quadrotors
from raptor.quadrotor.state import State, components, from_components
from raptor.rl.objective import Objective, step_cost

NUM_PHYSICAL = 6
"""The first of the differentiable tensors are the five of the state and the previous action."""


class RolloutState(NamedTuple):
    """What is handed from step to step of a segment; the gradient flows through the first five fields.

    The leading shape (...) is (N,), or (T, B) where T networks act in B episodes each.
    """

    state: State
    previous_action: Tensor  # (..., 4)
    memory: Memory
    sensed: tuple[Tensor, ...]
    commanded: tuple[Tensor, ...]
    target_position: Tensor  # (..., 3)
    target_velocity: Tensor  # (..., 3)
    time: Tensor  # (...)
    walk: Tensor  # (..., 12)
    alive: Tensor  # (...) 1 while the vehicle is within bounds, 0 from the step on that it left them

    @property
    def differentiable(self) -> tuple[Tensor, ...]:
        """The tensors that the gradient flows through: state and previous action, memory, then the histories."""
        return tuple(pytree.tree_leaves(self[:5]))

    def with_differentiable(self, parts: Sequence[Tensor]) -> RolloutState:
        """The same with these tensors in place of `differentiable`."""
        begun = pytree.tree_unflatten(list(parts), pytree.tree_structure(self[:5]))
        return self._replace(**dict(zip(self._fields, begun, strict=False)))

    @classmethod
    def begin(cls, episode: Episode, memory: Memory) -> RolloutState:
        """The start of a segment: every vehicle where its episode stands, and alive."""
        reference = episode.reference
        return cls(
            state=episode.state,
            previous_action=episode.previous_action,
            memory=memory,
            sensed=episode.sensed,
            commanded=episode.commanded,
            target_position=reference.position,
            target_velocity=reference.velocity,
            time=reference.time,
            walk=reference.walk,
            alive=torch.ones_like(episode.noise_scale),
        )

    def into(self, episode: Episode) -> Episode:
        """The episode, moved on to where the segment stands."""
        reference = dataclasses.replace(
            episode.reference,
            position=self.target_position,
            velocity=self.target_velocity,
            time=self.time,
            walk=self.walk,
        )
        return dataclasses.replace(
            episode,
            state=self.state,
            reference=reference,
            previous_action=self.previous_action,
            last_action=self.previous_action,
            sensed=self.sensed,
            commanded=self.commanded,
        )


class Segment(NamedTuple):
    """What came of S steps of N vehicles; the leading shape (...) in place of N."""

    episode: Episode  # where it ended
    memory: Memory  # where it ended
    alive: Tensor  # (N,) 1 where the vehicle stayed within bounds, else 0
    cost: Tensor  # (S, N)
    reward: Tensor  # (S, N)
    terminated: Tensor  # (S, N) bool; whether this step is one that would have ended the episode


def in_bounds(quadrotors: Quadrotors, state: State) -> Tensor:
    """1 where a vehicle is worth learning from: within 1.5 times its box, below 40 rad/s and 20 m/s; 0 elsewhere."""
    within = torch.ones_like(quadrotors.mass, dtype=torch.bool)
    for x in components(state.position):
        within = within & (x.abs() <= 1.5 * quadrotors.position_threshold)
    for v in components(state.linear_velocity):
        within = within & (v.abs() <= 20.0)
    for w in components(state.angular_velocity):
        within = within & (w.abs() <= 40.0)
    return within.to(quadrotors.mass.dtype)


def _keep(alive: Tensor, new: Tensor, old: Tensor) -> Tensor:
    going = alive > 0
    return from_components([torch.where(going, n, o) for n, o in zip(components(new), components(old), strict=True)])


def advance_segment(
    objective: Objective, quadrotors: Quadrotors, flight: RolloutState, before: Episode, transition: Transition
) -> tuple[RolloutState, Tensor]:
    """The segment after a step from the episode `before`, and the cost (...) of the step.

    A vehicle that leaves its bounds stays where it was from then on, at no cost.
    """
    after = transition.episode
    cost = step_cost(objective, quadrotors, before, transition.action, after)
    alive = flight.alive * in_bounds(quadrotors, after.state)
    kept = (_keep(alive, new, old) for new, old in zip(after.state.parts(), flight.state.parts(), strict=True))
    moved = RolloutState(
        state=State(*kept),
        previous_action=after.previous_action,
        memory=transition.memory,
        sensed=tuple(_keep(alive, new, old) for new, old in zip(after.sensed, flight.sensed, strict=True)),
        commanded=after.commanded,
        target_position=after.reference.position,
        target_velocity=after.reference.velocity,
        time=after.reference.time,
        walk=after.reference.walk,
        alive=alive,
    )
    return moved, torch.where(alive > 0, cost, 0.0)
