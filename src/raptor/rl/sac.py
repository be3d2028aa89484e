"""Soft actor-critic for a population: T agents learn at once, each with networks, replay and temperature of its own.

Source: T. Haarnoja et al., Soft Actor-Critic Algorithms and Applications (2018). Where rl-tools, which trained the
published teachers, departs from it, the settings say so, and the preset `paper` follows rl-tools.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from raptor.config.settings import Settings, at_least, between, each, not_negative, positive, setting
from raptor.core.compilation import FlatFunction, compile_flat
from raptor.nn.stacked_mlp import Layer, Layers, forward, initial_layers, laid_out
from raptor.rl.adam import AdamState, adam_start, adam_step, linear_decay
from raptor.rl.replay import Batch

LOG_STD_RANGE = (-20.0, 2.0)
TANH_ROUNDING = 1e-6
"""Keeps the logarithm of the squashing's slope finite."""


@dataclasses.dataclass(frozen=True)
class SACConfig(Settings):
    """Settings of the updates. The defaults are RAPTOR's, to the letter."""

    gamma: float = setting(0.99, "discount per step", between(0, 1))
    batch_size: int = setting(128, "transitions per update and teacher, shared by critics and actor", at_least(1))
    actor_learning_rate: float = setting(3e-4, "of Adam", positive)
    critic_learning_rate: float = setting(3e-4, "of Adam", positive)
    temperature_learning_rate: float = setting(1e-4, "of Adam, on the logarithm of the temperature", not_negative)
    final_learning_rate: float = setting(
        1.0, "fraction of the learning rates that is left at the end; they fall linearly to it", between(0, 1)
    )
    polyak: float = setting(0.005, "fraction of the critics that goes into their targets at each update", between(0, 1))
    actor_interval: int = setting(2, "updates of the critics per update of the actor and the temperature", at_least(1))
    reward_scale: float = setting(1.0, "factor on the rewards that the critics learn from", positive)
    initial_temperature: float = setting(0.5, "weight of the entropy at the start", positive)
    target_entropy: float = setting(-2.0, "nats, that the temperature steers to")
    actor_widths: tuple[int, ...] = setting((64, 64), "of the hidden layers", each(at_least(1)))
    critic_widths: tuple[int, ...] = setting((256, 256), "of the hidden layers", each(at_least(1)))
    entropy_bonus: Literal["undiscounted", "discounted"] = setting(
        "undiscounted", "as in rl-tools, or as published; see `critic_target`"
    )
    adam_epsilon: float = setting(1e-7, "added to the root of the variance", not_negative)
    adam_variance_floor: float = setting(1e-7, "lower bound on the variance, as in rl-tools", not_negative)
    precision: Literal["float32", "tf32", "bfloat16"] = setting("float32", "of matrix products; all else is float32")


class SACState(NamedTuple):
    """Everything that an update changes. Critics come in twins, the first of all T agents before the second."""

    actor: Layers  # (T, ...)
    critics: Layers  # (2 T, ...)
    targets: Layers  # (2 T, ...)
    log_temperature: Tensor  # (T,)
    actor_adam: AdamState
    critic_adam: AdamState
    temperature_adam: AdamState


class Metrics(NamedTuple):
    """Figures of an update, one per agent."""

    critic_loss: Tensor  # (T,)
    actor_loss: Tensor  # (T,)
    entropy: Tensor  # (T,) nats
    temperature: Tensor  # (T,)
    value: Tensor  # (T,) mean of the lower of both critics


def sac_start(
    config: SACConfig, num: int, observation_dim: int, action_dim: int, generator: torch.Generator
) -> SACState:
    """Fresh agents, `num` of them, on the device of the generator."""
    actor = initial_layers(num, (observation_dim, *config.actor_widths, 2 * action_dim), generator)
    critics = initial_layers(2 * num, (observation_dim + action_dim, *config.critic_widths, 1), generator)
    temperature = torch.full((num,), math.log(config.initial_temperature), device=generator.device)
    return SACState(actor, critics, critics, temperature, *map(adam_start, (actor, critics, temperature)))


