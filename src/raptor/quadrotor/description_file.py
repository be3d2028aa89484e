"""Typed access to the YAML file in which an owner describes a quadrotor."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from raptor.core.errors import UserError
from raptor.core.yaml_files import read_yaml
from raptor.quadrotor.characteristics import DESCRIBED
from raptor.quadrotor.documents import is_finite_number, plain, shown
from raptor.quadrotor.vehicles import SHORTEST_TIME_CONSTANT

ROTORS = ("front_right", "back_right", "back_left", "front_left")

DESCRIPTION_KEYS = {
    "name": "what to call it",
    "mass": "kg, ready to fly; the only key that is required",
    "arm_length": "m, centre of mass to each motor, for an X frame with right angles",
    "arm_offset": "m, [forward, sideways] distance of each motor from the centre of mass, for another X frame",
    "motor_positions": f"m, [x forward, y left] or [x, y, z up] for each of {', '.join(ROTORS)}; also of a + frame",
    "inertia": "kg m^2, [Jxx, Jyy, Jzz] or a 3x3 matrix",
    "size": "m, [length, width, height] between motor axes and from bottom to top",
    "max_thrust_per_motor": "N",
    "thrust_to_weight": "total thrust at full throttle over weight",
    "hover_throttle": "fraction of full throttle at which it hovers, 0 to 1",
    "motor_time_constant": "s, one number or {rising: s, falling: s}",
    "propeller_torque_constant": "N m of reaction torque per N of thrust",
    "propeller_diameter": "m",
    "front_right_spin": "counterclockwise or clockwise, seen from above",
}
"""Keys of a description, with their meaning."""

_EXCLUSIVE = (
    ("arm_length", "arm_offset", "motor_positions"),
    ("inertia", "size"),
    ("max_thrust_per_motor", "thrust_to_weight"),
    ("propeller_torque_constant", "propeller_diameter"),
)


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A number that a description left out, and where it comes from; its text is one line for people."""

    field: str
    value: Any
    unit: str
    how: str

    def __str__(self) -> str:
        values = self.value if isinstance(self.value, tuple) else (self.value,)
        numbers = ", ".join(f"{value:.4g}" if isinstance(value, float) else str(value) for value in values)
        return f"{self.field} = {numbers}{' ' if self.unit else ''}{self.unit} ({self.how})"


class Description:
    """The keys of a description, checked when they are asked for; collects estimates, and doubts about units."""

    def __init__(self, source: Path | Mapping[Any, Any]) -> None:
        self.path = source if isinstance(source, Path) else None
        content: Any = source if self.path is None else read_yaml(self.path)
        self.where = "" if self.path is None else f" ({self.path})"
        if not isinstance(content, Mapping):
            raise UserError(f"{source} must hold keys with values, at least mass, got {shown(content)}")
        if self.where and "dynamics" in content:
            raise UserError(f"{source} is no description, but full parameters already: use it as it is")
        self.content = {key: value if key == "name" else plain(value, _number) for key, value in content.items()}
        self.estimates: list[Estimate] = []
        self.doubts: list[str] = []
        self._refuse_unknown(content, tuple(DESCRIPTION_KEYS))
        for keys in _EXCLUSIVE:
            present = [key for key in keys if key in content]
            if len(present) > 1:
                raise UserError(f"{' and '.join(present)} exclude each other{self.where}: keep one of them")

    def _refuse_unknown(self, content: Mapping[Any, Any], allowed: tuple[str, ...], prefix: str = "") -> None:
        for key in content:
            if key not in allowed:
                raise UserError(f"unknown key {prefix}{key}{self.where}: the keys are {', '.join(allowed)}")

    def wrong(self, key: str, rule: str) -> UserError:
        """The error that says which rule the value of a key breaks."""
        return UserError(f"{key} {rule}, got {shown(self.content[key])}{self.where}")

    def number(self, key: str, count: int = 1) -> Any:
        """A positive number, or a list of so many; None where the key is missing."""
        if key not in self.content:
            return None
        value, meaning = self.content[key], DESCRIPTION_KEYS.get(key, "s")
        values = [value] if count == 1 else value
        if not isinstance(values, list) or len(values) != count or not all(map(_is_positive, values)):
            one = f"a positive number ({meaning.split(',')[0]})"
            raise self.wrong(key, f"must be {one if count == 1 else f'{count} positive numbers ({meaning})'}")
        if "time_constant" in key and value < SHORTEST_TIME_CONSTANT:
            raise self.wrong(key, f"must be at least {SHORTEST_TIME_CONSTANT:g} s, the shortest that can be simulated")
        return float(value) if count == 1 else [float(x) for x in values]

    def group(self, key: str, allowed: tuple[str, ...]) -> dict[Any, Any]:
        """The keys and values within a key that is there; from now on each is also a key of its own, `key.inner`."""
        value = self.content[key]
        if not isinstance(value, Mapping):
            raise self.wrong(key, f"must have the keys {', '.join(allowed)}")
        self._refuse_unknown(value, allowed, f"{key}.")
        self.content |= {f"{key}.{inner}": value[inner] for inner in value}
        return dict(value)

    def estimate(self, field: str, value: Any, unit: str, how: str) -> Any:
        """Remember an estimate and return its value."""
        self.estimates.append(Estimate(field, value, unit, how))
        return value

    def question(self, key: str, *values: float) -> None:
        """Remember the first value that no ordinary quadrotor has."""
        self.doubts += list(filter(None, map(DESCRIBED[key].doubt, values)))[:1]


def _number(value: Any) -> Any:
    """What YAML 1.1 takes for text, as 1e-3, as a number; all else as it is."""
    is_number = isinstance(value, str) and re.fullmatch(r"[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+", value)
    return float(value) if is_number else value


def _is_positive(value: Any) -> bool:
    return is_finite_number(value) and 1e-12 <= value <= 1e12
