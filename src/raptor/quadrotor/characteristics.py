"""What sets the vehicles of a population apart: numbers with a name, a unit, and a range that is plausible."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from raptor.quadrotor.vehicles import Vehicles

DECADES = 2.0
"""How many powers of ten a size must span to be drawn on a logarithmic axis."""

_ANY = (-float("inf"), float("inf"))


class Characteristic(NamedTuple):
    """A number of a vehicle or of its description, and what it is in ordinary quadrotors, of 20 g to 10 kg."""

    label: str
    unit: str  # empty where it has none
    attribute: str = ""  # of vehicles, a mean over the rotors where there is one for each; empty: of descriptions only
    is_size: bool = False  # whether it may span decades
    trained: tuple[float, float] = _ANY  # range of the training distribution
    ordinary: tuple[float, float] = _ANY
    units: Mapping[str, float | None] = {}  # mistaken for ours, and factor to ours; None: fits what is too small
    given: str = "given"  # in one of these units
    values: Tensor = torch.empty(0)  # (N,) of a population

    @property
    def title(self) -> str:
        """Label and unit."""
        return f"{self.label} ({self.unit})" if self.unit else self.label

    @property
    def spans_decades(self) -> bool:
        """Whether the logarithm of the values shows more than the values do."""
        values = self.values[self.values.isfinite()]
        return self.is_size and len(values) > 0 and bool(0 < values.min() * 10**DECADES <= values.max())


_LENGTHS = {"mm": 1e-3, "cm": 1e-2, "inches": 0.0254}
_FORCES = {"gram-force": 9.81e-3}
_INERTIAS = {"g m^2": 1e3, "kg cm^2": 1e4, "kg mm^2": 1e6, "g cm^2": 1e7, "g mm^2": 1e9}
_TIMES = {"ms": 1e-3}
_TORQUES = {"N mm per N": 1e-3, "N m s^2 (divide it by the thrust coefficient in N s^2)": None}

CHARACTERISTICS = {
    "mass": Characteristic("mass", "kg", "mass", True, (0.02, 5), (0.01, 20), {"g": 1e-3}),
    "arm_length": Characteristic("arm length", "m", "arm_length", True, (0.024, 0.27), (0.015, 0.8), _LENGTHS),
    "thrust_to_weight": Characteristic(
        "thrust-to-weight", "", "thrust_to_weight", False, (1.5, 5), (1.2, 20), _FORCES, "thrust given"
    ),
    "torque_to_inertia": Characteristic(
        "torque-to-inertia", "1/s²", "torque_to_inertia", True, (40, 1200), (34, 6000), _INERTIAS, "inertia given"
    ),
    "hover_throttle": Characteristic("hover throttle", "", "hover_throttle"),
    "rotor_time_constant_rising": Characteristic(
        "rotor time constant, rising", "s", "rotor_time_constants_rising", False, (0.03, 0.1), (0, 0.3), _TIMES
    ),
    "rotor_time_constant_falling": Characteristic(
        "rotor time constant, falling", "s", "rotor_time_constants_falling", False, (0.03, 0.3), (0, 0.6), _TIMES
    ),
    "rotor_torque_constant": Characteristic(
        "rotor torque constant", "N m per N", "rotor_torque_constants", False, (0.005, 0.05), (0.001, 0.3), _TORQUES
    ),
    "disturbance_to_weight": Characteristic(
        "disturbance force (std.) over weight", "", "disturbance_to_weight", False, (0, 0.2), (0, 1)
    ),
    "propeller_diameter": Characteristic(
        "propeller_diameter", "m", trained=(0.07, 0.7), ordinary=(0.02, 0.8), units=_LENGTHS
    ),
    "size": Characteristic("size", "m", trained=(0.03, 0.4), ordinary=(0.005, 2), units=_LENGTHS),
}
"""Characteristics of vehicles, and keys of a description."""


def characteristics(vehicles: Vehicles) -> dict[str, Characteristic]:
    """What sets the vehicles of a population apart, by name."""
    found = {}
    for name, trait in CHARACTERISTICS.items():
        if trait.attribute:
            values = getattr(vehicles, trait.attribute)
            found[name] = trait._replace(values=values.mean(-1) if values.ndim > vehicles.mass.ndim else values)
    return found


def cannot_hover(vehicles: Vehicles) -> Tensor:
    """(N,) whether the rotors cannot carry the weight, or carry it with nothing to spare."""
    return vehicles.hover_throttle.isnan() | ~(vehicles.thrust_to_weight > 1)


def doubt(name: str, value: float) -> str | None:
    """What is odd about a value, or None where nothing is."""
    trait = CHARACTERISTICS[name]
    (low, high), (least, most) = trait.trained, trait.ordinary
    if least <= value <= most:
        return None
    meant = [
        unit
        for unit, factor in trait.units.items()
        if (0 < value < least if factor is None else low <= factor * value <= high)
    ]
    guess = f"; {trait.given} in {' or '.join(meant)}?" if meant else ""
    unit = trait.unit.replace("²", "^2")
    return f"{trait.label} {value:.4g} {unit}".rstrip() + f" ({low:g} to {high:g} in training{guess})"


def doubts(vehicles: Vehicles) -> tuple[Tensor, str]:
    """(N,) whether something is odd about a vehicle, and what it is about the first of these."""
    traits = characteristics(vehicles)
    least, most = torch.tensor([trait.ordinary for trait in traits.values()], dtype=torch.float64).T
    values = torch.stack([trait.values for trait in traits.values()], -1)
    odd = (values - values.clamp(least, most)).ne(0).any(-1)
    row = values[odd][0].tolist() if odd.any() else []
    texts = {name: text for name, value in zip(traits, row, strict=False) if (text := doubt(name, value))}
    if texts.keys() & {"mass", "arm_length"}:  # from which these follow
        texts = {name: text for name, text in texts.items() if name not in ("thrust_to_weight", "torque_to_inertia")}
    return odd, f"unusual for a quadrotor, check the units: {', '.join(texts.values())}"
