"""What is known of a quadrotor: the keys of its description, checked when they are asked for, and what is estimated."""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from raptor.core.errors import UserError
from raptor.quadrotor.files import plain, read_content, shown
from raptor.quadrotor.units import Quantity, listed, parse, units_of
from raptor.quadrotor.validation import DESCRIBED
from raptor.quadrotor.vehicles import SHORTEST_TIME_CONSTANT

ROTORS = ("front_right", "back_right", "back_left", "front_left")


class Key(NamedTuple):
    """A key of a description: its meaning, and of what kind its numbers are (empty: no number)."""

    meaning: str
    kind: str = ""


KEYS = {
    "name": Key("what to call it"),
    "mass": Key("kg, ready to fly; the only key that is required", "mass"),
    "frame": Key("x (default), plus, wide-x or deadcat"),
    "wheelbase": Key("m, motor to motor along the diagonal", "length"),
    "diagonal": Key("m, another word for wheelbase", "length"),
    "arm_length": Key("m, middle of the frame to each motor", "length"),
    "arm_offset": Key("m, [forward, sideways] distance of each motor from the middle, of an X frame", "length"),
    "motor_positions": Key(f"m, [x forward, y left] or [x, y, z up] for each of {', '.join(ROTORS)}", "length"),
    "centre_of_mass": Key("m, [x forward, y left] or [x, y, z up] from where the motors are measured", "length"),
    "inertia": Key("kg m^2, [Jxx, Jyy, Jzz] or a 3x3 matrix", "inertia"),
    "size": Key("m, [length, width, height] between motor axes and from bottom to top", "length"),
    "max_thrust_per_motor": Key("N", "thrust"),
    "thrust_to_weight": Key("total thrust at full throttle over weight", "ratio"),
    "hover_throttle": Key("fraction of full throttle at which it hovers, 0 to 1", "ratio"),
    "thrust_table": Key("pairs of throttle (0 to 1, or in %) and thrust of a motor (N), or the name of a CSV file"),
    "thrust_coefficient": Key("N s^2, thrust over the square of a rotor's speed in rad/s", "thrust coefficient"),
    "torque_coefficient": Key("N m s^2, reaction torque over the square of a rotor's speed", "torque coefficient"),
    "max_rotor_speed": Key("rad/s, at full throttle", "speed"),
    "motor_kv": Key("rpm/V", "KV"),
    "battery_cells": Key("cells, in series", "cells"),
    "battery_voltage": Key("V, under load", "voltage"),
    "propeller": Key("diameter x pitch x blades in inches, 5x4.3 or 5.1x4.3x3"),
    "propeller_diameter": Key("m", "length"),
    "propeller_pitch": Key("m, advance in one turn", "length"),
    "propeller_torque_constant": Key("N m per N, reaction torque over thrust", "lever"),
    "motor_time_constant": Key("s, one number or {rising: s, falling: s}", "time"),
    "front_right_spin": Key("counterclockwise or clockwise, seen from above"),
}
DESCRIPTION_KEYS = {key: meaning for key, (meaning, _) in KEYS.items()}
"""Keys of a description, with their meaning."""

_SEVERAL = ("arm_offset", "motor_positions", "centre_of_mass", "inertia", "size", "motor_time_constant")
"""Keys that hold more than a number."""

_SYNONYMS = {
    "weight": "mass",
    "thrust": "max_thrust_per_motor",
    "twr": "thrust_to_weight",
    "kf": "thrust_coefficient",
    "k_f": "thrust_coefficient",
    "km": "torque_coefficient",
    "k_m": "torque_coefficient",
    "tau": "motor_time_constant",
    "com": "centre_of_mass",
    "cog": "centre_of_mass",
}
"""What others call it."""