def sample_action(
    actor: Layers, observation: Tensor, noise: Tensor, precision: str = "float32"
) -> tuple[Tensor, Tensor]:
    """Squashed Gaussian actions (T, B, A) in (-1, 1), and the logarithm of their density (T, B).

    The actor gives mean and logarithm of the standard deviation for observations (T, B, O); noise is standard normal.
    """
    mean, log_std = forward(actor, observation, precision).chunk(2, dim=-1)
    log_std = log_std.clamp(*LOG_STD_RANGE)
    action = torch.tanh(mean + log_std.exp() * noise)
    gaussian = -0.5 * noise * noise - log_std - 0.5 * math.log(2 * math.pi)
    return action, (gaussian - torch.log(1 - action * action + TANH_ROUNDING)).sum(-1)


def values(critics: Layers, observation: Tensor, action: Tensor, precision: str = "float32") -> Tensor:
    """Values (2, T, B) by both critics of each agent of observations (T, B, O) and actions (T, B, A)."""
    both = torch.cat([observation, action], dim=-1).repeat(2, 1, 1)
    return forward(critics, both, precision).squeeze(-1).unflatten(0, (2, -1))


def critic_target(config: SACConfig, state: SACState, batch: Batch, noise: Tensor) -> Tensor:
    """Regression target of the critics, (T, B).

    The entropy of the next action counts in full and on terminal steps too where `entropy_bonus` is `undiscounted`, as
    in rl-tools; it is part of the value of the next observation where it is `discounted`, as in Haarnoja et al.
    """
    action, log_density = sample_action(state.actor, batch.next_observation, noise, config.precision)
    lower = values(state.targets, batch.next_observation, action, config.precision).amin(0)
    bonus = -state.log_temperature.exp().unsqueeze(-1) * log_density
    reward = config.reward_scale * batch.reward
    if config.entropy_bonus == "undiscounted":
        return reward + batch.discount * lower + bonus
    return reward + batch.discount * (lower + bonus)


def update_critics(
    config: SACConfig, state: SACState, batch: Batch, noise: Tensor, decay: Tensor | float = 1.0
) -> tuple[SACState, Tensor, Tensor]:
    """State after a step of the critics and their targets, their error (T, B), averaged over both, and loss (T,)."""
    target = critic_target(config, state, batch, noise)

    def loss(critics: Layers) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        error = values(critics, batch.observation, batch.action, config.precision) - target
        per_agent = 0.5 * (batch.weight * error * error).mean(-1).sum(0)
        return per_agent.sum(), (error.abs().mean(0), per_agent)

    gradient, (error, per_agent) = torch.func.grad(loss, has_aux=True)(state.critics)
    critics, adam = _adam(config)(state.critics, gradient, state.critic_adam, config.critic_learning_rate * decay)
    targets = pytree.tree_map(lambda old, new: old + config.polyak * (new - old), state.targets, critics)
    return state._replace(critics=critics, targets=targets, critic_adam=adam), error, per_agent


def update_actor(
    config: SACConfig, state: SACState, batch: Batch, noise: Tensor, decay: Tensor | float = 1.0
) -> tuple[SACState, Tensor, Tensor, Tensor]:
    """State after a step of the actor, then of the temperature; per agent (T,) actor's loss, entropy and mean value."""
    temperature = state.log_temperature.exp()

    def loss(actor: Layers) -> tuple[Tensor, tuple[Tensor, Tensor, Tensor]]:
        action, log_density = sample_action(actor, batch.observation, noise, config.precision)
        lower = values(state.critics, batch.observation, action, config.precision).amin(0)
        per_agent = (temperature.unsqueeze(-1) * log_density - lower).mean(-1)
        return per_agent.sum(), (per_agent, -log_density.mean(-1), lower.mean(-1))

    gradient, (per_agent, entropy, value) = torch.func.grad(loss, has_aux=True)(state.actor)
    adam, steering = _adam(config), temperature * (entropy - config.target_entropy)
    actor = adam(state.actor, gradient, state.actor_adam, config.actor_learning_rate * decay)
    steered = adam(state.log_temperature, steering, state.temperature_adam, config.temperature_learning_rate * decay)
    moved = state._replace(actor=actor[0], actor_adam=actor[1], log_temperature=steered[0], temperature_adam=steered[1])
    return moved, per_agent, entropy, value


