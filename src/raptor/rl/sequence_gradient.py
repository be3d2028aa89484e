"""Mean squared error of a student over recorded episodes, and its gradient, written out by hand.

Whatever of a recurrent network does not wait for the step before is a matrix product over many steps at once, as in
cuDNN: the input layer, its part of the gates, the output layer, and the gradient of all weights. The rest is a loop
over the steps. Steps go by blocks, of which only the hidden state is kept for the backward pass. On a CPU a kernel does
the work, see `raptor.rl.sequence_kernel`; the operations of torch here are its definition.
All that is per sequence has the sequences as its last axis in memory.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from raptor.core.compilation import Tensors, compile_pure
from raptor.core.native import try_native
from raptor.nn.policy import MLPParameters, PolicyParameters, gru_gates, mlp_step
from raptor.nn.stacked_mlp import product
from raptor.rl.sequence_kernel import SequenceKernel


class SequenceGradient:
    """Mean squared error of a recurrent student over packed sequences, and its gradient through all their steps.

    The hidden state is zero before the first step and wherever an episode begins, and is not trained. Where there is a
    compiler for a CPU, the kernel does the work, in `float32` only; else `block_steps` are unrolled into one graph.
    """

    def __init__(
        self, compile: bool = True, precision: str = "float32", *, kernel: bool = True, block_steps: int = 20
    ) -> None:
        self._block_steps, self._has_kernel = block_steps, kernel and compile and precision == "float32"
        self._kernels: dict[Any, SequenceKernel | None] = {}
        self._forward = compile_pure(functools.partial(_forward, precision=precision), compile)
        self._backward = compile_pure(functools.partial(_backward, precision=precision), compile)

    @torch.no_grad()
    def __call__(
        self, parameters: PolicyParameters, observation: Tensor, label: Tensor, reset: Tensor
    ) -> tuple[PolicyParameters, Tensor]:
        """Gradient of the mean squared error over all L B A numbers, and that error, a scalar tensor.

        Observations are (L, B, D), labels (L, B, A); `reset` (L, B) is True where an episode begins.
        """
        weights = PolicyParameters(*(weight.detach().contiguous() for weight in parameters))
        kernel = self._kernel(weights) if self._has_kernel and observation.device.type == "cpu" else None
        half, error = (kernel or self._by_blocks)(weights, observation, label, (~reset).to(observation.dtype))
        return PolicyParameters(*(part * (2 / label.numel()) for part in half)), error / label.numel()

    def _kernel(self, weights: PolicyParameters) -> SequenceKernel | None:
        """The kernel for these widths; None, after a warning, where it cannot be built."""
        key = tuple((weight.shape, weight.dtype) for weight in weights)
        if key not in self._kernels:
            self._kernels[key] = try_native(lambda: SequenceKernel(weights), "sequences are trained at half the speed")
        return self._kernels[key]

    def _by_blocks(
        self, weights: PolicyParameters, observation: Tensor, label: Tensor, keep: Tensor
    ) -> tuple[PolicyParameters, Tensor]:
        """Half the gradient of the sum of the squared errors, and the sum."""
        hidden = observation.new_zeros(weights.gru_weight_hh.shape[1], observation.shape[1])
        given = (tensor.contiguous().split(self._block_steps) for tensor in (observation, label, keep))
        trail = []
        for observed, labels, kept in zip(*given, strict=True):
            following, after = self._forward(weights, observed, kept, hidden)
            trail.append((observed, labels, kept, hidden, following))
            hidden = after
        sums: list[Any] = [PolicyParameters(*map(torch.zeros_like, weights)), hidden.new_zeros(())]
        adjoint = torch.zeros_like(hidden)
        for block in reversed(trail):
            *sums, adjoint = self._backward(weights, sums, *block, adjoint)
        half, error = sums
        return half, error


def _forward(
    p: PolicyParameters, observation: Tensor, keep: Tensor, hidden: Tensor, *, precision: str
) -> tuple[Tensor, Tensor]:
    """Hidden state after each of K steps of `policy_step` from (H, B), (H, K, B), and after the last, (H, B)."""
    _, given = _given(p, observation, keep.shape, precision)
    following = []
    for t in range(len(keep)):
        hidden = keep[t] * hidden
        recalled = product(p.gru_weight_hh, hidden, precision) + p.gru_bias_hh.unsqueeze(-1)
        _, update, candidate = gru_gates([g[:, t] for g in given], recalled.chunk(3))
        hidden = candidate + update * (hidden - candidate)
        following.append(hidden)
    return torch.stack(following, 1), hidden


def _backward(
    p: PolicyParameters,
    sums: Sequence[Any],  # the gradient by the weights, and the sum of the squared errors, of all that follows
    observation: Tensor,  # (K, B, D)
    label: Tensor,  # (K, B, A)
    keep: Tensor,  # (K, B), 0 where an episode begins, 1 elsewhere
    hidden: Tensor,  # (H, B) before the first step
    following: Tensor,  # (H, K, B) hidden state after each step
    adjoint: Tensor,  # (H, B) derivative of what follows by the hidden state after the last step
    *,
    precision: str,
) -> tuple[PolicyParameters, Tensor, Tensor]:
    """Differentiate half the sum of the squared errors of K steps and of all that follows.

    All but the hidden state is computed once more, which takes less time than to keep it. Returns the sums with these
    steps, and the derivative by the hidden state before the first one.
    """
    width, shape, times = len(hidden), keep.shape, functools.partial(product, precision=precision)
    error = times(p.output_weight, following.flatten(1)) + p.output_bias.unsqueeze(-1) - label.flatten(0, 1).mT
    passed = times(p.output_weight.mT, error).unflatten(-1, shape)  # from the actions to the hidden states
    features, given = _given(p, observation, shape, precision)
    entering = keep * torch.cat([hidden.unsqueeze(1), following[:, :-1]], 1)
    recalled = (times(p.gru_weight_hh, entering.flatten(1)) + p.gru_bias_hh.unsqueeze(-1)).unflatten(-1, shape).chunk(3)
    gates = gru_gates(given, recalled)
    adjoints = []
    for t in reversed(range(len(keep))):
        adjoint = adjoint + passed[:, t]
        adjoints.append(adjoint)
        gates_t = [gate[:, t] for gate in gates]
        _, *slopes = _slopes(adjoint, gates_t, recalled[2][:, t], entering[:, t])
        adjoint = keep[t] * (adjoint * gates_t[1] + times(p.gru_weight_hh.mT, torch.cat(slopes)))
    slope = torch.cat(_slopes(torch.stack(adjoints[::-1], 1), gates, recalled[2], entering)).flatten(1)  # (4 H, K B)
    by_input, by_hidden = slope[: 3 * width], slope[width:]  # gates n, r, z and r, z, n
    slope_x = torch.where(features > 0, times(p.gru_weight_ih.roll(width, 0).mT, by_input), 0.0)
    gradient = PolicyParameters(
        input_weight=times(slope_x, observation.flatten(0, 1)),
        input_bias=slope_x.sum(-1),
        gru_weight_ih=times(by_input, features.mT).roll(-width, 0),
        gru_weight_hh=times(by_hidden, entering.flatten(1).mT),
        gru_bias_ih=by_input.sum(-1).roll(-width, 0),
        gru_bias_hh=by_hidden.sum(-1),
        output_weight=times(error, following.flatten(1).mT),
        output_bias=error.sum(-1),
    )
    totals = (before + part for before, part in zip(sums[0], gradient, strict=True))
    return PolicyParameters(*totals), sums[1] + error.square().sum(), adjoint


def _given(p: PolicyParameters, observation: Tensor, shape: torch.Size, precision: str) -> tuple[Tensor, Tensors]:
    """Parts of K steps of B sequences that observations give: features (H, K B), and (H, K, B) of gates r, z, n."""
    features = torch.relu(product(p.input_weight, observation.flatten(0, 1).mT, precision) + p.input_bias.unsqueeze(-1))
    given = product(p.gru_weight_ih, features, precision).unflatten(-1, shape).chunk(3)
    return features, [g + b.view(-1, 1, 1) for g, b in zip(given, p.gru_bias_ih.chunk(3), strict=True)]


def _slopes(adjoint: Tensor, gates: Sequence[Tensor], recalled: Tensor, entering: Tensor) -> tuple[Tensor, ...]:
    """Derivatives by the sums in n, r and z, and by the hidden state's part of n, given that by the hidden state."""
    reset, update, candidate = gates
    slope_n = adjoint * (1 - update) * (1 - candidate * candidate)
    slope_r = slope_n * recalled * reset * (1 - reset)
    slope_z = adjoint * (entering - candidate) * update * (1 - update)
    return slope_n, slope_r, slope_z, slope_n * reset


def transition_gradient(compile: bool = True, precision: str = "float32") -> Callable[..., Any]:
    """The same for a student without memory over single steps: (parameters, (M, D), (M, A)) -> gradient, error."""

    def error(parameters: MLPParameters, observation: Tensor, label: Tensor) -> Tensor:
        return (mlp_step(parameters, observation, precision) - label).square().mean()

    return torch.no_grad()(compile_pure(torch.func.grad_and_value(error), compile))
