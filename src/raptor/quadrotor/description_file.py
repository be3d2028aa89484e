"""Typed access to the YAML file in which an owner describes a quadrotor."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from raptor.core.errors import UserError
from raptor.core.yaml_files import read_yaml
from raptor.quadrotor.documents import is_finite_number, plain, shown
from raptor.quadrotor.estimates import ROTORS, Estimate
from raptor.quadrotor.plausible import doubt
from raptor.quadrotor.validation import SHORTEST_TIME_CONSTANT

KEYS = {
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


class Reader:
    """Typed access to the keys of a description; collects the estimates, and doubts about units."""

    def __init__(self, content: Mapping[Any, Any], path: Path | None, prefix: str = "") -> None:
        self.content = {key: value if key == "name" else _numbers(plain(value)) for key, value in content.items()}
        self.path = path
        self.prefix = prefix
        self.where = "" if path is None else f" ({path})"
        self.estimates: list[Estimate] = []
        self.doubts: list[str] = []
        if not prefix:
            self._refuse_unknown(content, tuple(KEYS), "")
            for keys in _EXCLUSIVE:
                present = [key for key in keys if key in content]
                if len(present) > 1:
                    raise UserError(f"{' and '.join(present)} exclude each other{self.where}: keep one of them")

    def _refuse_unknown(self, content: Mapping[Any, Any], allowed: tuple[str, ...], prefix: str) -> None:
        for key in content:
            if key not in allowed:
                raise UserError(f"unknown key {prefix}{key}{self.where}: the keys are {', '.join(allowed)}")

    def wrong(self, key: str, rule: str) -> UserError:
        """The error that says which rule the value of a key breaks."""
        return UserError(f"{self.prefix}{key} {rule}, got {shown(self.content[key])}{self.where}")

    def estimate(self, field: str, value: Any, unit: str, how: str) -> Any:
        """Remember an estimate and return its value."""
        self.estimates.append(Estimate(field, value, unit, how))
        return value

    def number(self, key: str) -> float | None:
        """A positive number, or None where the key is missing."""
        if key not in self.content:
            return None
        if not _is_positive(self.content[key]):
            raise self.wrong(key, f"must be a positive number ({KEYS.get(key, 's').split(',')[0]})")
        if "time_constant" in self.prefix + key and self.content[key] < SHORTEST_TIME_CONSTANT:
            raise self.wrong(key, f"must be at least {SHORTEST_TIME_CONSTANT:g} s, the shortest that can be simulated")
        return float(self.content[key])

    def numbers(self, key: str, count: int) -> list[float] | None:
        """So many positive numbers, or None where the key is missing."""
        if key not in self.content:
            return None
        values = self.content[key]
        if not isinstance(values, list) or len(values) != count or not all(map(_is_positive, values)):
            raise self.wrong(key, f"must be {count} positive numbers ({KEYS[key]})")
        return [float(value) for value in values]

    def question(self, key: str, *values: float) -> None:
        """Remember the first value that no ordinary quadrotor has."""
        self.doubts += list(filter(None, (doubt(key, key, value) for value in values)))[:1]

    def choice(self, key: str, allowed: tuple[str, ...]) -> str | None:
        """One of the allowed words, or None where the key is missing."""
        if key in self.content and self.content[key] not in allowed:
            raise self.wrong(key, f"must be {' or '.join(allowed)}")
        return self.content.get(key)

    def group(self, key: str, allowed: tuple[str, ...]) -> dict[Any, Any]:
        """The keys and values within a key that is there."""
        value = self.content[key]
        if not isinstance(value, Mapping):
            raise self.wrong(key, f"must have the keys {', '.join(allowed)}")
        self._refuse_unknown(value, allowed, f"{key}.")
        return dict(value)


def _numbers(value: Any) -> Any:
    """The same with every number that YAML 1.1 takes for text, as 1e-3, as a number."""
    if isinstance(value, dict):
        return {key: _numbers(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_numbers(inner) for inner in value]
    is_number = isinstance(value, str) and re.fullmatch(r"[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+", value)
    return float(value) if is_number else value


def _is_positive(value: Any) -> bool:
    """Whether this is a positive number of ordinary size."""
    return is_finite_number(value) and 1e-12 <= value <= 1e12


def load(path: Path) -> Mapping[str, Any]:
    """Read a YAML file of keys and values.

    Raises:
        UserError: names the file that cannot be read or holds something else.
    """
    content = read_yaml(path)
    if not isinstance(content, dict):
        raise UserError(f"{path} must hold keys with values, at least mass, got {shown(content)}")
    if "dynamics" in content:
        raise UserError(f"{path} is no description, but full parameters already: use it as it is")
    return content
