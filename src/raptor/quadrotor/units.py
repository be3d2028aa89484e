"""Numbers with their units as people write them, `650 g ± 5 %`, in SI units."""

from __future__ import annotations

import math
import re
from typing import Any, NamedTuple

from raptor.quadrotor.files import is_finite_number

KGF = 9.80665  # N
_RPM = 2 * math.pi / 60  # rad/s
_INCH = 0.0254  # m
_POUND, _OUNCE = 0.45359237, 0.028349523125  # kg

_MASSES = {"kg": 1.0, "g": 1e-3, "lb": _POUND, "oz": _OUNCE}
_LENGTHS = {"m": 1.0, "cm": 1e-2, "mm": 1e-3, "in": _INCH, "inch": _INCH, "inches": _INCH}
_FORCES = {"N": 1.0, "mN": 1e-3, "kgf": KGF, "gf": KGF / 1e3, "lbf": _POUND * KGF, "ozf": _OUNCE * KGF}
KINDS: dict[str, dict[str, float]] = {
    "mass": _MASSES,
    "length": _LENGTHS,
    "thrust": {**_FORCES, **{unit: KGF * factor for unit, factor in _MASSES.items()}},  # g of thrust are gram-force
    "time": {"s": 1.0, "ms": 1e-3, "us": 1e-6},
    "speed": {"rad/s": 1.0, "rpm": _RPM, "Hz": 2 * math.pi},
    "inertia": {"kg m^2": 1.0, "g m^2": 1e-3, "kg cm^2": 1e-4, "kg mm^2": 1e-6, "g cm^2": 1e-7, "g mm^2": 1e-9},
    "lever": {"N m per N": 1.0, "N mm per N": 1e-3, **_LENGTHS},
    "thrust coefficient": {"N s^2": 1.0, "N/(rad/s)^2": 1.0, "N/rpm^2": _RPM**-2, "gf/rpm^2": KGF / 1e3 * _RPM**-2},
    "torque coefficient": {"N m s^2": 1.0, "N m/(rad/s)^2": 1.0, "N m/rpm^2": _RPM**-2},
    "voltage": {"V": 1.0},
    "KV": {"rpm/V": 1.0, "KV": 1.0},
    "cells": {"cells": 1.0, "S": 1.0},
    "ratio": {"": 1.0, "%": 0.01, ":1": 1.0},
}
"""By kind of quantity, the units that are read and their factors to the first of them, which needs no writing."""

_NUMBER = r"[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?"
_MARGIN = re.compile(r"±|\+/-|\+-")


class Quantity(NamedTuple):
    """A number in the first unit of its kind, and the half-range that was written beside it, relative to it."""

    value: float
    uncertainty: float | None = None


def parse(given: Any, kind: str) -> Quantity | None:
    """Read a number, or text with a unit and an uncertainty (`± 5 %`, `+- 20 g`); None for anything else."""
    if is_finite_number(given):
        return Quantity(float(given))
    if not isinstance(given, str):
        return None
    parts = [_split(part) for part in _MARGIN.split(given)]
    if len(parts) > 2 or None in parts:
        return None
    (number, unit), *margins = parts  # type: ignore[misc]
    if margins and not unit and margins[0][1] != "%":  # type: ignore[index]
        unit = margins[0][1]  # type: ignore[index]
    factor = _factor(unit, kind)
    if factor is None or not math.isfinite(value := number * factor):
        return None
    if not margins:
        return Quantity(value)
    margin, of = margins[0]  # type: ignore[misc]
    scale = abs(value) / 100 if of == "%" else _factor(of or unit, kind)
    uncertainty = math.nan if scale is None or value == 0 else margin * scale / abs(value)
    return Quantity(value, uncertainty) if 0 <= uncertainty < 1 else None


def listed(given: Any) -> Any:
    """A list that was written in one line, `220 x 180 x 60 mm ± 5 %`, as a list; anything else as it is."""
    found = re.fullmatch(rf"({_NUMBER}(?:\s*[x×]\s*{_NUMBER})+)(.*)", given.strip()) if isinstance(given, str) else None
    return [f"{number.strip()} {found[2].strip()}" for number in re.split("[x×]", found[1])] if found else given


def units_of(kind: str) -> str:
    """The units of a kind, for people."""
    *units, last = [unit for unit in KINDS[kind] if unit]
    return f"{', '.join(units)} or {last}" if units else last


def _split(text: str) -> tuple[float, str] | None:
    found = re.fullmatch(rf"\s*({_NUMBER})\s*(.*?)\s*", text)
    return (float(found[1]), found[2]) if found else None


def _factor(unit: str, kind: str) -> float | None:
    if not unit:
        return 1.0
    known = {_normal(name): factor for name, factor in KINDS[kind].items()}
    return known.get(_normal(unit))


def _normal(unit: str) -> str:
    for written, meant in {"²": "2", "µ": "u", "μ": "u", '"': "in", "″": "in"}.items():
        unit = unit.replace(written, meant)
    return re.sub(r"[\s·*^()]", "", re.sub(r"\bper\b", "/", unit)).casefold()
