"""An expert network as a teacher: from 26 numbers that are not normalised to 4 in [-1, 1]."""

from __future__ import annotations

import math

import torch

from raptor.core.errors import UserError
from raptor.nn.activations import Activations
from raptor.nn.expert import ExpertNetwork
from raptor.nn.stacked_mlp import Layer
from raptor.quadrotor.parameters import NUM_ROTORS
from raptor.tasks.observation import STUDENT_DIM, TEACHER_DIM

LAYOUT = (
    ("position error", 3),
    ("rotation matrix", 9),
    ("velocity error", 3),
    ("angular velocity", 3),
    ("previous action", 4),
    ("rotor speeds", 4),
)
"""Components of a teacher's observation and their widths; a student sees all but the last."""


def fold_normalizer(expert: ExpertNetwork) -> tuple[tuple[Layer, ...], Activations]:
    """The same network without a normaliser and with actions in [-1, 1], in single precision on the CPU.

    Weights are folded in double precision: (x - mean) / divisor goes into the first layer, an action between other
    bounds into the last. An action without bounds is clipped, as the motors do.

    Raises:
        UserError: observation or action are not those of a teacher, or the normaliser clips.
    """
    _check_fit(expert)
    expert = expert.to("cpu", torch.float64)
    layers = list(expert.layers)
    layers[0] = _wide_enough(_normalizing(layers[0], expert))
    if expert.squash == "clip":
        layers[-1] = _within_bounds(layers[-1], expert)
    single = tuple(Layer(weight.float(), bias.float()) for weight, bias in layers)
    return single, Activations(expert.activation, "tanh" if expert.squash == "tanh" else "clip")


def _check_fit(expert: ExpertNetwork) -> None:
    if expert.observation_dim in (STUDENT_DIM, TEACHER_DIM) and expert.action_dim == NUM_ROTORS:
        return
    components = " + ".join(f"{name} {width}" for name, width in LAYOUT)
    raise UserError(
        f"the environment's observation is {TEACHER_DIM} = {components}, or {STUDENT_DIM} without the rotor speeds, "
        f"and its action {NUM_ROTORS} = one per rotor; the {expert.source} has {expert.architecture}: give a teacher "
        "that was trained on this environment"
    )


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


def _wide_enough(layer: Layer) -> Layer:
    """The first layer, with a weight of zero for each number that the network does not see."""
    unseen = layer.weight.new_zeros(len(layer.weight), TEACHER_DIM - layer.weight.shape[1])
    return Layer(torch.cat([layer.weight, unseen], dim=1), layer.bias)


def _within_bounds(layer: Layer, expert: ExpertNetwork) -> Layer:
    """The last layer, scaled so that the bounds of each action that has some are -1 and 1."""
    low, high = expert.bounds
    bounded = (high - low).isfinite()
    scale = torch.where(bounded, 2 / (high - low), 1.0)
    middle = torch.where(bounded, (high + low) / 2, 0.0)
    return Layer(layer.weight * scale.unsqueeze(-1), (layer.bias - middle) * scale)
