"""Multi-layer perceptrons of a population: one network per member, all computed in one batched product per layer."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from raptor.nn.activations import ACTIVATIONS, Activations


class Layer(NamedTuple):
    """One dense layer of T networks, with the axes of `torch.nn.Linear`."""

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
        Layer(uniform(fan_in, out, bound=1 / math.sqrt(fan_in)).mT, uniform(out, bound=1 / math.sqrt(fan_in)))
        for fan_in, out in itertools.pairwise(sizes)
    )


def laid_out(layers: Layers) -> Layers:
    """The same layers with each weight in the memory order (T, in, out), in which its gradient comes about."""
    return tuple(Layer(layer.weight.mT.contiguous().mT, layer.bias.contiguous()) for layer in layers)


def linear(layer: Layer, x: Tensor, precision: str = "float32") -> Tensor:
    """Weigh and add, x W^T + b, for each network: (T, B, in) -> (T, B, out).

    Args:
        layer: of T networks.
        x: what goes in.
        precision: `bfloat16` rounds factors to that type; the result has the type of x in any case.
    """
    if precision == "bfloat16":
        product = torch.bmm(x.bfloat16(), layer.weight.bfloat16().mT)
        return product.to(x.dtype) + layer.bias.unsqueeze(-2)
    if layer.weight.shape[-2] == 1:  # libraries take many times as long for a matrix with one column
        return (x * layer.weight).sum(-1, keepdim=True) + layer.bias.unsqueeze(-2)
    return torch.baddbmm(layer.bias.unsqueeze(-2), x, layer.weight.mT)


def forward(layers: Layers, x: Tensor, precision: str = "float32", activation: str = "relu") -> Tensor:
    """(T, B, in) -> (T, B, out), with an activation function between the layers and nothing after the last."""
    between = ACTIVATIONS[activation]
    for layer in layers[:-1]:
        x = between(linear(layer, x, precision))
    return linear(layers[-1], x, precision)


def act(layers: Layers, observation: Tensor, activations: Activations) -> Tensor:
    """Action (T, B, A) in [-1, 1] of each network for its own observations (T, B, D)."""
    return activations.squash(forward(layers, observation, activation=activations.hidden))


def tile(layers: Layers, num: int) -> Layers:
    """Each network `num` times in a row: T -> T num."""
    return tuple(Layer(*(tensor.repeat_interleave(num, dim=0) for tensor in layer)) for layer in layers)
