"""An expert network as a teacher: from 26 numbers that are not normalised to 4 in [-1, 1]."""

from __future__ import annotations

import math

import torch
from torch.nn import functional

from raptor.core.errors import UserError
from raptor.nn.activations import Activations
from raptor.nn.expert import ExpertNetwork
from raptor.nn.stacked_mlp import Layer
from raptor.quadrotor.parameters import NUM_ROTORS
from raptor.tasks.observation import STUDENT_DIM, TEACHER_DIM

COMPONENTS = (
    "position error 3 + rotation matrix 9 + velocity error 3 + angular velocity 3 + previous action 4 + rotor speeds 4"
)
"""Observation of a teacher, with widths; a student sees all but the last."""


def fold_normalizer(expert: ExpertNetwork) -> tuple[tuple[Layer, ...], Activations]:
    """Fold the normaliser and the bounds of the action into the layers, in single precision on the CPU.

    Weights are folded in double precision: (x - mean) / divisor goes into the first layer, an action between other
    bounds into the last. What the network does not see has a weight of zero. An action without bounds is clipped, as
    the motors do.

    Raises:
        UserError: observation or action are not those of a teacher, or the normaliser clips.
    """
    if expert.observation_dim not in (STUDENT_DIM, TEACHER_DIM) or expert.action_dim != NUM_ROTORS:
        raise UserError(
            f"the environment's observation is {TEACHER_DIM} = {COMPONENTS}, or {STUDENT_DIM} without the rotor "
            f"speeds, and its action {NUM_ROTORS} = one per rotor; the {expert.source} has {expert.architecture}: give "
            "a teacher that was trained on this environment"
        )
    expert = expert.to("cpu", torch.float64)
    layers = list(expert.layers)
    weight, bias = _normalizing(layers[0], expert)
    layers[0] = Layer(functional.pad(weight, (0, TEACHER_DIM - expert.observation_dim)), bias)
    if expert.squash == "clip":
        layers[-1] = _within_bounds(layers[-1], expert)
    single = tuple(Layer(weight.float(), bias.float()) for weight, bias in layers)
    return single, Activations(expert.activation, "tanh" if expert.squash == "tanh" else "clip")


def _normalizing(layer: Layer, expert: ExpertNetwork) -> Layer:
    """The first layer, with the normaliser in it."""
    normalizer = expert.normalizer
    if normalizer is None:
        return layer
    if normalizer.clip is not None and math.isfinite(normalizer.clip):
        raise UserError(
            f"the observation normaliser of the {expert.source} clips at {normalizer.clip:g}, which no layer can do: "
            "take a Normalizer with clip=None, if what it sees stays within"
        )
    if (normalizer.divisor <= 0).any():
        raise UserError(f"the observation normaliser of the {expert.source} divides by a number that is not positive")
    weight = layer.weight / normalizer.divisor
    return Layer(weight, layer.bias - weight @ normalizer.mean)


def _within_bounds(layer: Layer, expert: ExpertNetwork) -> Layer:
    """The last layer, scaled so that the bounds of each action that has some are -1 and 1."""
    low, high = expert.bounds
    bounded = (high - low).isfinite()
    scale = torch.where(bounded, 2 / (high - low), 1.0)
    middle = torch.where(bounded, (high + low) / 2, 0.0)
    return Layer(layer.weight * scale.unsqueeze(-1), (layer.bias - middle) * scale)
