"""Weights as files name them: checked before anything is copied; what is wrong is named in a `UserError`."""

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

LARGEST = 1e9  # bound on the magnitude of a weight; with more, a few layers give what is not finite
LARGEST_WIDTH, LARGEST_DEPTH = 65536, 64
_LARGEST_NUMBER = 2**28  # numbers in a weight
_PREFIX = re.compile(r"(?:^module\.|_orig_mod\.)")


def plain_names(weights: Mapping[Any, Any], path: PathLike) -> dict[str, Any]:
    """Weights by the names of the network, without what torch.compile and DistributedDataParallel put before them."""
    plain = {_PREFIX.sub("", str(name)): weight for name, weight in weights.items()}
    if len(plain) < len(weights):
        raise UserError(f"{path} holds a weight twice, with and without the prefix of torch.compile: it is damaged")
    return plain


def is_width(value: object) -> bool:
    """Whether it can be the width of a layer."""
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= LARGEST_WIDTH


def check_values(
    weights: Mapping[str, Tensor], where: PathLike, names: Mapping[str, str] = {}, stacked: bool = False
) -> None:
    """Refuse weights that are not all of single, or all of double precision, and numbers beyond `LARGEST`.

    `names` is what the file calls a weight, where that differs from its key; `stacked` weights begin with the axis of
    the teachers.
    """
    types = {weight.dtype for weight in weights.values()}
    if len(types) != 1 or not types <= {torch.float32, torch.float64}:
        found = ", ".join(sorted(map(str, types)))
        raise UserError(f"the weights must all be torch.float32, or all torch.float64, got {found} ({where})")
    for key, weight in weights.items():
        wrong = ~(weight.detach().abs() <= LARGEST)
        if wrong.any():
            index = tuple(wrong.nonzero()[0].tolist())
            value = weight[index].item()
            bound = f"at most {LARGEST:g} in magnitude" if abs(value) < float("inf") else "finite"
            whose = f", of teacher {index[0]}," if stacked else ""
            raise UserError(f"{names.get(key, key)}{list(index)}{whose} must be {bound}, got {value} ({where})")


def weight_of(weights: Mapping[str, Any], name: str, path: PathLike, ndim: int | None = None) -> Tensor:
    """A checked copy of one weight in single or double precision, of `ndim` axes."""
    if name not in weights:
        raise UserError(f"{path} lacks the weight {name}: it is damaged, or of another architecture")
    weight = weights[name]
    if not isinstance(weight, Tensor) or not weight.is_floating_point():
        what = weight.dtype if isinstance(weight, Tensor) else type(weight).__name__
        raise UserError(f"{name} must be a tensor of floating-point numbers, got {what} ({path})")
    if ndim is not None and weight.ndim != ndim:
        raise UserError(f"{name} must have {ndim} axes, got shape {tuple(weight.shape)} ({path})")
    if weight.numel() > _LARGEST_NUMBER or not all(map(is_width, weight.shape)):
        raise UserError(f"{name} is no weight of a teacher: its shape is {tuple(weight.shape)} ({path})")
    dtype = torch.float64 if weight.dtype == torch.float64 else torch.float32
    copy = weight.detach().to(dtype).clone(memory_format=torch.contiguous_format)
    check_values({name: copy}, path)
    return copy


def layer_of(weights: Mapping[str, Any], name: str, path: PathLike) -> Layer:
    """The dense layer `name`, with the axes of `torch.nn.Linear`."""
    layer = Layer(weight_of(weights, f"{name}.weight", path, 2), weight_of(weights, f"{name}.bias", path, 1))
    if len(layer.bias) != len(layer.weight):
        raise UserError(f"{name}.bias must have shape ({len(layer.weight)},), got {tuple(layer.bias.shape)} ({path})")
    return layer


def layers_of(weights: Mapping[str, Any], prefix: str, path: PathLike) -> tuple[Layer, ...]:
    """The dense layers `prefix.0`, `prefix.2` and so on, between which there are activation functions, and no other."""
    names = sorted(key.removeprefix(f"{prefix}.") for key in weights if key.startswith(f"{prefix}."))
    dense = {name: re.fullmatch(r"([0-9]+)\.(?:weight|bias)", name) for name in names}
    numbers = sorted({int(match[1]) for match in dense.values() if match})
    if not numbers or len(numbers) > LARGEST_DEPTH:
        found = f"{len(numbers)} layers {prefix}.*, at most {LARGEST_DEPTH} are read"
        lacks = f"lacks the weights {prefix}.0.weight and so on"
        raise UserError(f"{path} {'holds ' + found if numbers else lacks}: it holds another architecture")
    other = [name for name, match in dense.items() if not match]
    if other or numbers != list(range(0, 2 * len(numbers), 2)):
        found = f"{prefix}.{other[0]}" if other else ", ".join(f"{prefix}.{number}" for number in numbers)
        raise UserError(f"{path} holds more than dense layers with activation functions between them: {found}")
    return connected([layer_of(weights, f"{prefix}.{number}", path) for number in numbers], path)


def connected(layers: list[Layer], path: PathLike) -> tuple[Layer, ...]:
    """The layers, if each takes what the one before it gives; all of one floating-point type."""
    for i, (before, layer) in enumerate(itertools.pairwise(layers), start=1):
        if layer.weight.shape[1] != len(before.bias):
            gives = f"but the one before it gives {len(before.bias)}"
            raise UserError(f"layer {i} of {path} takes {layer.weight.shape[1]} numbers, {gives}: it is damaged")
    return tuple(Layer(*(tensor.to(layers[0].weight.dtype) for tensor in layer)) for layer in layers)


def halves(layer: Layer) -> tuple[Layer, Layer]:
    """Mean and deviation, which a last layer gives one after the other."""
    (mean, deviation), (low, high) = (tensor.chunk(2) for tensor in layer)
    return Layer(mean.clone(), low.clone()), Layer(deviation.clone(), high.clone())
