"""The policy without memory: three dense layers; what a recurrent policy is held against."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from raptor.nn.policy import Network, check_step
from raptor.nn.precision import product


class MLPParameters(NamedTuple):
    """The tensors of an `MLPPolicy`, in torch's layout."""

    input_weight: Tensor  # (H, D)
    input_bias: Tensor  # (H,)
    middle_weight: Tensor  # (H, H)
    middle_bias: Tensor  # (H,)
    output_weight: Tensor  # (A, H)
    output_bias: Tensor  # (A,)


def mlp_step(parameters: MLPParameters, observation: Tensor, precision: str = "float32") -> Tensor:
    """One step of the policy as a pure function.

    Args:
        parameters: the weights.
        observation: (B, D).
        precision: of the matrix products, see `raptor.nn.precision.product`.

    Returns:
        Action (B, A), linear and unbounded, its components contiguous in memory, as in the simulator's tensors.
    """
    p = parameters
    x = torch.relu(product(observation, p.input_weight.mT, precision) + p.input_bias)
    x = torch.relu(product(x, p.middle_weight.mT, precision) + p.middle_bias)
    action = product(p.output_weight, x.mT, precision) + p.output_bias.unsqueeze(-1)
    return action.mT


class MLPPolicy(Network):
    """Memoryless policy: observation -> dense, ReLU -> dense, ReLU -> dense -> action.

    It offers what `RaptorPolicy` does, with a hidden state of width 0, so that whoever flies the one flies the other.
    The action is linear; whoever applies it clips it to [-1, 1].

    Args:
        observation_dim: as of `RaptorPolicy`.
        hidden_dim: width of both hidden layers.
        action_dim: one number per rotor, in crazyflie order.
    """

    def __init__(self, observation_dim: int = 22, hidden_dim: int = 64, action_dim: int = 4) -> None:
        super().__init__(observation_dim, hidden_dim, action_dim)
        self.input_layer = nn.Linear(observation_dim, hidden_dim)
        self.middle_layer = nn.Linear(hidden_dim, hidden_dim)
        self.output_layer = nn.Linear(hidden_dim, action_dim)

    @property
    def summary(self) -> str:
        """The layers and their size, as a card tells them."""
        D, H, A = self.observation_dim, self.hidden_dim, self.action_dim
        return f"dense {D}-{H} ReLU, dense {H}-{H} ReLU, dense {H}-{A}, no memory; {self.num_parameters} parameters"

    def tensors(self) -> MLPParameters:
        """The trainable tensors, for `mlp_step`."""
        layers = (self.input_layer, self.middle_layer, self.output_layer)
        return MLPParameters(*(tensor for layer in layers for tensor in (layer.weight, layer.bias)))

    def initial_hidden_state(self, *shape: int) -> Tensor:
        """Nothing to remember, (*shape, 0)."""
        return self.output_layer.bias.new_zeros(*shape, 0)

    def forward(self, observation: Tensor, hidden: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """One step.

        Args:
            observation: (..., D).
            hidden: (..., 0), or nothing.

        Returns:
            Action (..., A) and the hidden state (..., 0).
        """
        check_step(observation, hidden, self.observation_dim, 0)
        shape = observation.shape[:-1]
        action = mlp_step(self.tensors(), observation.reshape(-1, self.observation_dim))
        return action.reshape(*shape, self.action_dim), self.initial_hidden_state(*shape)
