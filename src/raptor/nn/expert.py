"""Expert networks of any library, and how they become teachers, from 26 raw numbers to 4 in [-1, 1]."""

from __future__ import annotations

import dataclasses
import math

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils import _pytree as pytree

from raptor.core.compilation import register
from raptor.core.errors import UserError
from raptor.nn.activations import ACTIVATIONS, Activations, known
from raptor.nn.stacked_mlp import Layer, Layers, check_layers, check_shape, last_features, linear
from raptor.quadrotor.parameters import NUM_ROTORS
from raptor.tasks.observation import STUDENT_DIM, TEACHER_DIM

SQUASHES = {"tanh": "tanh at the end", "clip": "clipped at the end", "none": "nothing at the end"}
LOG_STD_RANGE = (-20.0, 2.0)
"""Limits of a standard deviation that depends on the observation, as in stable-baselines3 and rl-tools."""

COMPONENTS = (
    "position error 3 + rotation matrix 9 + velocity error 3 + angular velocity 3 + previous action 4 + rotor speeds 4"
)
"""Observation of a teacher, with widths; a student sees all but the last."""


@register()
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


@register()
@dataclasses.dataclass(frozen=True)
class ExpertNetwork:
    """A trained multi-layer perceptron: observation -> action, without memory. Where it does not fit: `UserError`."""

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
        known("activation", self.activation, tuple(ACTIVATIONS))
        known("squash", self.squash, tuple(SQUASHES))
        wide, actions, latent = self.observation_dim, self.action_dim, self.layers[-1].weight.shape[-1]
        if self.log_std_layer:
            check_shape("log_std_layer.weight", self.log_std_layer[0], (actions, latent))
            check_shape("log_std_layer.bias", self.log_std_layer[1], (actions,))
        for name in ("low", "high", "log_std"):
            check_shape(name, getattr(self, name), (actions,))
        if self.normalizer:
            check_shape("normalizer.mean", self.normalizer.mean, (wide,))
            check_shape("normalizer.divisor", self.normalizer.divisor, (wide,))
        low, high = self.bounds
        if self.squash == "tanh" and not (high - low).isfinite().all():
            raise UserError(f"a network that ends in tanh needs finite bounds, got {low.tolist()} to {high.tolist()}")

    @torch.no_grad()
    def __call__(self, observation: Tensor) -> Tensor:
        """Action (..., A) for observations (..., D), without noise."""
        return self._squashed(linear(self.layers[-1], self._latent(observation)))

    @torch.no_grad()
    def sample(self, observation: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Action (..., A) with the exploration noise of the training; a `UserError` where none is known."""
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
        one = torch.ones_like(self.layers[-1].bias)
        return -one if self.low is None else self.low, one if self.high is None else self.high

    @property
    def architecture(self) -> str:
        """Such as `obs=26, actions=4, hidden=[256, 256, 256]`."""
        return f"obs={self.observation_dim}, actions={self.action_dim}, hidden={list(self.hidden)}"

    @property
    def description(self) -> str:
        """One line: the architecture, then what else was read from the file."""
        parts = [self.architecture, f"{self.activation} between the layers, {SQUASHES[self.squash]}"]
        parts += ["with observation normaliser"] if self.normalizer is not None else []
        return "Teacher architecture: " + " · ".join([*parts, self.source, *self.notes])

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> ExpertNetwork:
        """Copy to another device or floating-point type."""
        copied: ExpertNetwork = pytree.tree_map_only(Tensor, lambda x: x.to(device=device, dtype=dtype), self)
        return copied

    def _latent(self, observation: Tensor) -> Tensor:
        """Output of the last hidden layer, (..., H)."""
        if observation.shape[-1:] != (self.observation_dim,):
            wanted = f"(..., {self.observation_dim})"
            raise UserError(f"observation must have shape {wanted}, got {tuple(observation.shape)}")
        x = observation if self.normalizer is None else self.normalizer(observation)
        return last_features(self.layers, x.to(self.layers[0].weight.dtype), activation=self.activation)

    def _squashed(self, output: Tensor) -> Tensor:
        if self.squash == "none":
            return output
        low, high = self.bounds
        if self.squash == "clip":
            return torch.minimum(torch.maximum(output, low), high)
        return low + 0.5 * (torch.tanh(output) + 1.0) * (high - low)


def fold_normalizer(expert: ExpertNetwork) -> tuple[Layers, Activations]:
    """Fold the normaliser and the bounds of the action into the layers, in single precision on the CPU.

    Weights are folded in double precision. What the network does not see has a weight of zero. An action without bounds
    is clipped, as the motors do. A `UserError` says that observation or action are not those of a teacher, or that the
    normaliser clips.
    """
    if expert.observation_dim not in (STUDENT_DIM, TEACHER_DIM) or expert.action_dim != NUM_ROTORS:
        raise UserError(
            f"the environment's observation is {TEACHER_DIM} = {COMPONENTS}, or {STUDENT_DIM} without the rotor "
            f"speeds, and its action {NUM_ROTORS} = one per rotor; the {expert.source} has {expert.architecture}: give "
            "a teacher that was trained on this environment"
        )
    expert = expert.to("cpu", torch.float64)
    layers, normalizer = list(expert.layers), expert.normalizer
    if normalizer is not None:
        whose = f"the observation normaliser of the {expert.source}"
        if normalizer.clip is not None and math.isfinite(normalizer.clip):
            raise UserError(
                f"{whose} clips at {normalizer.clip:g}, which no layer can do: take a Normalizer with clip=None, if "
                "what it sees stays within"
            )
        if (normalizer.divisor <= 0).any():
            raise UserError(f"{whose} divides by a number that is not positive")
        weight = layers[0].weight / normalizer.divisor
        layers[0] = Layer(weight, layers[0].bias - weight @ normalizer.mean)
    missing = (0, TEACHER_DIM - expert.observation_dim)
    layers[0] = Layer(functional.pad(layers[0].weight, missing), layers[0].bias)
    if expert.squash == "clip":  # an action that has bounds is scaled so that they are -1 and 1
        (low, high), (weight, bias) = expert.bounds, layers[-1]
        bounded = (high - low).isfinite()
        scale = torch.where(bounded, 2 / (high - low), 1.0)
        middle = torch.where(bounded, (high + low) / 2, 0.0)
        layers[-1] = Layer(weight * scale.unsqueeze(-1), (bias - middle) * scale)
    single = tuple(Layer(weight.float(), bias.float()) for weight, bias in layers)
    return single, Activations(expert.activation, "tanh" if expert.squash == "tanh" else "clip")
