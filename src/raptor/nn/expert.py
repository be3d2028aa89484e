"""One expert network from anywhere, as it stands in its file."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from raptor.core.errors import UserError
from raptor.nn.activations import ACTIVATIONS
from raptor.nn.stacked_mlp import Layer

SQUASHES = ("tanh", "clip", "none")
LOG_STD_RANGE = (-20.0, 2.0)
"""Of a standard deviation that depends on the observation; stable-baselines3 and rl-tools have the same."""


@dataclasses.dataclass(frozen=True)
class Normalizer:
    """What an observation goes through before the first layer: (observation - mean) / divisor, clipped."""

    mean: Tensor  # (D,)
    divisor: Tensor  # (D,)
    clip: float | None = None  # bound on the magnitude of what comes out

    def __call__(self, observation: Tensor) -> Tensor:
        """Normalised observation (..., D)."""
        normal = (observation - self.mean) / self.divisor
        return normal if self.clip is None else normal.clamp(-self.clip, self.clip)


@dataclasses.dataclass(frozen=True)
class ExpertNetwork:
    """A multi-layer perceptron that somebody trained: observation -> action, without memory.

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
        if not self.layers:
            raise UserError("an expert network needs at least one layer, got none")
        if self.activation not in ACTIVATIONS:
            raise UserError(f"activation must be one of {', '.join(ACTIVATIONS)}, got {self.activation!r}")
        if self.squash not in SQUASHES:
            raise UserError(f"squash must be one of {', '.join(SQUASHES)}, got {self.squash!r}")
        for name, tensor, shape in self._shapes():
            if tuple(tensor.shape) != shape:
                raise UserError(f"{name} must have shape {shape}, got {tuple(tensor.shape)}")
        low, high = self.bounds
        if self.squash == "tanh" and not (high - low).isfinite().all():
            raise UserError(f"a network that ends in tanh needs finite bounds, got {low.tolist()} to {high.tolist()}")

    @torch.no_grad()
    def __call__(self, observation: Tensor) -> Tensor:
        """Action (..., A) for observations (..., D), without noise."""
        return self._squashed(_linear(self._latent(observation), self.layers[-1]))

    @torch.no_grad()
    def sample(self, observation: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Action (..., A) with the exploration noise that the network was trained with.

        Raises:
            UserError: the file says nothing about such noise.
        """
        latent = self._latent(observation)
        if self.log_std_layer is not None:
            log_std = _linear(latent, self.log_std_layer).clamp(*LOG_STD_RANGE)
        elif self.log_std is not None:
            log_std = self.log_std
        else:
            raise UserError(f"this teacher, a {self.source}, has no exploration noise that is known: fly it without")
        mean = _linear(latent, self.layers[-1])
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
        """The line to print: the architecture, then what else was read from the file."""
        squash = {"tanh": "tanh at the end", "clip": "clipped at the end", "none": "nothing at the end"}[self.squash]
        parts = [self.architecture, f"{self.activation} between the layers, {squash}"]
        parts += ["with observation normaliser"] if self.normalizer is not None else []
        return "Teacher architecture: " + " · ".join([*parts, self.source, *self.notes])

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> ExpertNetwork:
        """The same network on another device, in another floating-point type."""

        def moved(value: Any) -> Any:
            if isinstance(value, Tensor):
                return value.to(device=device, dtype=dtype)
            if isinstance(value, Normalizer):
                return Normalizer(moved(value.mean), moved(value.divisor), value.clip)
            if isinstance(value, Layer):
                return Layer(moved(value.weight), moved(value.bias))
            return value

        fields = {field.name: moved(getattr(self, field.name)) for field in dataclasses.fields(self)}
        return ExpertNetwork(**{**fields, "layers": tuple(moved(layer) for layer in self.layers)})

    def _latent(self, observation: Tensor) -> Tensor:
        """What the last hidden layer gives, (..., H)."""
        if observation.shape[-1:] != (self.observation_dim,):
            raise UserError(
                f"observation must have shape (..., {self.observation_dim}), got {tuple(observation.shape)}"
            )
        act = ACTIVATIONS[self.activation]
        x = observation if self.normalizer is None else self.normalizer(observation)
        x = x.to(self.layers[0].weight.dtype)
        for layer in self.layers[:-1]:
            x = act(_linear(x, layer))
        return x

    def _squashed(self, output: Tensor) -> Tensor:
        if self.squash == "none":
            return output
        low, high = self.bounds
        if self.squash == "clip":
            return torch.minimum(torch.maximum(output, low), high)
        return low + 0.5 * (torch.tanh(output) + 1.0) * (high - low)

    def _shapes(self) -> Sequence[tuple[str, Tensor, tuple[int, ...]]]:
        """Each tensor, with the shape that it must have."""
        shapes: list[tuple[str, Tensor, tuple[int, ...]]] = []
        inputs = self.layers[0].weight.shape[-1] if self.layers[0].weight.ndim == 2 else 0
        latent = inputs
        for i, (weight, bias) in enumerate(self.layers):
            outputs, latent = (weight.shape[0] if weight.ndim else 0), inputs
            shapes += [(f"layers.{i}.weight", weight, (outputs, inputs)), (f"layers.{i}.bias", bias, (outputs,))]
            inputs = outputs
        if self.log_std_layer is not None:
            weight, bias = self.log_std_layer
            shapes += [("log_std_layer.weight", weight, (inputs, latent)), ("log_std_layer.bias", bias, (inputs,))]
        for name in ("low", "high", "log_std"):
            if getattr(self, name) is not None:
                shapes.append((name, getattr(self, name), (inputs,)))
        if self.normalizer is not None:
            wide = (self.layers[0].weight.shape[-1],)
            shapes += [("normalizer.mean", self.normalizer.mean, wide)]
            shapes += [("normalizer.divisor", self.normalizer.divisor, wide)]
        return shapes


def _linear(x: Tensor, layer: Layer) -> Tensor:
    return functional.linear(x, layer.weight, layer.bias)
