"""Dense layers as files name them: checked, and in single or double precision."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from raptor.core.atomic import PathLike
from raptor.core.errors import UserError
from raptor.nn.stacked_mlp import Layer

LARGEST_WIDTH = 65536
_LARGEST_WEIGHT = 2**28  # numbers


def weight_of(weights: Mapping[str, Any], name: str, path: PathLike, ndim: int | None = None) -> Tensor:
    """A copy of one weight.

    Args:
        weights: of the file.
        name: of the weight.
        path: the file, for error messages.
        ndim: number of axes that it must have.

    Raises:
        UserError: it is missing, no dense tensor of floating-point numbers, absurdly large, or not finite.
    """
    if name not in weights:
        raise UserError(f"{path} lacks the weight {name}: it is damaged, or of another architecture")
    weight = weights[name]
    if not isinstance(weight, Tensor) or weight.layout != torch.strided or not weight.is_floating_point():
        raise UserError(f"{name} must be a tensor of floating-point numbers, got {_what(weight)} ({path})")
    if ndim is not None and weight.ndim != ndim:
        raise UserError(f"{name} must have {ndim} axes, got shape {tuple(weight.shape)} ({path})")
    sizes = (*weight.shape, 1)
    if weight.is_meta or weight.numel() > _LARGEST_WEIGHT or not 1 <= min(sizes) <= max(sizes) <= LARGEST_WIDTH:
        raise UserError(f"{name} is no weight of a teacher: its shape is {tuple(weight.shape)} ({path})")
    double = weight.dtype == torch.float64
    copy = weight.detach().to(torch.float64 if double else torch.float32).clone(memory_format=torch.contiguous_format)
    wrong = ~copy.isfinite()
    if wrong.any():
        index = tuple(wrong.nonzero()[0].tolist())
        raise UserError(f"{name}{list(index)} must be finite, got {copy[index].item()} ({path})")
    return copy


def layer_of(weights: Mapping[str, Any], name: str, path: PathLike) -> Layer:
    """The dense layer `name`, with the axes of `torch.nn.Linear`."""
    layer = Layer(weight_of(weights, f"{name}.weight", path, 2), weight_of(weights, f"{name}.bias", path, 1))
    if len(layer.bias) != len(layer.weight):
        raise UserError(f"{name}.bias must have shape ({len(layer.weight)},), got {tuple(layer.bias.shape)} ({path})")
    return layer


def layers_of(weights: Mapping[str, Any], prefix: str, path: PathLike) -> tuple[Layer, ...]:
    """The dense layers `prefix.0`, `prefix.2` and so on, between which there are activation functions.

    Raises:
        UserError: there are none, or something else is among them, or one does not fit the next.
    """
    names = [key.removeprefix(f"{prefix}.") for key in weights if key.startswith(f"{prefix}.")]
    numbers = sorted({int(match[1]) for name in names if (match := re.fullmatch(r"([0-9]+)\.(weight|bias)", name))})
    if not numbers:
        raise UserError(f"{path} lacks the weights {prefix}.0.weight and so on: it holds another architecture")
    other = sorted(name for name in names if not re.fullmatch(r"[0-9]+\.(weight|bias)", name))
    if other or numbers != list(range(0, 2 * len(numbers), 2)):
        found = f"{prefix}.{other[0]}" if other else ", ".join(f"{prefix}.{number}" for number in numbers)
        raise UserError(f"{path} holds more than dense layers with activation functions between them: {found}")
    return connected(tuple(layer_of(weights, f"{prefix}.{number}", path) for number in numbers), path)


def connected(layers: tuple[Layer, ...], path: PathLike) -> tuple[Layer, ...]:
    """The layers, if each takes what the one before it gives; all of one floating-point type."""
    for i, (before, layer) in enumerate(itertools.pairwise(layers), start=1):
        if layer.weight.shape[1] != len(before.bias):
            raise UserError(
                f"layer {i} of {path} takes {layer.weight.shape[1]} numbers, but the one before it gives "
                f"{len(before.bias)}: the file is damaged"
            )
    return tuple(Layer(*(tensor.to(layers[0].weight.dtype) for tensor in layer)) for layer in layers)


def _what(value: Any) -> str:
    return f"{value.dtype} of layout {value.layout}" if isinstance(value, Tensor) else type(value).__name__
