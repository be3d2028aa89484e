"""The policy: a dense layer, a GRU, a dense layer; 2084 parameters at the published width."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from raptor.nn.stacked_mlp import product


class PolicyParameters(NamedTuple):
    """The tensors of a `RaptorPolicy`, in torch's layout; the gates of the GRU are stacked in the order r, z, n."""

    input_weight: Tensor  # (H, D)
    input_bias: Tensor  # (H,)
    gru_weight_ih: Tensor  # (3 H, H)
    gru_weight_hh: Tensor  # (3 H, H)
    gru_bias_ih: Tensor  # (3 H,)
    gru_bias_hh: Tensor  # (3 H,)
    output_weight: Tensor  # (A, H)
    output_bias: Tensor  # (A,)


def gru_gates(given: Sequence[Tensor], recalled: Sequence[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """Reset gate, update gate and candidate of a GRU, in any layout.

    Args:
        given: shares of the input in r, z and n, each with its bias.
        recalled: shares of the hidden state.

    Source: torch.nn.GRU; the next hidden state is candidate + update * (hidden - candidate).
    """
    reset, update = torch.sigmoid(given[0] + recalled[0]), torch.sigmoid(given[1] + recalled[1])
    return reset, update, torch.tanh(given[2] + reset * recalled[2])


def policy_step(
    parameters: PolicyParameters, observation: Tensor, hidden: Tensor, precision: str = "float32"
) -> tuple[Tensor, Tensor]:
    """One step of the policy as a pure function.

    Args:
        parameters: the weights.
        observation: (B, D).
        hidden: (B, H).
        precision: of the matrix products, see `raptor.nn.stacked_mlp.product`.

    Returns:
        Action (B, A), linear and unbounded, and the next hidden state (B, H). The action has its components contiguous
        in memory, as the simulator's tensors do; the hidden state is contiguous row by row, as the products like it.

    Source: the RAPTOR paper (dense 22-16 ReLU, GRU 16-16, dense 16-4).
    """
    p = parameters
    x = torch.relu(product(observation, p.input_weight.mT, precision) + p.input_bias)
    given = product(x, p.gru_weight_ih.mT, precision) + p.gru_bias_ih
    recalled = product(hidden, p.gru_weight_hh.mT, precision) + p.gru_bias_hh
    _, update, candidate = gru_gates(given.chunk(3, dim=-1), recalled.chunk(3, dim=-1))
    following = candidate + update * (hidden - candidate)
    action = product(p.output_weight, following.mT, precision) + p.output_bias.unsqueeze(-1)
    return action.mT, following


class Stepwise:
    """Interface of every policy: one step at a time, and a hidden state that is kept from call to call."""

    observation_dim: int
    action_dim: int
    memory_dim: int  # width of the hidden state
    initial_hidden: Tensor  # (H,)
    _hidden: Tensor | None = None

    def step_rows(self, observation: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """One step for rows: (B, D) and (B, H) -> action (B, A) and the next hidden state (B, H)."""
        raise NotImplementedError

    def initial_hidden_state(self, *shape: int) -> Tensor:
        """The hidden state of a fresh start, (*shape, H)."""
        return self.initial_hidden.expand(*shape, self.memory_dim).clone(memory_format=torch.contiguous_format)

    def forward(self, observation: Tensor, hidden: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """One step.

        Args:
            observation: (..., D).
            hidden: (..., H); the initial hidden state by default.

        Returns:
            Action (..., A) and the next hidden state (..., H).

        Raises:
            ValueError: the observation is of another width, or the hidden state of another shape.
        """
        shape = observation.shape[:-1]
        if observation.shape[-1:] != (self.observation_dim,):
            raise ValueError(
                f"the policy observes {self.observation_dim} numbers, got an observation of shape "
                f"{tuple(observation.shape)}"
            )
        if hidden is None:
            hidden = self.initial_hidden_state(*shape)
        if hidden.shape != (*shape, self.memory_dim):
            raise ValueError(
                f"an observation of shape {tuple(observation.shape)} needs a hidden state of shape "
                f"{(*shape, self.memory_dim)}, got {tuple(hidden.shape)}: reset before another batch begins"
            )
        batch = shape.numel()
        rows = observation.reshape(batch, self.observation_dim), hidden.reshape(batch, self.memory_dim)
        action, hidden = self.step_rows(*rows)
        return action.reshape(*shape, self.action_dim), hidden.reshape(*shape, self.memory_dim)

    def reset(self) -> None:
        """Forget: the next `evaluate_step` starts from the initial hidden state."""
        self._hidden = None

    @torch.no_grad()
    def evaluate_step(self, observation: Tensor) -> Tensor:
        """Action for one observation (..., D), keeping the hidden state from call to call."""
        action, self._hidden = self.forward(observation, self._hidden)
        return action

    def get_hidden_state(self) -> Tensor | None:
        """The hidden state that `evaluate_step` left, or None after a reset."""
        return None if self._hidden is None else self._hidden.clone()

    def set_hidden_state(self, hidden: Tensor | None) -> None:
        """Set the hidden state (..., H) that the next `evaluate_step` starts from; None resets."""
        if hidden is not None and hidden.shape[-1] != self.memory_dim:
            raise ValueError(f"the hidden state has {self.memory_dim} numbers, got shape {tuple(hidden.shape)}")
        self._hidden = None if hidden is None else hidden.clone()


class Network(Stepwise, nn.Module):
    """A policy that can be trained: its dimensions, its size, and a card.

    Args:
        observation_dim: D.
        hidden_dim: width of both hidden layers.
        action_dim: A.
    """

    def __init__(self, observation_dim: int, hidden_dim: int, action_dim: int) -> None:
        super().__init__()
        self.observation_dim, self.hidden_dim, self.action_dim = observation_dim, hidden_dim, action_dim
        self.card: dict[str, Any] = {}  # what is known about the weights; filled when they are read from a file

    @property
    def num_parameters(self) -> int:
        """Number of stored numbers, an initial hidden state included."""
        return sum(parameter.numel() for parameter in self.parameters())


class RaptorPolicy(Network):
    """Recurrent policy: observation -> dense, ReLU -> GRU -> dense -> action.

    The action is linear; the environment clips it to [-1, 1]. The initial hidden state is stored with the weights and
    not trained, as in rl-tools; it counts among the 2084 parameters of the published size.

    Args:
        observation_dim: 22: position error 3, rotation matrix 9, velocity error 3, body rates 3, previous action 4.
        hidden_dim: H, width of both hidden layers and of the hidden state.
        action_dim: one number per rotor, in crazyflie order.
    """

    def __init__(self, observation_dim: int = 22, hidden_dim: int = 16, action_dim: int = 4) -> None:
        super().__init__(observation_dim, hidden_dim, action_dim)
        self.memory_dim = hidden_dim
        self.input_layer = nn.Linear(observation_dim, hidden_dim)
        self.gru = nn.GRU(hidden_dim, hidden_dim)
        self.output_layer = nn.Linear(hidden_dim, action_dim)
        self.initial_hidden = nn.Parameter(torch.zeros(hidden_dim), requires_grad=False)

    @property
    def summary(self) -> str:
        """The layers and their size, for a card."""
        D, H, A = self.observation_dim, self.hidden_dim, self.action_dim
        return f"dense {D}-{H} ReLU, GRU {H}, dense {H}-{A}; {self.num_parameters} parameters"

    def tensors(self) -> PolicyParameters:
        """The trainable tensors, for `policy_step`."""
        layers = (self.input_layer.weight, self.input_layer.bias), (self.output_layer.weight, self.output_layer.bias)
        weight_ih, weight_hh, bias_ih, bias_hh = self.gru.all_weights[0]
        return PolicyParameters(*layers[0], weight_ih, weight_hh, bias_ih, bias_hh, *layers[1])

    def step_rows(self, observation: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """See `Stepwise.step_rows`."""
        return policy_step(self.tensors(), observation, hidden)

    def forward_sequence(
        self, observations: Tensor, hidden: Tensor | None = None, resets: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """All steps of a batch of sequences.

        Args:
            observations: (T, B, D).
            hidden: (B, H) before the first step; the initial hidden state by default.
            resets: (T, B) bool; True where a new episode begins: the hidden state of that row is set to the initial one
                before the step, and no gradient crosses.

        Returns:
            Actions (T, B, A) and the last hidden state (B, H).
        """
        num_steps, batch = observations.shape[:2]
        if hidden is None:
            hidden = self.initial_hidden_state(batch)
        features = torch.relu(self.input_layer(observations))
        if resets is None:
            outputs, last = self.gru(features, hidden.contiguous().unsqueeze(0))
            return self.output_layer(outputs), last[0]
        outputs = []
        for t in range(num_steps):
            hidden = torch.where(resets[t].unsqueeze(-1), self.initial_hidden, hidden)
            _, last = self.gru(features[t : t + 1], hidden.contiguous().unsqueeze(0))
            hidden = last[0]
            outputs.append(hidden)
        return self.output_layer(torch.stack(outputs)), hidden
