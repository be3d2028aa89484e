"""Teachers that guide a student who is trained through the simulator's gradient."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from raptor.compilation import compile_pure
from raptor.environments.episode import Episode, observe_as_teacher
from raptor.nn.stacked_mlp import Layers, forward
from raptor.quadrotor.parameters import Quadrotors


class TeacherGuide:
    """T teachers, each of which says what it would do with the vehicles that are its own.

    Args:
        layers: of the teachers.
        weight: of the mean squared difference from their actions, beside the cost of a step; it may be changed.
        compile: False runs eagerly.
    """

    def __init__(self, layers: Layers, weight: float = 1.0, compile: bool = True) -> None:
        self.layers = layers
        self.weight = layers[0].bias.new_tensor(weight)
        self._observe = compile_pure(observe_as_teacher, compile)

    @torch.no_grad()
    def labels(self, quadrotors: Quadrotors, episodes: Sequence[Episode]) -> list[Tensor]:
        """See `Guide`; the vehicles (T B,) are those of the first teacher, then those of the second, and so on."""
        num_teachers, num_vehicles = len(self.layers[0].bias), len(quadrotors)
        seen = torch.stack([self._observe(quadrotors, episode).mT for episode in episodes])  # (S, 26, T B)
        rows = seen.unflatten(-1, (num_teachers, -1)).permute(2, 0, 3, 1)  # (T, S, B, 26)
        actions = torch.tanh(forward(self.layers, rows.flatten(1, 2)))
        by_step = actions.unflatten(1, rows.shape[1:3]).permute(1, 3, 0, 2).reshape(len(episodes), -1, num_vehicles)
        return [action.mT for action in by_step.unbind()]
