"""Stacked networks on a CPU by a kernel in C++ (`stacked_kernel.cpp`): the libraries' products are for larger ones."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from raptor.core.native import Constants, load_native, try_native
from raptor.nn.activations import Activations
from raptor.nn.stacked_mlp import Layers, act, members

VECTOR = {torch.float32: 16, torch.float64: 8}
"""Multiple that outputs are padded to: a vector of 512 bits holds so many numbers."""

ROWS_TOGETHER = 2000
"""That torch computes at once on a CPU: few, so that the hidden layers' outputs stay in its cache."""


@functools.cache
def _kernel(dtype: torch.dtype, widths: tuple[int, ...]) -> Any:
    """The kernel for these widths, None where there is none."""
    constants: Constants = {"WIDTHS": widths, "PADDED": VECTOR[dtype]}
    file, slow = Path(__file__).with_suffix(".cpp"), "teachers act at a third of the speed"
    return try_native(lambda: load_native(file, "stacked_forward", dtype, constants, (2, 1, 3)), slow)


class StackedActor:
    """T networks that act on many rows at once; the same as `act`, to rounding."""

    def __init__(self, layers: Layers, activations: Activations, compile: bool = True) -> None:
        """Take the layers as they are now; False to `compile` leaves all to torch."""
        self._layers, self._activations = layers, activations
        weight = layers[0].weight
        self._packed = self._call = None
        if not compile or activations.hidden != "relu" or weight.device.type != "cpu" or weight.dtype not in VECTOR:
            return
        widths = weight.shape[-1], *(layer.weight.shape[-2] for layer in layers)
        self._call = _kernel(weight.dtype, widths)
        parts = []
        for layer in layers:
            missing = (0, -layer.bias.shape[-1] % VECTOR[weight.dtype])
            parts += [pad(layer.weight.mT, missing).flatten(1), pad(layer.bias, missing)]
        self._packed = torch.cat(parts, 1)

    def __call__(self, observation: Tensor) -> Tensor:
        """Action (T, B, A) in [-1, 1] of each network for its own observations (T, B, D)."""
        if self._call is None or self._packed is None:
            return self._by_torch(observation)
        num, rows = observation.shape[:2]
        output = observation.new_empty(num, rows, self._layers[-1].bias.shape[-1])
        self._call(self._packed, observation.contiguous(), output, num, rows, self._packed.shape[1])
        return self._activations.squash(output)

    def _by_torch(self, observation: Tensor) -> Tensor:
        on_cpu, (num, rows) = observation.device.type == "cpu", observation.shape[:2]
        size = max(1, ROWS_TOGETHER // max(1, rows)) if on_cpu else max(1, num)
        starts = range(0, num, size)
        parts = [
            act(members(self._layers, slice(i, i + size)), observation[i : i + size], self._activations) for i in starts
        ]
        return torch.cat(parts)
