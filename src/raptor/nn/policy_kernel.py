"""One step of a recurrent student on a CPU, and its derivative, by a kernel in C++ (`policy_kernel.cpp`).

The libraries' products are for larger matrices, and their results go through memory before the gates see them.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from raptor.core.native import load_native, try_native
from raptor.nn.policy import PolicyParameters

PADDED = {torch.float32: 16, torch.float64: 8}
"""Multiple that rows of the gradient are padded to: a vector of 512 bits holds so many numbers."""


class Sums(NamedTuple):
    """A gradient by the weights that is being added up, as the kernel lays it out."""

    gradient: Tensor
    totals: Tensor


class PolicyKernel(NamedTuple):
    """`policy_step` for given widths, and its vector-Jacobian product; see `policy_kernel`.

    What belongs to N vehicles has one row per component: observations (D, N), hidden states (H, N), actions (A, N),
    contiguous.
    """

    hidden_dim: int
    observation_dim: int
    action_dim: int
    forward: Any
    backward: Any

    def step(self, parameters: PolicyParameters, observation: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """Action and following hidden state."""
        num = observation.shape[1]
        action, following = observation.new_empty(self.action_dim, num), torch.empty_like(hidden)
        self.forward(*parameters, observation, hidden, action, following, num)
        return action, following

    def no_sums(self, like: Tensor) -> Sums:
        """Zeros."""
        H, num = self.hidden_dim, sum(map(torch.Size.numel, self._shapes(like)))
        return Sums(like.new_zeros(num), like.new_zeros(5 * H + self.action_dim))

    def pull(
        self,
        parameters: PolicyParameters,
        observation: Tensor,
        hidden: Tensor,
        by_action: Tensor,
        by_following: Tensor,
        scale: Tensor,
        sums: Sums,
    ) -> tuple[Tensor, Tensor]:
        """Derivatives by observation and hidden state, from those by action and, times `scale` (N,), following state.

        The derivatives by the weights, summed over the vehicles, are added to `sums`.
        """
        by_observation, by_hidden = torch.empty_like(observation), torch.empty_like(hidden)
        given = observation, hidden, by_action, by_following, scale
        self.backward(*parameters[:7], *given, by_observation, by_hidden, *sums, observation.shape[1])
        return by_observation, by_hidden

    def by_parameters(self, sums: Sums) -> PolicyParameters:
        """The gradient that was added up."""
        H, shapes = self.hidden_dim, self._shapes(sums.totals)
        parts = sums.gradient.split([shape.numel() for shape in shapes])
        w_in, w_ih, w_hh, w_out = (part.view(shape) for part, shape in zip(parts, shapes, strict=True))
        t = sums.totals
        return PolicyParameters(
            input_weight=w_in[:, : self.observation_dim],
            input_bias=t[:H],
            gru_weight_ih=w_ih[:, :H],
            gru_weight_hh=w_hh[:, :H],
            gru_bias_ih=t[H : 4 * H],
            gru_bias_hh=torch.cat([t[H : 3 * H], t[4 * H : 5 * H]]),
            output_weight=w_out[:, :H],
            output_bias=t[5 * H :],
        )

    def _shapes(self, like: Tensor) -> list[torch.Size]:
        """Of the gradients by the four weights, padded."""
        H, padded = self.hidden_dim, PADDED[like.dtype]
        sizes = (H, self.observation_dim), (3 * H, H), (3 * H, H), (self.action_dim, H)
        return [torch.Size((num, -(-width // padded) * padded)) for num, width in sizes]


def policy_kernel(parameters: PolicyParameters) -> PolicyKernel | None:
    """The kernel for weights of these widths, type and device; None where there is none, which a warning says."""
    weight = parameters.input_weight
    if weight.device.type != "cpu" or weight.dtype not in PADDED:
        return None
    return _built(weight.dtype, weight.shape[0], weight.shape[1], parameters.output_weight.shape[0])


@functools.cache
def _built(dtype: torch.dtype, hidden_dim: int, observation_dim: int, action_dim: int) -> PolicyKernel | None:
    constants = {"H": hidden_dim, "D": observation_dim, "A": action_dim, "PADDED": PADDED[dtype]}
    file = Path(__file__).with_suffix(".cpp")

    def make() -> PolicyKernel:
        forward = load_native(file, "policy_forward", dtype, constants, (10, 2, 1))
        backward = load_native(file, "policy_backward", dtype, constants, (12, 4, 1))
        return PolicyKernel(hidden_dim, observation_dim, action_dim, forward, backward)

    return try_native(make, "policies are trained at two thirds of the speed")
