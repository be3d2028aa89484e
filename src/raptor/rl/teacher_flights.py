"""Flights of teachers, each with its own vehicle: what they are worth."""

from __future__ import annotations

import functools
from collections.abc import Hashable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from raptor.core.compilation import CompiledStep, Tensors
from raptor.environments.episode import Episode, Noise, advance, begin_episode, draw_noise
from raptor.nn.activations import RELU_TANH, Activations
from raptor.nn.stacked_mlp import Layers, laid_out
from raptor.quadrotor.parameters import Quadrotors
from raptor.quadrotor.state import component_major, components, from_components
from raptor.rl.collection import grid
from raptor.rl.flight import Teachers
from raptor.tasks.task import Task

STEPS_PER_DRAW = 50
"""Noise is drawn for so many steps at once."""


class TeacherFlights(NamedTuple):
    """What came of B episodes of each of T teachers."""

    returns: Tensor  # (T, B) sum of rewards up to and including the step that ended the episode
    terminated: Tensor  # (T, B) bool; whether the episode ended before its time
    lengths: Tensor  # (T, B) steps
    position_offset: Tensor  # (T, 3) m, world; mean position in the second half of episodes that hold the origin


class _Flight(NamedTuple):
    """What is carried from step to step."""

    layers: Layers
    quadrotors: Quadrotors
    episode: Episode
    flying: Tensor  # (T, B) 1 until the episode is over, then 0
    returns: Tensor  # (T, B)
    lengths: Tensor  # (T, B)
    position: Tensor  # (T, B, 3) m; where the vehicle is, or was when its episode ended
    position_sum: Tensor  # (T, B, 3) m


class TeacherTest:
    """Flies teachers through episodes that are the same at each call.

    Args:
        task: what is asked.
        quadrotors: T vehicles.
        num_episodes: B, for each of them.
        seed: of the episodes.
        compile: False runs eagerly.
        activations: of the teachers.
    """

    def __init__(
        self,
        task: Task,
        quadrotors: Quadrotors,
        num_episodes: int,
        seed: int,
        compile: bool = True,
        activations: Activations = RELU_TANH,
    ) -> None:
        self.task, self.seed, self.activations = task.for_vehicles(quadrotors), seed, activations
        self._quadrotors = grid(quadrotors, num_episodes)
        self._compile = compile

    @torch.no_grad()
    def __call__(self, layers: Layers) -> TeacherFlights:
        """Fly with the teachers `layers`, deterministically."""
        task, like = self.task, self._quadrotors.mass
        generator = torch.Generator(like.device).manual_seed(self.seed)
        episode = begin_episode(task, self._quadrotors, generator)
        holds_origin = (episode.reference.langevin_sigma == 0) & (episode.reference.amplitude == 0).all(-1)
        zero = torch.zeros_like(like)
        zeros = from_components([zero] * 3)
        flight = _Flight(
            laid_out(layers),
            self._quadrotors,
            episode,
            torch.ones_like(like),
            zero,
            zero,
            episode.state.position,
            zeros,
        )
        carried, structure = pytree.tree_flatten(flight)
        carried = [_laid_out(tensor) for tensor in carried]
        kinds = tuple((t.shape, t.stride(), t.dtype, t.device) for t in carried)
        step = _step(task, self.activations, structure, kinds, self._compile)
        flags = like.new_tensor([0.0, 1.0]).unbind()
        counted_from = task.episode_steps // 2
        for first in range(0, task.episode_steps, STEPS_PER_DRAW):
            block = draw_noise(task, like, generator, min(STEPS_PER_DRAW, task.episode_steps - first))
            for number, noise in enumerate(block, start=first):
                given = [*(draw for draw in noise if draw is not None), flags[int(number >= counted_from)]]
                carried, _ = step(carried, given)
        flown: _Flight = pytree.tree_unflatten(carried, structure)
        held = holds_origin.to(like.dtype).unsqueeze(-1)
        counted = held.sum(1).clamp(min=1) * (task.episode_steps - counted_from)
        return TeacherFlights(
            returns=flown.returns,
            terminated=flown.flying == 0,
            lengths=flown.lengths,
            position_offset=(held * flown.position_sum).sum(1) / counted,
        )


@functools.lru_cache(maxsize=16)
def _step(
    task: Task, activations: Activations, structure: pytree.TreeSpec, kinds: Hashable, compile: bool
) -> CompiledStep:
    """One step of a flight, compiled once for each task and kind of flight; weights and vehicles are arguments."""

    def step(carried: Tensors, given: Tensors) -> tuple[Tensors, Tensors]:
        flight: _Flight = pytree.tree_unflatten(carried, structure)
        *noise, counted = given
        action, _ = Teachers(activations).act(flight.layers, flight.quadrotors, flight.episode, ())
        episode, rating = advance(task, flight.quadrotors, flight.episode, action, Noise(*noise))
        going = flight.flying > 0
        position = from_components(
            [
                torch.where(going & new.isfinite(), new, old)
                for new, old in zip(components(episode.state.position), components(flight.position), strict=True)
            ]
        )
        moved = flight._replace(
            episode=episode,
            flying=torch.where(rating.terminated, 0.0, flight.flying),
            returns=flight.returns + torch.where(going, rating.reward, 0.0),
            lengths=flight.lengths + flight.flying,
            position=position,
            position_sum=from_components(
                [s + counted * x for s, x in zip(components(flight.position_sum), components(position), strict=True)]
            ),
        )
        return pytree.tree_leaves(moved), []

    return CompiledStep(step, compile)


def _laid_out(tensor: Tensor) -> Tensor:
    """Component by component over the population (T, B); weights (T, in, out) as they are."""
    return tensor if tensor.ndim < 2 or tensor.mT.is_contiguous() else component_major(tensor, tensor.ndim - 2)
