"""What sets the vehicles of a population apart: numbers with a name, a unit, and a range that is plausible."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from raptor.quadrotor.vehicles import Vehicles

DECADES = 2.0
"""How many powers of ten a size must span to be drawn on a logarithmic axis."""
_SIZES = ("mass", "arm_length", "torque_to_inertia")
_ANY = (-float("inf"), float("inf"))


class Characteristic(NamedTuple):
    """A number of a vehicle or of its description, and what it is in ordinary quadrotors, of 20 g to 10 kg."""

    label: str
    unit: str  # empty where it has none
    trained: tuple[float, float] = _ANY  # range of the training distribution
    ordinary: tuple[float, float] = _ANY
    units: Mapping[str, float | None] = {}  # mistaken for ours, and factor to ours; None: fits what is too small
    given: str = "given"  # in one of these units
    values: Tensor = torch.empty(0)  # (N,) of a population
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

    def doubt(self, value: float) -> str | None:
        """What is odd about a value, or None where nothing is."""
        (low, high), (least, most) = self.trained, self.ordinary
        if least <= value <= most:
            return None

        def fits(factor: float | None) -> bool:
            return 0 < value < least if factor is None else low <= factor * value <= high

        meant = " or ".join(unit for unit, factor in self.units.items() if fits(factor))
        guess = f"; {self.given} in {meant}?" if meant else ""
        number = f"{self.label} {value:.4g} {self.unit.replace('²', '^2')}".rstrip()
        return f"{number} ({low:g} to {high:g} in training{guess})"


_LENGTHS = {"mm": 1e-3, "cm": 1e-2, "inches": 0.0254}
_FORCES = {"gram-force": 9.81e-3}
_INERTIAS = {"g m^2": 1e3, "kg cm^2": 1e4, "kg mm^2": 1e6, "g cm^2": 1e7, "g mm^2": 1e9}
_TIMES = {"ms": 1e-3}
_TORQUES = {"N mm per N": 1e-3, "N m s^2 (divide it by the thrust coefficient in N s^2)": None}

CHARACTERISTICS = {
    "mass": Characteristic("mass", "kg", (0.02, 5), (0.01, 20), {"g": 1e-3}),
    "arm_length": Characteristic("arm length", "m", (0.024, 0.27), (0.015, 0.8), _LENGTHS),
    "thrust_to_weight": Characteristic("thrust-to-weight", "", (1.5, 5), (1.2, 20), _FORCES, "thrust given"),
    "torque_to_inertia": Characteristic(
        "torque-to-inertia", "1/s²", (40, 1200), (34, 6000), _INERTIAS, "inertia given"
    ),
    "hover_throttle": Characteristic("hover throttle", ""),
    "rotor_time_constant_rising": Characteristic("rotor time constant, rising", "s", (0.03, 0.1), (0, 0.3), _TIMES),
    "rotor_time_constant_falling": Characteristic("rotor time constant, falling", "s", (0.03, 0.3), (0, 0.6), _TIMES),
    "rotor_torque_constant": Characteristic(
        "rotor torque constant", "N m per N", (0.005, 0.05), (0.001, 0.3), _TORQUES
    ),
    "disturbance_to_weight": Characteristic("disturbance force (std.) over weight", "", (0, 0.2), (0, 1)),
}
"""By the name of an attribute of vehicles; a `rotor_..._constant` is the mean of the `rotor_..._constants`."""

DESCRIBED = {
    "propeller_diameter": Characteristic("propeller_diameter", "m", (0.07, 0.7), (0.02, 0.8), _LENGTHS),
    "size": Characteristic("size", "m", (0.03, 0.4), (0.005, 2), _LENGTHS),
}
"""By keys of a description."""


def characteristics(vehicles: Vehicles) -> dict[str, Characteristic]:
    """What sets the vehicles of a population apart, by name."""
    found = {}
    for name, trait in CHARACTERISTICS.items():
        per_rotor = name.replace("constant", "constants")
        values = getattr(vehicles, name) if per_rotor == name else getattr(vehicles, per_rotor).mean(-1)
        found[name] = trait._replace(values=values, is_size=name in _SIZES)
    return found


def cannot_hover(vehicles: Vehicles) -> Tensor:
    """(N,) whether the rotors cannot carry the weight, or carry it with nothing to spare."""
    return vehicles.hover_throttle.isnan() | ~(vehicles.thrust_to_weight > 1)


def doubts(vehicles: Vehicles) -> tuple[Tensor, str]:
    """(N,) whether something is odd about a vehicle, and what it is about the first of these."""
    traits = characteristics(vehicles)
    least, most = torch.tensor([trait.ordinary for trait in traits.values()], dtype=torch.float64).T
    values = torch.stack([trait.values for trait in traits.values()], -1)
    odd = (values - values.clamp(least, most)).ne(0).any(-1)
    row = values[odd][0].tolist() if odd.any() else []
    texts = {name: text for name, value in zip(traits, row, strict=False) if (text := traits[name].doubt(value))}
    if texts.keys() & {"mass", "arm_length"}:  # from which these follow
        texts = {name: text for name, text in texts.items() if name not in ("thrust_to_weight", "torque_to_inertia")}
    return odd, f"unusual for a quadrotor, check the units: {', '.join(texts.values())}"
