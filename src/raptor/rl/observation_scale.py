"""Normalised observations without a layer in front of the policy: the scale is folded into its first layer.

A layer on x' = (x - m) / d with weights W' and biases b' is one on x with W = W' / d and b = b' - W m. So W' and b' are
trained, and W and b are flown and saved.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from raptor.environments.controllers import StudentParameters

LEAST_DEVIATION = 0.1
"""Numbers that hardly vary are not magnified further: they vary a hundred times as much when a policy fails."""


class ObservationScale(NamedTuple):
    """Mean and standard deviation of observations."""

    mean: Tensor  # (D,)
    deviation: Tensor  # (D,)

    @classmethod
    def none(cls, observation_dim: int, like: Tensor) -> ObservationScale:
        """Scale that changes nothing."""
        return cls(like.new_zeros(observation_dim), like.new_ones(observation_dim))

    @classmethod
    def of(cls, observation: Tensor, length: Tensor) -> ObservationScale:
        """Scale of recorded episodes (E, S, D), of `length` (E,) steps each."""
        counted = torch.arange(observation.shape[1], device=length.device) < length.unsqueeze(-1)
        rows = observation[counted].double()
        deviation = rows.std(0, correction=0).clamp(min=LEAST_DEVIATION)
        return cls(rows.mean(0).to(observation), deviation.to(observation))

    def fold(self, parameters: StudentParameters) -> StudentParameters:
        """Weights for raw observations, from those for scaled ones."""
        weight = parameters.input_weight / self.deviation
        return parameters._replace(input_weight=weight, input_bias=parameters.input_bias - weight @ self.mean)

    def pull_back(self, gradient: StudentParameters) -> StudentParameters:
        """Gradient by the weights for scaled observations, from that by the weights for raw ones."""
        by_weight = gradient.input_weight - gradient.input_bias.unsqueeze(-1) * self.mean
        return gradient._replace(input_weight=by_weight / self.deviation)