_EXCLUSIVE = (
    ("wheelbase", "diagonal"),
    ("arm_offset", "motor_positions"),
    ("frame", "motor_positions"),
    ("battery_cells", "battery_voltage"),
    ("propeller", "propeller_diameter"),
    ("propeller", "propeller_pitch"),
)


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A number that a description left out, and where it comes from; its text is one line for people."""

    field: str
    value: Any
    unit: str
    how: str
    uncertainty: float | None = None  # half-range, relative to the value

    def __str__(self) -> str:
        values = self.value if isinstance(self.value, tuple) else (self.value,)
        numbers = ", ".join(f"{value:.4g}" if isinstance(value, float) else str(value) for value in values)
        margin = "" if self.uncertainty is None else f" ± {self.uncertainty:.0%}".replace("%", " %")
        return f"{self.field} = {numbers}{' ' if self.unit else ''}{self.unit}{margin} ({self.how})"


class Description:
    """The keys of a description, checked when they are asked for; collects estimates, uncertainties and doubts."""

    def __init__(self, source: Path | Mapping[Any, Any]) -> None:
        self.path = source if isinstance(source, Path) else None
        content: Any = source if self.path is None else read_content(self.path)
        if not isinstance(content, Mapping):
            raise UserError(f"{source} must hold keys with values, at least mass, got {shown(content)}")
        if self.path is not None and "dynamics" in content:
            raise UserError(f"{source} is no description, but full parameters already: use it as it is")
        self.content = {key: value if key == "name" else plain(value) for key, value in content.items()}
        self.estimates: list[Estimate] = []
        self.doubts: list[str] = []
        self.uncertainty: dict[str, float] = {}
        """By fields of `raptor.quadrotor.around.Spread`: half-range of the quantity, relative to it."""
        self._stated: dict[str, float] = {}
        self._used: set[str] = set()  # keys whose stated uncertainty counts
        self._refuse_unknown(content, tuple(KEYS))
        for keys in _EXCLUSIVE:
            if all(key in content for key in keys):
                raise UserError(f"{' and '.join(keys)} exclude each other{self.where(keys[1])}: keep one of them")
        for key in content:
            if KEYS[key].kind and key not in _SEVERAL:
                self.number(key)

    def __contains__(self, key: str) -> bool:
        return key in self.content

    def where(self, key: str = "") -> str:
        """The file and, where it is found, the line of a key, as the end of an error."""
        if self.path is None:
            return ""
        pattern = re.compile(rf"(?<!\w){re.escape(key.rpartition('.')[2])}[\"']?\s*:") if key else re.compile("(?!)")
        text = self.path.read_text(encoding="utf-8", errors="replace").splitlines()
        lines = [i for i, line in enumerate(text, 1) if pattern.search(line.partition("#")[0])]
        return f" ({self.path}, line {lines[0]})" if lines else f" ({self.path})"

    def _refuse_unknown(self, content: Mapping[Any, Any], allowed: tuple[str, ...], prefix: str = "") -> None:
        for key in content:
            if key not in allowed:
                text = str(key).lower()
                near = [one for one in (text, _SYNONYMS.get(text)) if one in allowed]
                near = near or difflib.get_close_matches(text, allowed, 2)
                near = near or [one for one in allowed if text and text in one]
                near = near if len(text) > 2 or len(near) <= 3 else []
                hint = f"did you mean {' or '.join(near)}?" if near else f"the keys are {', '.join(allowed)}"
                raise UserError(f"unknown key {prefix}{key}{self.where(f'{prefix}{key}')}: {hint}")

    def wrong(self, key: str, rule: str) -> UserError:
        """The error that says which rule the value of a key breaks."""
        return UserError(f"{key} {rule}, got {shown(self.content[key])}{self.where(key)}")

    def quantity(self, key: str, given: Any) -> Quantity | None:
        """A number of a key's kind; what is written beside it about its uncertainty is remembered for the key."""
        found = parse(given, KEYS[key.partition(".")[0]].kind)
        if found is not None:
            self.state(key, found)
        return found

    def state(self, key: str, found: Quantity, power: int = 1) -> None:
        """Remember the uncertainty of a number in a key, the largest of its numbers; it counts `power` times."""
        key = key.partition(".")[0]
        if found.uncertainty is not None:
            self._stated[key] = max(power * found.uncertainty, self._stated.get(key, 0.0))

    def number(self, key: str, count: int = 1) -> Any:
        """A positive number, or a list of so many, in SI units; None where the key is missing."""
        if key not in self.content:
            return None
        meaning, kind = KEYS[key.partition(".")[0]]
        values = [self.content[key]] if count == 1 else listed(self.content[key])
        found = [self.quantity(key, value) for value in values] if isinstance(values, list) else []
        numbers = [x.value for x in found if x is not None and 1e-12 <= x.value <= 1e12]
        if len(numbers) != count or len(found) != count:
            unit = "s" if "." in key else meaning.split(",")[0]
            rule = f"a positive number ({unit})" if count == 1 else f"{count} positive numbers ({meaning})"
            texts = [x for x in (values if isinstance(values, list) else [values]) if isinstance(x, str)]
            units = f", also with a unit after it ({units_of(kind)})" if texts else ""
            raise self.wrong(key, f"must be {rule}{units}")
        if kind == "time" and numbers[0] < SHORTEST_TIME_CONSTANT:
            raise self.wrong(key, f"must be at least {SHORTEST_TIME_CONSTANT:g} s, the shortest that can be simulated")
        return numbers[0] if count == 1 else numbers

    def point(self, key: str, value: Any) -> list[float] | None:
        """Two or three coordinates (m) in a key, of either sign, as three; None where it holds something else."""
        found = [self.quantity(key, x) for x in value] if isinstance(value, list) and len(value) in (2, 3) else [None]
        return None if None in found else [*(x.value for x in found if x), 0.0][:3]

    def group(self, key: str, allowed: tuple[str, ...]) -> dict[Any, Any]:
        """The keys and values within a key that is there; from now on each is also a key of its own, `key.inner`."""
        value = self.content[key]
        if not isinstance(value, Mapping):
            raise self.wrong(key, f"must have the keys {', '.join(allowed)}")
        self._refuse_unknown(value, allowed, f"{key}.")
        self.content |= {f"{key}.{inner}": value[inner] for inner in value}
        return dict(value)

    def estimate(
        self,
        field: str,
        value: Any,
        unit: str,
        how: str,
        uncertainty: float | None = None,
        of: str = "",
        by: Mapping[str, int] | None = None,
    ) -> Any:
        """Remember an estimate and return its value; the uncertainty is that `of` a field of the vehicle, if named.

        What is stated about the keys that it goes `by`, each to its power, counts where it is more than that.
        """
        if of and uncertainty is not None:
            uncertainty = max(uncertainty, self._spread(of, by or {}, 0.0))
        self.estimates.append(Estimate(field, value, unit, how, uncertainty))
        if of and uncertainty is not None:
            self.uncertainty[of] = uncertainty
        return value

    def certain(self, field: str, by: Mapping[str, int], otherwise: float) -> None:
        """Note how uncertain a field is: as stated about the keys that it follows from, else `otherwise`."""
        self.uncertainty[field] = self._spread(field, by, otherwise)

    def _spread(self, field: str, by: Mapping[str, int], otherwise: float) -> float:
        """The sum of what is stated about keys, each times the power with which a field goes with it."""
        parts = {key: power * self._stated[key] for key, power in by.items() if key in self._stated}
        self._used |= parts.keys()
        if (total := sum(parts.values())) >= 1:
            text = f"{' and '.join(parts)} leave {field} uncertain by {total:.0%}"
            raise UserError(f"{text}{self.where(next(iter(parts)))}: it must be less than 100 %")
        return total if parts else otherwise

    def refuse_unused(self) -> None:
        """Refuse what is stated about the uncertainty of a key that no quantity of the vehicle follows from."""
        if idle := [key for key in self._stated if key not in self._used]:
            text = f"the uncertainty of {idle[0]} has no effect{self.where(idle[0])}"
            raise UserError(f"{text}: no quantity that varies follows from {idle[0]} here, write it without ±")

    def agree(
        self, key: str, value: float, others: str, implied: float, unit: str = "", by: Mapping[str, int] | None = None
    ) -> None:
        """Refuse a number that others contradict, beyond 5 % and what is stated about the keys it goes by, its own."""
        if abs(value - implied) > (0.05 + self._spread(key, by or {key: 1}, 0.0)) * abs(implied):
            numbers = f"{value:.4g} {unit}".rstrip(), f"{implied:.4g} {unit}".rstrip()
            text = f"{key} is {numbers[0]}, but {others} make it {numbers[1]}"
            raise UserError(f"{text}{self.where(key)}: correct one of them or leave it out")

    def question(self, key: str, *values: float) -> None:
        """Remember the first value that no ordinary quadrotor has."""
        self.doubts += list(filter(None, map(DESCRIBED[key].doubt, values)))[:1]
