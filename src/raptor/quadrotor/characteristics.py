"""What sets the vehicles of a population apart, in numbers that have a name and a unit."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from raptor.quadrotor.vehicles import Vehicles

DECADES = 2.0
"""How many powers of ten a size must span to be drawn on a logarithmic axis."""


class Characteristic(NamedTuple):
    """What distinguishes one vehicle from another, as a number."""

    label: str
    unit: str  # empty where it has none
    values: Tensor  # (N,)
    is_size: bool = False  # whether it may span decades

    @property
    def title(self) -> str:
        """Label and unit."""
        return f"{self.label} ({self.unit})" if self.unit else self.label

    @property
    def spans_decades(self) -> bool:
        """Whether the logarithm of the values shows more than the values do."""
        values = self.values[self.values.isfinite()]
        return self.is_size and len(values) > 0 and bool(0 < values.min() * 10**DECADES <= values.max())


def characteristics(quadrotors: Vehicles) -> dict[str, Characteristic]:
    """What sets the vehicles of a population apart, by name; per-rotor numbers are means over the rotors."""
    rising, falling = quadrotors.rotor_time_constants_rising, quadrotors.rotor_time_constants_falling
    disturbance = quadrotors.random_force[..., 1] / quadrotors.weight
    return {
        "mass": Characteristic("mass", "kg", quadrotors.mass, True),
        "arm_length": Characteristic("arm length", "m", quadrotors.arm_length, True),
        "thrust_to_weight": Characteristic("thrust-to-weight", "", quadrotors.thrust_to_weight),
        "torque_to_inertia": Characteristic("torque-to-inertia", "1/s²", quadrotors.torque_to_inertia, True),
        "hover_throttle": Characteristic("hover throttle", "", quadrotors.hover_throttle),
        "rotor_time_constant_rising": Characteristic("rotor time constant, rising", "s", rising.mean(-1)),
        "rotor_time_constant_falling": Characteristic("rotor time constant, falling", "s", falling.mean(-1)),
        "rotor_torque_constant": Characteristic(
            "rotor torque constant", "N m per N", quadrotors.rotor_torque_constants.mean(-1)
        ),
        "disturbance_to_weight": Characteristic("disturbance force (std.) over weight", "", disturbance),
    }


def cannot_hover(quadrotors: Vehicles) -> Tensor:
    """(N,) whether the rotors cannot carry the weight, or carry it with nothing to spare."""
    return quadrotors.hover_throttle.isnan() | ~(quadrotors.thrust_to_weight > 1)
