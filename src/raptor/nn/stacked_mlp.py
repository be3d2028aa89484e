"""Multi-layer perceptrons of a population: one network per member, all computed in one batched product per layer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class Layer(NamedTuple):
    """One dense layer of T networks, in the layout of `torch.nn.Linear`."""

    weight: Tensor  # (T, out, in)
    bias: Tensor  # (T, out)


Layers = tuple[Layer, ...]


def initial_layers(
    num: int, sizes: Sequence[int], generator: torch.Generator, dtype: torch.dtype = torch.float32
) -> Layers:
    """Draw the layers of `num` networks, uniform in +-1/sqrt(fan-in), weights and biases alike.

    Args:
        num: T.
        sizes: widths from the input to the output.
        generator: source of randomness; its device is that of the layers.
        dtype: of the layers.

    Source: the default of `torch.nn.Linear`, which rl-tools shares.
    """

    def uniform(*shape: int, bound: float) -> Tensor:
        return bound * (2 * torch.rand((num, *shape), generator=generator, dtype=dtype, device=generator.device) - 1)

    return tuple(
        Layer(uniform(out, fan_in, bound=1 / math.sqrt(fan_in)), uniform(out, bound=1 / math.sqrt(fan_in)))
        for fan_in, out in zip(sizes[:-1], sizes[1:], strict=True)
    )


def linear(layer: Layer, x: Tensor) -> Tensor:
    """x W^T + b for each network: (T, B, in) -> (T, B, out)."""
    return torch.baddbmm(layer.bias.unsqueeze(-2), x, layer.weight.mT)


def forward(layers: Layers, x: Tensor) -> Tensor:
    """(T, B, in) -> (T, B, out), with rectified linear units between the layers and nothing after the last."""
    for layer in layers[:-1]:
        x = torch.relu(linear(layer, x))
    return linear(layers[-1], x)


def tile(layers: Layers, num: int) -> Layers:
    """Each network `num` times in a row: T -> T num."""
    return tuple(Layer(*(tensor.repeat_interleave(num, dim=0) for tensor in layer)) for layer in layers)
