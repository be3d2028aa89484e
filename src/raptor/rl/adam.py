"""Adam as a pure function, for parameters of whole populations, and schedules of its learning rate."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils import _pytree as pytree


class AdamState(NamedTuple):
    """Moments of the gradient, nested like the parameters, and how much of their start at zero remains."""

    mean: Any
    square: Any
    remains: Tensor  # (2,) beta^n of both moments after n steps


def adam_start(parameters: Any) -> AdamState:
    """The state before the first step."""
    mean, square = (pytree.tree_map(torch.zeros_like, parameters) for _ in range(2))
    return AdamState(mean, square, pytree.tree_leaves(parameters)[0].new_ones(2))


def adam_step(
    parameters: Any,
    gradient: Any,
    state: AdamState,
    learning_rate: Tensor | float,
    *,
    betas: tuple[float, float] = (0.9, 0.999),
    epsilon: float = 1e-8,
    variance_floor: float = 0.0,
) -> tuple[Any, AdamState]:
    """Parameters, in any nesting, and state after one step.

    The learning rate is a number, or a tensor (T,) for parameters (T, ...), one rate per member of the population. The
    floor is a lower bound on the second moment, before its root is taken.

    Source: D. Kingma, J. Ba, Adam (2015); the floor is that of rl-tools, which bounds the step of rarely used weights.
    """
    # Products, not powers: compilers move neither out of the loop over the weights, and a power takes longer than Adam.
    remains = torch.stack([left * beta for left, beta in zip(state.remains.unbind(), betas, strict=True)])
    scales = (1 / (1 - remains)).unbind()

    def step(weight: Tensor, slope: Tensor, mean: Tensor, square: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        mean = betas[0] * mean + (1 - betas[0]) * slope
        square = betas[1] * square + (1 - betas[1]) * slope * slope
        variance = square * scales[1]
        if variance_floor:
            variance = variance.clamp(min=variance_floor)
        rate = learning_rate
        if isinstance(rate, Tensor) and rate.ndim:
            rate = rate.view(-1, *[1] * (weight.ndim - 1))
        return weight - rate * (mean * scales[0]) / (variance.sqrt() + epsilon), mean, square

    weights, structure = pytree.tree_flatten(parameters)
    others = map(pytree.tree_leaves, (gradient, state.mean, state.square))
    columns = zip(*map(step, weights, *others), strict=True)
    moved, mean, square = (pytree.tree_unflatten(list(column), structure) for column in columns)
    return moved, AdamState(mean, square, remains)


def warm_up(step: int, num_steps: int) -> float:
    """Factor that rises linearly over the first `num_steps` steps, then is 1."""
    return min(1.0, (step + 1) / max(num_steps, 1))


def warmup_cosine(peak: float, final: float, progress: float, step: int, warm_up_steps: int) -> float:
    """A linear warm-up in the first steps, times a cosine from `peak` to the fraction `final` of it at `progress` 1."""
    cosine = 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))
    return peak * warm_up(step, warm_up_steps) * (final + (1 - final) * cosine)


def linear_decay(final: float, progress: Tensor) -> Tensor:
    """Factor that falls linearly from 1 to `final`; `progress` is a scalar in [0, 1]."""
    return 1 - (1 - final) * progress
