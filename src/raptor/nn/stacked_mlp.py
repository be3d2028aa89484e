"""Multi-layer perceptrons: one network, or one for each of T members, computed in one batched product per layer."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from raptor.core.errors import UserError
from raptor.nn.activations import ACTIVATIONS, Activations

Precision = Literal["float32", "bfloat16"]


class Layer(NamedTuple):
    """One dense layer with the axes of `torch.nn.Linear`, of T networks or, without the first axis, of one."""

    weight: Tensor  # (T, out, in)
    bias: Tensor  # (T, out)


Layers = tuple[Layer, ...]


def product(a: Tensor, b: Tensor, precision: str = "float32") -> Tensor:
    """Multiply, a @ b; `bfloat16` computes in that type, and the result has the type of a in any case."""
    return (a.bfloat16() @ b.bfloat16()).to(a.dtype) if precision == "bfloat16" else a @ b


def linear(layer: Layer, x: Tensor, precision: str = "float32") -> Tensor:
    """Weigh and add, x W^T + b: (T, B, in) -> (T, B, out), each network its own rows; or (..., in) -> (..., out)."""
    if layer.weight.ndim == 2:
        return product(x, layer.weight.mT, precision) + layer.bias
    bias = layer.bias.unsqueeze(-2)
    if precision == "bfloat16":
        return product(x, layer.weight.mT, precision) + bias
    if layer.weight.shape[-2] == 1:  # libraries take many times as long for a matrix with one column
        return (x * layer.weight).sum(-1, keepdim=True) + bias
    return torch.baddbmm(bias, x, layer.weight.mT)


def last_features(layers: Layers, x: Tensor, precision: str = "float32", activation: str = "relu") -> Tensor:
    """Output of the last hidden layer, after its activation; x itself where there is no hidden layer."""
    for layer in layers[:-1]:
        x = ACTIVATIONS[activation](linear(layer, x, precision))
    return x


def forward(layers: Layers, x: Tensor, precision: str = "float32", activation: str = "relu") -> Tensor:
    """Output of the networks, with nothing after the last layer; the shapes are those of `linear`."""
    return linear(layers[-1], last_features(layers, x, precision, activation), precision)


def act(layers: Layers, observation: Tensor, activations: Activations) -> Tensor:
    """Action (T, B, A) in [-1, 1] of each network for its own observations (T, B, D)."""
    return activations.squash(forward(layers, observation, activation=activations.hidden))


def initial_layers(
    num: int, sizes: Sequence[int], generator: torch.Generator, dtype: torch.dtype = torch.float32
) -> Layers:
    """Draw the layers of `num` networks of these widths, on the device of the generator.

    Weights and biases are uniform in +-1/sqrt(fan-in). Source: the default of `torch.nn.Linear`, and of rl-tools.
    """

    def uniform(*shape: int, bound: float) -> Tensor:
        return bound * (2 * torch.rand((num, *shape), generator=generator, dtype=dtype, device=generator.device) - 1)

    return tuple(
        Layer(uniform(fan_in, out, bound=1 / math.sqrt(fan_in)).mT, uniform(out, bound=1 / math.sqrt(fan_in)))
        for fan_in, out in itertools.pairwise(sizes)
    )


def laid_out(layers: Layers) -> Layers:
    """Copy the layers with each weight in the memory order (T, in, out), in which its gradient comes about."""
    return tuple(Layer(layer.weight.mT.contiguous().mT, layer.bias.contiguous()) for layer in layers)


def members(layers: Layers, index: int | slice | Tensor | None) -> Layers:
    """Some of the networks; a number takes the first axis away, None adds it."""
    return tuple(Layer(layer.weight[index], layer.bias[index]) for layer in layers)


def tile(layers: Layers, num: int) -> Layers:
    """Repeat each network `num` times in a row: T -> T num."""
    return tuple(Layer(*(tensor.repeat_interleave(num, dim=0) for tensor in layer)) for layer in layers)


def check_layers(layers: Layers, stacked: bool) -> None:
    """Refuse layers that do not fit together, by a `UserError` that names the first tensor of the wrong shape."""
    if not layers:
        raise UserError("a network needs at least one layer, got none")
    form = "(teachers, outputs, inputs)" if stacked else "(outputs, inputs)"
    num, inputs = layers[0].weight.shape[:-2], layers[0].weight.shape[-1:]
    for i, (weight, bias) in enumerate(layers):
        if weight.ndim != 2 + stacked:
            raise UserError(f"layers.{i}.weight must have shape {form}, got {tuple(weight.shape)}")
        outputs = weight.shape[-2:-1]
        check_shape(f"layers.{i}.weight", weight, num + outputs + inputs)
        check_shape(f"layers.{i}.bias", bias, num + outputs)
        inputs = outputs


def check_shape(name: str, tensor: Tensor | None, shape: Sequence[int]) -> None:
    """Refuse a tensor of another shape, if there is one, by a `UserError` that names it."""
    if tensor is not None and tuple(tensor.shape) != tuple(shape):
        raise UserError(f"{name} must have shape {tuple(shape)}, got {tuple(tensor.shape)}")
