"""What sets the vehicles of a population apart, in numbers that have a name and a unit."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from raptor.quadrotor import Quadrotors


class Characteristic(NamedTuple):
    """What distinguishes one vehicle from another, as a number."""

    label: str
    unit: str  # empty where it has none
    values: Tensor  # (N,)
    is_size: bool = False  # whether it may span decades, so that its logarithm shows more

    @property
    def title(self) -> str:
        """Label and unit."""
        return f"{self.label} ({self.unit})" if self.unit else self.label


def characteristics(quadrotors: Quadrotors) -> dict[str, Characteristic]:
    """What sets the vehicles of a population apart, by name; per-rotor numbers are means over the rotors."""
    weight = quadrotors.mass * torch.linalg.vector_norm(quadrotors.gravity, dim=-1)
    return {
        "mass": Characteristic("mass", "kg", quadrotors.mass, True),
        "arm_length": Characteristic("arm length", "m", quadrotors.arm_length, True),
        "thrust_to_weight": Characteristic("thrust-to-weight", "", quadrotors.thrust_to_weight),
        "torque_to_inertia": Characteristic("torque-to-inertia", "1/s²", quadrotors.torque_to_inertia, True),
        "hover_throttle": Characteristic("hover throttle", "", quadrotors.hover_throttle),
        "rotor_time_constant_rising": Characteristic(
            "rotor time constant, rising", "s", quadrotors.rotor_time_constants_rising.mean(-1)
        ),
        "rotor_time_constant_falling": Characteristic(
            "rotor time constant, falling", "s", quadrotors.rotor_time_constants_falling.mean(-1)
        ),
        "rotor_torque_constant": Characteristic(
            "rotor torque constant", "N m per N", quadrotors.rotor_torque_constants.mean(-1)
        ),
        "disturbance_to_weight": Characteristic(
            "disturbance force (std.) over weight", "", quadrotors.random_force[..., 1] / weight
        ),
    }


def cannot_hover(quadrotors: Quadrotors) -> Tensor:
    """(N,) whether the rotors cannot carry the weight, or carry it with nothing to spare."""
    return quadrotors.hover_throttle.isnan() | ~(quadrotors.thrust_to_weight > 1)
