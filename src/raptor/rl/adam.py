"""Adam as a pure function, for parameters of whole populations."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils import _pytree as pytree


class AdamState(NamedTuple):
    """Moments of the gradient, nested like the parameters, and what is left of their start at zero."""

    mean: Any
    square: Any
    remains: Tensor  # (2,) beta^n of both moments after n steps


def adam_start(parameters: Any) -> AdamState:
    """The state before the first step."""
    leaves, structure = pytree.tree_flatten(parameters)
    zeros = [torch.zeros_like(leaf) for leaf in leaves]
    remains = torch.ones(2, device=leaves[0].device, dtype=leaves[0].dtype)
    squares = [zero.clone() for zero in zeros]
    return AdamState(pytree.tree_unflatten(zeros, structure), pytree.tree_unflatten(squares, structure), remains)


def adam_step(
    parameters: Any,
    gradient: Any,
    state: AdamState,
    learning_rate: Tensor | float,
    betas: tuple[float, float] = (0.9, 0.999),
    epsilon: float = 1e-8,
    variance_floor: float = 0.0,
) -> tuple[Any, AdamState]:
    """One step.

    Args:
        parameters: any nesting of tensors.
        gradient: nested likewise.
        state: moments so far.
        learning_rate: a number, or a tensor (T,) for parameters (T, ...), one rate per member of the population.
        betas: decay of the two moments.
        epsilon: added to the root of the second moment.
        variance_floor: lower bound on the second moment, before its root is taken.

    Returns:
        The parameters and the state after the step.

    Source: D. Kingma, J. Ba, Adam (2015); the floor is that of rl-tools, which bounds the step of rarely used weights.
    """
    weights, structure = pytree.tree_flatten(parameters)
    # Products, not powers: compilers move neither out of the loop over the weights, and a power takes longer than Adam.
    remains = torch.stack([left * beta for left, beta in zip(state.remains.unbind(), betas, strict=True)])
    scales = (1 / (1 - remains)).unbind()
    moved, means, squares = [], [], []
    for weight, slope, mean, square in zip(
        weights, pytree.tree_leaves(gradient), *map(pytree.tree_leaves, (state.mean, state.square)), strict=True
    ):
        mean = betas[0] * mean + (1 - betas[0]) * slope
        square = betas[1] * square + (1 - betas[1]) * slope * slope
        variance = square * scales[1]
        if variance_floor:
            variance = variance.clamp(min=variance_floor)
        rate = learning_rate
        if isinstance(rate, Tensor) and rate.ndim:
            rate = rate.view(-1, *[1] * (weight.ndim - 1))
        moved.append(weight - rate * (mean * scales[0]) / (variance.sqrt() + epsilon))
        means.append(mean)
        squares.append(square)
    unflatten = pytree.tree_unflatten
    return unflatten(moved, structure), AdamState(unflatten(means, structure), unflatten(squares, structure), remains)
