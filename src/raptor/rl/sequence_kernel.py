"""Gradient over packed sequences on a CPU, by a kernel in C++ (`sequence_kernel.cpp`).

A step of so small a network takes less time than the calls that would launch it, so the recurrence is one call for all
steps. Few sequences are taken at a time, so that what the backward pass needs stays in the cache.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from raptor.core.native import load_native
from raptor.nn.policy import PolicyParameters

NUM_SEQUENCES = 32
"""Sequences side by side in vectors: two of 512 bits in single precision."""

BLOCK_STEPS = 80
"""Steps whose part of the gradient is one matrix product."""


@functools.cache
def build_kernels(dtype: torch.dtype, hidden_dim: int, observation_dim: int, action_dim: int) -> tuple[Any, Any]:
    """The forward and the backward kernel for these widths."""
    constants = {"S": NUM_SEQUENCES, "H": hidden_dim, "D": observation_dim, "A": action_dim}
    file = Path(__file__).with_suffix(".cpp")
    forward = load_native(file, "sequence_forward", dtype, constants, (12, 4, 2))
    return forward, load_native(file, "sequence_backward", dtype, constants, (7, 3, 2))


class SequenceKernel:
    """See `raptor.rl.sequence_gradient.SequenceGradient`, which calls this on a CPU with weights of these widths."""

    def __init__(self, parameters: PolicyParameters) -> None:
        weight = parameters.gru_weight_hh
        self.widths = weight.shape[1], parameters.input_weight.shape[1], len(parameters.output_weight)
        self._forward, self._backward = build_kernels(weight.dtype, *self.widths)
        self._trail = (weight[:0],) * 3  # states, gates, error; shapes as in the kernels
        self._slopes = weight[:0]
        self._blocks: list[tuple[Any, ...]] = []  # trail of each block, and factors of its matrix products

    def _allocate(self, steps: int, like: Tensor) -> None:
        """Make buffers for sequences of so many steps."""
        H, _, A = self.widths
        num_blocks, num = -(-steps // BLOCK_STEPS), BLOCK_STEPS * NUM_SEQUENCES
        states = like.new_empty(num_blocks, 3, H, num)
        gates = like.new_empty(steps, 4, H, NUM_SEQUENCES)
        error, slopes = like.new_empty(num_blocks, A, num), like.new_empty(5, H, num)
        self._trail, self._slopes, self._blocks = (states, gates, error), slopes, []
        for trail in zip(states, gates.split(BLOCK_STEPS), error, strict=True):
            num = len(trail[1]) * NUM_SEQUENCES  # the last block may be shorter
            inputs = *trail[0][..., :num].mT, trail[2][:, :num]  # features, entering and following state, error
            # Derivatives by the features' part of n, r and z, the hidden state's of r, z and n, and before the ReLU.
            derivatives = *(slopes[i : i + 3, :, :num].view(-1, num) for i in (0, 1)), slopes[4, :, :num]
            self._blocks.append((trail, *inputs, *derivatives))

    def __call__(
        self, parameters: PolicyParameters, observation: Tensor, label: Tensor, keep: Tensor
    ) -> tuple[PolicyParameters, Tensor]:
        """Half the gradient of the sum of the squared errors for (L, B, D) and (L, B, A), and the sum, a scalar tensor.

        `keep` (L, B) is 0 where an episode begins, 1 elsewhere; the parameters are contiguous.
        """
        H, _, A = self.widths
        missing = -observation.shape[1] % NUM_SEQUENCES
        counted = torch.ones_like(keep[0])
        if missing:
            observation, label = (pad(tensor, (0, 0, 0, missing)) for tensor in (observation, label))
            keep, counted = pad(keep, (0, missing)), pad(counted, (0, missing))
        if len(self._trail[1]) != len(keep):
            self._allocate(len(keep), keep)
        sums = PolicyParameters(*map(torch.zeros_like, parameters))
        by_input, squares = torch.zeros_like(sums.gru_weight_ih), keep.new_zeros(1)  # gates in the order n, r, z
        totals = keep.new_zeros(5 * H + A)
        weights = parameters.gru_weight_ih, parameters.gru_weight_hh, parameters.output_weight
        given = (tensor.split(NUM_SEQUENCES, 1) for tensor in (observation, label, keep))
        for *few, counts in zip(*given, counted.split(NUM_SEQUENCES), strict=True):
            rows, labels, kept = (tensor.contiguous() for tensor in few)
            self._forward(*parameters, rows, labels, kept, counts, *self._trail, squares, len(kept), BLOCK_STEPS)
            seen, adjoint = rows.flatten(0, 1).split(BLOCK_STEPS * NUM_SEQUENCES), kept.new_zeros(H, NUM_SEQUENCES)
            for block, x, k in reversed(list(zip(self._blocks, seen, kept.split(BLOCK_STEPS), strict=True))):
                trail, features, entering, following, error, by_given, by_recalled, by_features = block
                self._backward(*weights, k, *trail, adjoint, self._slopes, totals, len(k), BLOCK_STEPS)
                sums.input_weight.addmm_(by_features, x)
                by_input.addmm_(by_given, features)
                sums.gru_weight_hh.addmm_(by_recalled, entering)
                sums.output_weight.addmm_(error, following)
        return sums._replace(
            input_bias=totals[4 * H : 5 * H],
            gru_weight_ih=by_input.roll(-H, 0),
            gru_bias_ih=totals[: 3 * H].roll(-H),
            gru_bias_hh=totals[H : 4 * H],
            output_bias=totals[5 * H :],
        ), squares[0]
