"""Expert networks of any library."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import Tensor

from raptor.core.errors import UserError
from raptor.nn.activations import ACTIVATIONS
from raptor.nn.stacked_mlp import Layer, check_layers, last_features, linear

SQUASHES = ("tanh", "clip", "none")
LOG_STD_RANGE = (-20.0, 2.0)
"""Limits of a standard deviation that depends on the observation, as in stable-baselines3 and rl-tools."""


@dataclasses.dataclass(frozen=True)
class Normalizer:
    """Normalisation before the first layer: (observation - mean) / divisor, clipped."""

    mean: Tensor  # (D,)
    divisor: Tensor  # (D,)
    clip: float | None = None  # bound on the magnitude of the result

    def __call__(self, observation: Tensor) -> Tensor:
        """Normalised observation (..., D)."""
        normal = (observation - self.mean) / self.divisor
        return normal if self.clip is None else normal.clamp(-self.clip, self.clip)


@dataclasses.dataclass(frozen=True)
class ExpertNetwork:
    """A trained multi-layer perceptron: observation -> action, without memory.

    Raises:
        UserError: the parts do not fit together.
    """

    layers: tuple[Layer, ...]  # weights (out, in) and biases (out,)
    activation: str = "relu"  # between the layers, one of `raptor.nn.activations.ACTIVATIONS`
    squash: str = "none"  # of the last layer's output: tanh, rescaled to the bounds; clip, to the bounds; none
    low: Tensor | None = None  # (A,) bounds of the action; -1 and 1 where there are none
    high: Tensor | None = None  # (A,)
    normalizer: Normalizer | None = None
    log_std: Tensor | None = None  # (A,) of its Gaussian exploration noise, before the squash
    log_std_layer: Layer | None = None  # in its place where it depends on the observation: after the last hidden layer
    source: str = "network"  # what kind of file it is from
    notes: tuple[str, ...] = ()  # what else was taken from where, in words

    def __post_init__(self) -> None:
        """Check that everything fits together."""
        object.__setattr__(self, "layers", tuple(Layer(*layer) for layer in self.layers))
        check_layers(self.layers, stacked=False)
        if self.activation not in ACTIVATIONS:
            raise UserError(f"activation must be one of {', '.join(ACTIVATIONS)}, got {self.activation!r}")
        if self.squash not in SQUASHES:
            raise UserError(f"squash must be one of {', '.join(SQUASHES)}, got {self.squash!r}")
        for name, tensor, shape in self._others():
            if tensor is not None and tuple(tensor.shape) != shape:
                raise UserError(f"{name} must have shape {shape}, got {tuple(tensor.shape)}")
        low, high = self.bounds
        if self.squash == "tanh" and not (high - low).isfinite().all():
            raise UserError(f"a network that ends in tanh needs finite bounds, got {low.tolist()} to {high.tolist()}")

    @torch.no_grad()
    def __call__(self, observation: Tensor) -> Tensor:
        """Action (..., A) for observations (..., D), without noise."""
        return self._squashed(linear(self.layers[-1], self._latent(observation)))

    @torch.no_grad()
    def sample(self, observation: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Action (..., A) with the exploration noise that the network was trained with.

        Raises:
            UserError: no such noise is known.
        """
        latent = self._latent(observation)
        if self.log_std_layer is not None:
            log_std = linear(self.log_std_layer, latent).clamp(*LOG_STD_RANGE)
        elif self.log_std is not None:
            log_std = self.log_std
        else:
            raise UserError(f"this teacher, a {self.source}, has no exploration noise that is known: run it without")
        mean = linear(self.layers[-1], latent)
        noise = torch.randn(mean.shape, generator=generator, dtype=mean.dtype, device=mean.device)
        return self._squashed(mean + log_std.exp() * noise)

    @property
    def observation_dim(self) -> int:
        """Width of the observation."""
        return self.layers[0].weight.shape[-1]

    @property
    def action_dim(self) -> int:
        """Width of the action."""
        return len(self.layers[-1].bias)

    @property
    def hidden(self) -> tuple[int, ...]:
        """Widths of the hidden layers."""
        return tuple(len(layer.bias) for layer in self.layers[:-1])

    @property
    def bounds(self) -> tuple[Tensor, Tensor]:
        """Lowest and highest action, (A,) each."""
        bias = self.layers[-1].bias
        low = torch.full_like(bias, -1.0) if self.low is None else self.low
        return low, torch.full_like(bias, 1.0) if self.high is None else self.high

    @property
    def architecture(self) -> str:
        """Such as `obs=26, actions=4, hidden=[256, 256, 256]`."""
        return f"obs={self.observation_dim}, actions={self.action_dim}, hidden={list(self.hidden)}"

    @property
    def description(self) -> str:
        """One line: the architecture, then what else was read from the file."""
        squash = {"tanh": "tanh at the end", "clip": "clipped at the end", "none": "nothing at the end"}[self.squash]
        parts = [self.architecture, f"{self.activation} between the layers, {squash}"]
        parts += ["with observation normaliser"] if self.normalizer is not None else []
        return "Teacher architecture: " + " · ".join([*parts, self.source, *self.notes])

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> ExpertNetwork:
        """Copy to another device or floating-point type."""

        def moved(value: Any) -> Any:
            if isinstance(value, Tensor):
                return value.to(device=device, dtype=dtype)
            if isinstance(value, Normalizer):
                return Normalizer(moved(value.mean), moved(value.divisor), value.clip)
            if isinstance(value, Layer):
                return Layer(*map(moved, value))
            return tuple(map(moved, value)) if isinstance(value, tuple) else value

        return ExpertNetwork(**{field.name: moved(getattr(self, field.name)) for field in dataclasses.fields(self)})

    def _latent(self, observation: Tensor) -> Tensor:
        """Output of the last hidden layer, (..., H)."""
        if observation.shape[-1:] != (self.observation_dim,):
            raise UserError(
                f"observation must have shape (..., {self.observation_dim}), got {tuple(observation.shape)}"
            )
        x = observation if self.normalizer is None else self.normalizer(observation)
        return last_features(self.layers, x.to(self.layers[0].weight.dtype), activation=self.activation)

    def _squashed(self, output: Tensor) -> Tensor:
        if self.squash == "none":
            return output
        low, high = self.bounds
        if self.squash == "clip":
            return torch.minimum(torch.maximum(output, low), high)
        return low + 0.5 * (torch.tanh(output) + 1.0) * (high - low)

    def _others(self) -> list[tuple[str, Tensor | None, tuple[int, ...]]]:
        """Tensors beside the layers, each with the shape that it must have."""
        wide, actions, latent = self.observation_dim, self.action_dim, self.layers[-1].weight.shape[-1]
        weight, bias = self.log_std_layer or (None, None)
        mean, divisor = (self.normalizer.mean, self.normalizer.divisor) if self.normalizer else (None, None)
        return [
            ("log_std_layer.weight", weight, (actions, latent)),
            ("log_std_layer.bias", bias, (actions,)),
            *((name, getattr(self, name), (actions,)) for name in ("low", "high", "log_std")),
            ("normalizer.mean", mean, (wide,)),
            ("normalizer.divisor", divisor, (wide,)),
        ]
