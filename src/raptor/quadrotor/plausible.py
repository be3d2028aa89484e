"""Numbers that no ordinary quadrotor has, and the unit in which they were probably meant."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from raptor.quadrotor.characteristics import characteristics
from raptor.quadrotor.vehicles import Vehicles

_LENGTHS = {"mm": 1e-3, "cm": 1e-2, "inches": 0.0254}
_INERTIAS = {"g m^2": 1e3, "kg cm^2": 1e4, "kg mm^2": 1e6, "g cm^2": 1e7, "g mm^2": 1e9}


class Plausible(NamedTuple):
    """What a quantity is in training, and in any ordinary quadrotor of 20 g to 10 kg."""

    trained: tuple[float, float]  # range of the training distribution
    ordinary: tuple[float, float]
    unit: str
    units: Mapping[str, float | None] = {}  # mistaken for ours, and factor to ours; None: fits what is too small
    given: str = "given"  # in one of these units


PLAUSIBLE = {
    "mass": Plausible((0.02, 5), (0.01, 20), "kg", {"g": 1e-3}),
    "arm_length": Plausible((0.024, 0.27), (0.015, 0.8), "m", _LENGTHS),
    "thrust_to_weight": Plausible((1.5, 5), (1.2, 20), "", {"gram-force": 9.81e-3}, "thrust given"),
    "torque_to_inertia": Plausible((40, 1200), (34, 6000), "1/s^2", _INERTIAS, "inertia given"),
    "rotor_time_constant_rising": Plausible((0.03, 0.1), (0, 0.3), "s", {"ms": 1e-3}),
    "rotor_time_constant_falling": Plausible((0.03, 0.3), (0, 0.6), "s", {"ms": 1e-3}),
    "rotor_torque_constant": Plausible(
        (0.005, 0.05),
        (0.001, 0.3),
        "N m per N",
        {"N mm per N": 1e-3, "N m s^2 (divide it by the thrust coefficient in N s^2)": None},
    ),
    "disturbance_to_weight": Plausible((0, 0.2), (0, 1), ""),
    "propeller_diameter": Plausible((0.07, 0.7), (0.02, 0.8), "m", _LENGTHS),
    "size": Plausible((0.03, 0.4), (0.005, 2), "m", _LENGTHS),
}
"""By the names of `characteristics`, and of keys of a description."""


def doubt(name: str, label: str, value: float) -> str | None:
    """What is odd about a value, or None where nothing is."""
    (low, high), (least, most), unit, units, given = PLAUSIBLE[name]
    if least <= value <= most:
        return None
    meant = [
        other
        for other, factor in units.items()
        if (0 < value < least if factor is None else low <= factor * value <= high)
    ]
    guess = f"; {given} in {' or '.join(meant)}?" if meant else ""
    return f"{label} {value:.4g} {unit}".rstrip() + f" ({low:g} to {high:g} in training{guess})"


def doubts(vehicles: Vehicles) -> tuple[Tensor, str]:
    """(N,) whether something is odd about a vehicle, and what it is about the first of these."""
    traits = {name: trait for name, trait in characteristics(vehicles).items() if name in PLAUSIBLE}
    least, most = torch.tensor([PLAUSIBLE[name].ordinary for name in traits], dtype=torch.float64).T
    values = torch.stack([trait.values for trait in traits.values()], -1)
    odd = (values - values.clamp(least, most)).ne(0)
    texts = {}
    if odd.any():
        row = values[odd.any(-1)][0].tolist()
        found = ((name, doubt(name, traits[name].label, value)) for name, value in zip(traits, row, strict=True))
        texts = {name: text for name, text in found if text}
    if texts.keys() & {"mass", "arm_length"}:  # from which these follow
        texts = {name: text for name, text in texts.items() if name not in ("thrust_to_weight", "torque_to_inertia")}
    return odd.any(-1), f"unusual for a quadrotor, check the units: {', '.join(texts.values())}"
