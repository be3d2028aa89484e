"""Learning-rate schedules."""

from __future__ import annotations

import math

from torch import Tensor


def warm_up(step: int, num_steps: int) -> float:
    """Factor that rises linearly over the first `num_steps` steps, then is 1."""
    return min(1.0, (step + 1) / max(num_steps, 1))


def warmup_cosine(peak: float, final: float, progress: float, step: int, warm_up_steps: int) -> float:
    """A linear warm-up times a cosine.

    Args:
        peak: the learning rate at its highest.
        final: fraction of it that is left at the end.
        progress: fraction of the cosine that is done; 1 and beyond: the end.
        step: steps of the optimiser so far.
        warm_up_steps: steps of the warm-up.
    """
    cosine = 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))
    return peak * warm_up(step, warm_up_steps) * (final + (1 - final) * cosine)


def linear_decay(final: float, progress: Tensor) -> Tensor:
    """Factor that falls linearly from 1 to `final`; `progress` is a scalar in [0, 1]."""
    return 1 - (1 - final) * progress
