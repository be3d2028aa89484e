"""Typed access to the YAML file in which an owner describes a quadrotor."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from raptor.core.errors import UserError
from raptor.quadrotor.documents import is_finite_number
from raptor.quadrotor.estimates import ROTORS, Estimate

KEYS = {
    "name": "what to call it",
    "mass": "kg, ready to fly; the only key that is required",
    "arm_length": "m, centre of mass to each motor, for an X frame with right angles",
    "arm_offset": "m, [forward, sideways] distance of each motor from the centre of mass, for another X frame",
    "motor_positions": f"m, [x forward, y left] or [x, y, z up] for each of {', '.join(ROTORS)}",
    "inertia": "kg m^2, [Jxx, Jyy, Jzz] or a 3x3 matrix",
    "size": "m, [length, width, height] between motor axes and from bottom to top",
    "max_thrust_per_motor": "N",
    "thrust_to_weight": "total thrust at full throttle over weight",
    "hover_throttle": "share of full throttle at which it hovers, 0 to 1",
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
    """Typed access to the keys of a description; collects the estimates."""

    def __init__(self, content: dict[Any, Any], path: Path | None, prefix: str = "") -> None:
        self.content = content
        self.path = path
        self.prefix = prefix
        self.where = "" if path is None else f" ({path})"
        self.estimates: list[Estimate] = []
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
        return UserError(f"{self.prefix}{key} {rule}, got {self.content[key]!r}{self.where}")

    def note(self, estimate: Estimate) -> Any:
        """Remember an estimate and return its value."""
        self.estimates.append(estimate)
        return estimate.value

    def number(self, key: str) -> float | None:
        """A positive number, or None where the key is missing."""
        if key not in self.content:
            return None
        value = _positive(self.content[key])
        if value is None:
            unit = KEYS.get(key, "s").split(",")[0]
            raise self.wrong(key, f"must be a positive number ({unit})")
        return value

    def numbers(self, key: str, count: int) -> list[float] | None:
        """So many positive numbers, or None where the key is missing."""
        if key not in self.content:
            return None
        given = self.content[key]
        values = [_positive(value) for value in given] if isinstance(given, (list, tuple)) else []
        positive = [value for value in values if value is not None]
        if len(values) != count or len(positive) != count:
            raise self.wrong(key, f"must be {count} positive numbers ({KEYS[key]})")
        return positive

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


def _positive(value: Any) -> float | None:
    """A number of ordinary size, None for anything else."""
    if isinstance(value, str) and re.fullmatch(r"[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+", value):
        value = float(value)  # YAML 1.1 takes 1e-3 for text
    return float(value) if is_finite_number(value) and 1e-12 <= value <= 1e12 else None


def load(path: Path) -> dict[Any, Any]:
    """Read a YAML file of keys and values, without executing anything that it holds.

    Raises:
        UserError: names the file that cannot be read or holds something else.
    """
    import yaml

    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"cannot read the description {path}: {error.strerror}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise UserError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} must hold keys with values, at least mass, got {content!r}")
    return content
