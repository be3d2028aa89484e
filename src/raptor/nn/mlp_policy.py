"""The policy without memory: three dense layers, the baseline of the recurrent one."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, nn

from raptor.nn.policy import Network
from raptor.nn.stacked_mlp import Layer, last_features, product


class MLPParameters(NamedTuple):
    """The tensors of an `MLPPolicy`, in torch's layout."""

    input_weight: Tensor  # (H, D)
    input_bias: Tensor  # (H,)
    middle_weight: Tensor  # (H, H)
    middle_bias: Tensor  # (H,)
    output_weight: Tensor  # (A, H)
    output_bias: Tensor  # (A,)

    @property
    def layers(self) -> tuple[Layer, ...]:
        """The tensors as layers for `raptor.nn.stacked_mlp`."""
        return Layer(*self[:2]), Layer(*self[2:4]), Layer(*self[4:])


def mlp_step(parameters: MLPParameters, observation: Tensor, precision: str = "float32") -> Tensor:
    """One step of the policy as a pure function.

    Args:
        parameters: the weights.
        observation: (B, D).
        precision: of the matrix products, see `raptor.nn.stacked_mlp.product`.

    Returns:
        Action (B, A), linear and unbounded, its components contiguous in memory, as in the simulator's tensors.
    """
    features = last_features(parameters.layers, observation, precision)
    return (product(parameters.output_weight, features.mT, precision) + parameters.output_bias.unsqueeze(-1)).mT


class MLPPolicy(Network):
    """Memoryless policy: observation -> dense, ReLU -> dense, ReLU -> dense -> action.

    It has the interface of `RaptorPolicy`, with a hidden state of width 0. The action is linear; the environment clips
    it to [-1, 1].

    Args:
        observation_dim: as of `RaptorPolicy`.
        hidden_dim: width of both hidden layers.
        action_dim: one number per rotor, in crazyflie order.
    """

    memory_dim = 0

    def __init__(self, observation_dim: int = 22, hidden_dim: int = 64, action_dim: int = 4) -> None:
        super().__init__(observation_dim, hidden_dim, action_dim)
        self.input_layer = nn.Linear(observation_dim, hidden_dim)
        self.middle_layer = nn.Linear(hidden_dim, hidden_dim)
        self.output_layer = nn.Linear(hidden_dim, action_dim)

    @property
    def summary(self) -> str:
        """The layers and their size, for a card."""
        D, H, A = self.observation_dim, self.hidden_dim, self.action_dim
        return f"dense {D}-{H} ReLU, dense {H}-{H} ReLU, dense {H}-{A}, no memory; {self.num_parameters} parameters"

    def tensors(self) -> MLPParameters:
        """The trainable tensors, for `mlp_step`."""
        layers = (self.input_layer, self.middle_layer, self.output_layer)
        return MLPParameters(*(tensor for layer in layers for tensor in (layer.weight, layer.bias)))

    def initial_hidden_state(self, *shape: int) -> Tensor:
        """An empty hidden state, (*shape, 0)."""
        return self.output_layer.bias.new_zeros(*shape, 0)

    def step_rows(self, observation: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """See `raptor.nn.policy.Stepwise.step_rows`."""
        return mlp_step(self.tensors(), observation), hidden