def _adam(config: SACConfig) -> Callable[..., tuple[Any, AdamState]]:
    return functools.partial(adam_step, epsilon=config.adam_epsilon, variance_floor=config.adam_variance_floor)


@dataclasses.dataclass(eq=False)
class SAC:
    """T agents and their updates, compiled; the state is changed in place, so that a captured graph can replay them."""

    config: SACConfig
    num: int  # T
    observation_dim: int
    action_dim: int
    _: dataclasses.KW_ONLY
    generator: torch.Generator  # of the initial networks, and of all noise; its device is that of the agents
    compile: bool = True  # False runs eagerly

    def __post_init__(self) -> None:
        start = sac_start(self.config, self.num, self.observation_dim, self.action_dim, self.generator)
        self.state: SACState = pytree.tree_map(torch.clone, start)
        self._leaves = pytree.tree_leaves(self.state)
        self._compiled: dict[bool, FlatFunction] = {}
        self.update_count = 0
        self._zero = torch.zeros((), device=self.generator.device)

    @torch.no_grad()
    def update(self, batch: Batch, progress: Tensor | None = None) -> tuple[Tensor, Metrics | None]:
        """One step of the critics, and every `actor_interval` updates one of the actor and the temperature.

        Returns the error of the critics (T, B), for priorities; and metrics, where the actor took part.
        """
        with_actor = self.update_count % self.config.actor_interval == 0
        noise = [self._noise() for _ in range(1 + with_actor)]
        given = batch, self._zero if progress is None else progress, noise
        tensors = pytree.tree_leaves(given)
        if with_actor not in self._compiled:
            step = functools.partial(self._step, pytree.tree_structure((self.state, *given)))
            example = [*(leaf.clone() for leaf in self._leaves), *tensors]
            self._compiled[with_actor] = compile_flat(step, example, self.compile, "an update of the networks")
        error, *metrics = self._compiled[with_actor](*self._leaves, *tensors)
        self.update_count += 1
        return error, Metrics(*metrics) if metrics else None

    def _noise(self) -> Tensor:
        shape = self.num, self.config.batch_size, self.action_dim
        return torch.randn(shape, generator=self.generator, device=self.generator.device)

    def _step(self, structure: pytree.TreeSpec, *tensors: Tensor) -> list[Tensor]:
        state, batch, progress, noise = pytree.tree_unflatten(list(tensors), structure)
        decay = linear_decay(self.config.final_learning_rate, progress)
        moved, error, critic_loss = update_critics(self.config, state, batch, noise[0], decay)
        metrics: list[Tensor] = []
        if len(noise) > 1:
            moved, actor_loss, entropy, value = update_actor(self.config, moved, batch, noise[1], decay)
            metrics = [critic_loss, actor_loss, entropy, moved.log_temperature.exp(), value]
        for old, new in zip(tensors, pytree.tree_leaves(moved), strict=False):
            if new is not old:
                old.copy_(new)
        return [error, *metrics]

    def teachers(self) -> Layers:
        """The networks whose output, squashed by tanh, is the deterministic action (T, B, A); copies."""
        *hidden, last = self.state.actor
        mean = Layer(last.weight[:, : self.action_dim], last.bias[:, : self.action_dim])
        return laid_out(pytree.tree_map(torch.clone, (*hidden, mean)))

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next update depends on, but the generator."""
        return {"leaves": [leaf.clone() for leaf in self._leaves], "update_count": self.update_count}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go back to a state that `state_dict` gave."""
        for leaf, stored in zip(self._leaves, state["leaves"], strict=True):
            leaf.copy_(stored)
        self.update_count = state["update_count"]
