"""Guides: teachers whose actions a student imitates while it is trained through the simulator's gradient."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor
from torch.nn.functional import pad

from raptor.core.compilation import compile_pure
from raptor.environments.episode import Episode, observe_as_teacher
from raptor.nn.activations import RELU_TANH, Activations
from raptor.nn.stacked_mlp import Layer, Layers, act
from raptor.quadrotor.parameters import Quadrotors


class Guide(Protocol):
    """Gives the actions that a controller is pulled towards."""

    weight: Tensor  # () of the mean squared difference of the actions, beside the cost of a step

    def labels(self, quadrotors: Quadrotors, episodes: Sequence[Episode]) -> Sequence[Tensor]:
        """Actions in each of these episodes, (..., 4) each in component-major layout."""
        ...


class TeacherGuide:
    """T teachers, each for the vehicles that are its own.

    Args:
        layers: of the teachers.
        weight: of the mean squared difference from their actions, beside the cost of a step; it may be changed.
        compile: False runs eagerly.
        activations: of the teachers.
    """

    def __init__(
        self, layers: Layers, weight: float = 1.0, compile: bool = True, activations: Activations = RELU_TANH
    ) -> None:
        self.layers, self.activations = layers, activations
        self.weight = layers[0].bias.new_tensor(weight)
        self._observe = compile_pure(observe_as_teacher, compile)
        self._missing = (0, 0)  # vehicles of the first and of the last teacher that are not there

    def of(self, places: slice, num: int) -> TeacherGuide:
        """The same guide for the vehicles at some places of `num`; of a teacher there may be some of its vehicles."""
        if (places.start, places.stop) == (0, num):
            return self
        each = num // len(self.layers[0].bias)
        first, last = places.start // each, -(-places.stop // each)
        part = copy.copy(self)
        part.layers = tuple(Layer(*(tensor[first:last] for tensor in layer)) for layer in self.layers)
        part._missing = (places.start - first * each, last * each - places.stop)
        return part

    @torch.no_grad()
    def labels(self, quadrotors: Quadrotors, episodes: Sequence[Episode]) -> list[Tensor]:
        """See `Guide`; the vehicles (T B,) are those of the first teacher, then those of the second, and so on."""
        num_teachers, (before, after) = len(self.layers[0].bias), self._missing
        num_vehicles = before + len(quadrotors) + after
        seen = torch.stack([self._observe(quadrotors, episode).mT for episode in episodes])  # (S, 26, T B)
        seen = pad(seen, self._missing) if before or after else seen
        rows = seen.unflatten(-1, (num_teachers, -1)).permute(2, 0, 3, 1)  # (T, S, B, 26)
        actions = act(self.layers, rows.flatten(1, 2), self.activations)
        by_step = actions.unflatten(1, rows.shape[1:3]).permute(1, 3, 0, 2).reshape(len(episodes), -1, num_vehicles)
        there = by_step[..., before : num_vehicles - after].contiguous()
        return [action.mT for action in there.unbind()]
