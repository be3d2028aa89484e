"""The policies: a dense layer, a GRU and a dense layer with 2084 parameters as published; and an MLP as baseline."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from raptor.nn.stacked_mlp import Layer, Layers, last_features, product


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


class MLPParameters(NamedTuple):
    """The tensors of an `MLPPolicy`, in torch's layout."""

    input_weight: Tensor  # (H, D)
    input_bias: Tensor  # (H,)
    middle_weight: Tensor  # (H, H)
    middle_bias: Tensor  # (H,)
    output_weight: Tensor  # (A, H)
    output_bias: Tensor  # (A,)

    @property
    def layers(self) -> Layers:
        """The tensors as layers for `raptor.nn.stacked_mlp`."""
        return Layer(*self[:2]), Layer(*self[2:4]), Layer(*self[4:])


def gru_gates(given: Sequence[Tensor], recalled: Sequence[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """Reset gate, update gate and candidate of a GRU in any layout, from parts of input and hidden state in r, z and n.

    Source: torch.nn.GRU; the next hidden state is candidate + update * (hidden - candidate).
    """
    reset, update = torch.sigmoid(given[0] + recalled[0]), torch.sigmoid(given[1] + recalled[1])
    return reset, update, torch.tanh(given[2] + reset * recalled[2])


def policy_step(
    parameters: PolicyParameters, observation: Tensor, hidden: Tensor, precision: str = "float32"
) -> tuple[Tensor, Tensor]:
    """One step of the recurrent policy as a pure function, (B, D) and (B, H) -> action (B, A) and hidden state (B, H).

    The action is linear. Both results are component by component in memory, as the simulator's tensors are.
    """
    p, hidden = parameters, hidden.mT
    x = torch.relu(product(p.input_weight, observation.mT, precision) + p.input_bias.unsqueeze(-1))
    given = product(p.gru_weight_ih, x, precision) + p.gru_bias_ih.unsqueeze(-1)
    recalled = product(p.gru_weight_hh, hidden, precision) + p.gru_bias_hh.unsqueeze(-1)
    _, update, candidate = gru_gates(given.chunk(3), recalled.chunk(3))
    following = candidate + update * (hidden - candidate)
    return _action(p, following.mT, precision), following.mT


def mlp_step(parameters: MLPParameters, observation: Tensor, precision: str = "float32") -> Tensor:
    """One step of the memoryless policy as a pure function, (B, D) -> (B, A); the action as that of `policy_step`."""
    return _action(parameters, last_features(parameters.layers, observation, precision), precision)


def _action(parameters: PolicyParameters | MLPParameters, features: Tensor, precision: str) -> Tensor:
    return (product(parameters.output_weight, features.mT, precision) + parameters.output_bias.unsqueeze(-1)).mT


class Stepwise:
    """Interface of every policy: one step at a time, and a hidden state that is kept from call to call."""

    observation_dim: int
    action_dim: int
    memory_dim: int  # width of the hidden state
    initial_hidden: Tensor  # (H,)
    card: dict[str, Any]  # what is known about the weights
    _hidden: Tensor | None = None

    def __repr__(self) -> str:
        """The network, what it takes and gives, and the card of its weights, as far as there is one."""
        known: dict[str, Any] = {name: self.card[name] for name in ("name", "training", "licence") if name in self.card}
        widths = f"(..., {self.observation_dim}) -> action (..., {self.action_dim}), memory {self.memory_dim}"
        lines = {"network": self.summary, "observation": widths, **known}
        return "\n".join([type(self).__name__, *(f"  {name:11} {line}" for name, line in lines.items())])

    @property
    def summary(self) -> str:
        """The network and its size, in words."""
        raise NotImplementedError

    def step_rows(self, observation: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """One step for rows: (B, D) and (B, H) -> action (B, A) and the next hidden state (B, H)."""
        raise NotImplementedError

    def initial_hidden_state(self, *shape: int) -> Tensor:
        """The hidden state of a fresh start, (*shape, H)."""
        return self.initial_hidden.expand(*shape, self.memory_dim).clone(memory_format=torch.contiguous_format)

    def forward(self, observation: Tensor, hidden: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Action (..., A) and next hidden state (..., H) for (..., D) and, by default, the initial hidden state.

        Observations of another width, or hidden states of another shape, are a `ValueError`.
        """
        shape = observation.shape[:-1]
        if observation.shape[-1:] != (self.observation_dim,):
            got = f"got an observation of shape {tuple(observation.shape)}"
            raise ValueError(f"the policy observes {self.observation_dim} numbers, {got}{self._components}")
        if hidden is None:
            hidden = self.initial_hidden_state(*shape)
        if hidden.shape != (*shape, self.memory_dim):
            needs = f"{tuple(observation.shape)} needs a hidden state of shape {(*shape, self.memory_dim)}"
            got = f"got {tuple(hidden.shape)}: reset before another batch begins"
            raise ValueError(f"an observation of shape {needs}, {got}")
        batch = shape.numel()
        rows = observation.reshape(batch, self.observation_dim), hidden.reshape(batch, self.memory_dim)
        action, hidden = self.step_rows(*rows)
        return action.reshape(*shape, self.action_dim), hidden.reshape(*shape, self.memory_dim)

    @property
    def _components(self) -> str:
        """What it observes, where that is not the default, as the end of an error."""
        names = getattr(self, "layout", {}).get("observation", ())
        shown = "QuadrotorEnv(..., Task().observing(policy.layout)) shows them"
        return f"; they are {', '.join(names)}: {shown}" if names else ""

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
    """A policy that can be trained: its dimensions, its size, and a card."""

    def __init__(self, observation_dim: int, hidden_dim: int, action_dim: int) -> None:
        super().__init__()
        self.observation_dim, self.hidden_dim, self.action_dim = observation_dim, hidden_dim, action_dim
        self.card: dict[str, Any] = {}  # what is known about the weights; filled when they are read from a file
        self.layout: dict[str, Any] = {}  # what it observes, see `raptor.tasks.Task.observing`; empty: the default

    @property
    def num_parameters(self) -> int:
        """Number of stored numbers, an initial hidden state included."""
        return sum(parameter.numel() for parameter in self.parameters())


class RaptorPolicy(Network):
    """Recurrent policy: observation -> dense, ReLU -> GRU -> dense -> action, with a hidden state as wide as a layer.

    It observes position error 3, rotation matrix 9, velocity error 3, body rates 3 and previous action 4. The action,
    one number per rotor in crazyflie order, is linear; the environment clips it to [-1, 1]. The initial hidden state is
    stored with the weights and not trained, as in rl-tools; it counts among the 2084 parameters of the published size.
    Source: the RAPTOR paper (dense 22-16 ReLU, GRU 16-16, dense 16-4).
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
        return PolicyParameters(*(p for p in self.parameters() if p is not self.initial_hidden))

    def step_rows(self, observation: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """See `Stepwise.step_rows`."""
        return policy_step(self.tensors(), observation, hidden)

    def forward_sequence(
        self, observations: Tensor, hidden: Tensor | None = None, resets: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Actions (T, B, A) and the last hidden state (B, H) of a batch of sequences (T, B, D).

        The hidden state (B, H) is before the first step the initial one by default; it is set to that one, and no
        gradient crosses, before each step where `resets` (T, B) is True.
        """
        hidden = self.initial_hidden_state(observations.shape[1]) if hidden is None else hidden
        features = torch.relu(self.input_layer(observations))
        outputs = []
        for t, some in enumerate([features] if resets is None else features.split(1)):
            if resets is not None:
                hidden = torch.where(resets[t].unsqueeze(-1), self.initial_hidden, hidden)
            output, last = self.gru(some, hidden.contiguous().unsqueeze(0))
            outputs.append(output)
            hidden = last[0]
        return self.output_layer(torch.cat(outputs)), hidden


class MLPPolicy(Network):
    """Memoryless policy, the baseline of the recurrent one: three dense layers with ReLU between them.

    It has the interface and the arguments of `RaptorPolicy`, and a hidden state of width 0.
    """

    memory_dim = 0

    def __init__(self, observation_dim: int = 22, hidden_dim: int = 64, action_dim: int = 4) -> None:
        super().__init__(observation_dim, hidden_dim, action_dim)
        self.input_layer = nn.Linear(observation_dim, hidden_dim)
        self.middle_layer = nn.Linear(hidden_dim, hidden_dim)
        self.output_layer = nn.Linear(hidden_dim, action_dim)
        self.register_buffer("initial_hidden", torch.zeros(0, device="cpu"), persistent=False)  # also of meta weights

    @property
    def summary(self) -> str:
        """The layers and their size, for a card."""
        D, H, A = self.observation_dim, self.hidden_dim, self.action_dim
        return f"dense {D}-{H} ReLU, dense {H}-{H} ReLU, dense {H}-{A}, no memory; {self.num_parameters} parameters"

    def tensors(self) -> MLPParameters:
        """The trainable tensors, for `mlp_step`."""
        return MLPParameters(*self.parameters())

    def step_rows(self, observation: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """See `Stepwise.step_rows`."""
        return mlp_step(self.tensors(), observation), hidden
