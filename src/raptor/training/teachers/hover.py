"""Where teachers begin: at the throttle that carries the weight."""

from __future__ import annotations

import torch
from torch import Tensor

from raptor.quadrotor.parameters import Quadrotors

LARGEST_ACTION = 0.97
"""Bound on the action at the start, so that tanh keeps a slope there."""


def hover_bias(quadrotors: Quadrotors) -> Tensor:
    """What tanh turns into the action at which each vehicle hovers, (T,)."""
    return torch.atanh((2 * quadrotors.hover_throttle - 1).clamp(-LARGEST_ACTION, LARGEST_ACTION))
