"""A quadrotor described by what its owner knows, turned into full parameters.

What it leaves out is estimated, and each estimate is handed back to be shown. The constants are medians over the nine
packaged platforms, scaled as physics suggests, within a factor of two or so of each of them.
"""

from __future__ import annotations

import dataclasses
import math
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from raptor.core.atomic import PathLike
from raptor.core.errors import UserError
from raptor.quadrotor.files import is_finite_number, plain, read_content, shown
from raptor.quadrotor.parameters import TEMPLATE, Quadrotors
from raptor.quadrotor.validation import DESCRIBED, QuadrotorWarning
from raptor.quadrotor.vehicles import ON_AXIS, SHORTEST_TIME_CONSTANT, SIDES

GRAVITY = 9.81  # m/s^2
ARM_PER_CUBE_ROOT_OF_MASS = 0.2  # m kg^(-1/3)
TILT_INERTIA = 0.34  # of mass times the rotors' mean square distance from the roll or pitch axis
YAW_INERTIA = 0.315  # of mass times the rotors' mean square distance from the yaw axis
THRUST_TO_WEIGHT = 3.3
MOTOR_TIME_CONSTANT = 0.04  # s
TORQUE_PER_THRUST = 0.016  # N m per N
TORQUE_PER_THRUST_AND_DIAMETER = 0.07  # C_P / (2 pi C_T) of a propeller at rest, with C_P = 0.44 C_T
MEDIAN = "median of the packaged platforms"

Positions = list[list[float]]  # per rotor: x, y, z in m, body, from the centre of mass

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
        content: Any = source if self.path is None else read_content(self.path)
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
        fits = isinstance(values, list) and len(values) == count and all(map(is_finite_number, values))
        if not fits or not all(1e-12 <= x <= 1e12 for x in values):
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


def from_description(
    source: PathLike | Mapping[str, Any], dtype: torch.dtype = torch.float32
) -> tuple[Quadrotors, tuple[Estimate, ...]]:
    """Turn a description, a YAML file or its content, into full parameters, and what was estimated for them.

    `DESCRIPTION_KEYS` and examples/my_quadrotor.yaml say what it may hold. The result is a population of one, its
    starts and its termination box scaled to its arms as RAPTOR does.
    """
    known = Description(source if isinstance(source, Mapping) else Path(source))
    own, files = ("my_quadrotor", None) if known.path is None else (known.path.stem, [known.path])
    name = known.content.get("name", own)
    if not isinstance(name, str):
        raise known.wrong("name", "must be text")
    exact = Quadrotors.from_dicts([{"dynamics": _dynamics(known)}], torch.float64, names=[name], sources=files)
    if known.doubts:
        text = f"unusual for a quadrotor, check the units: {', '.join(known.doubts)}{known.where}"
        warnings.warn(text, QuadrotorWarning, stacklevel=2)
    scaled = dataclasses.replace(exact, position_threshold=20 * exact.arm_length, max_position=10 * exact.arm_length)
    documented = dataclasses.replace(scaled, documents=tuple(scaled.to_dicts()))
    return documented.to(dtype=dtype), tuple(known.estimates)


def _dynamics(known: Description) -> dict[str, Any]:
    """The group of this name in l2f's schema."""
    mass = known.number("mass")
    if mass is None:
        raise UserError(f"mass is missing{known.where}: give the mass ready to fly, in kg")
    positions = _positions(known, mass)
    inertia = _inertia(known, mass, positions)
    curve = _thrust_curve(known, mass)
    rising, falling = _time_constants(known)
    torque_constant = _torque_constant(known)
    key, spins = "front_right_spin", ("counterclockwise", "clockwise")
    spin = known.content.get(key, spins[0])
    if key not in known.content:
        known.estimate(key, spin, "", "as in PX4's and the Crazyflie's X layout")
    elif spin not in spins:
        raise known.wrong(key, f"must be {' or '.join(spins)}")
    sign = 1.0 if spin == spins[0] else -1.0
    return {
        **TEMPLATE["dynamics"],  # gravity and action limit; the hover throttle is written anew from the curve
        "rotor_positions": positions,
        "rotor_thrust_directions": [[0.0, 0.0, 1.0]] * 4,
        "rotor_torque_directions": [[0.0, 0.0, sign * direction] for direction in (-1, 1, -1, 1)],
        "rotor_thrust_coefficients": [curve] * 4,
        "rotor_torque_constants": [torque_constant] * 4,
        "rotor_time_constants_rising": [rising] * 4,
        "rotor_time_constants_falling": [falling] * 4,
        "mass": mass,
        "J": inertia.tolist(),
        "J_inv": torch.linalg.inv_ex(inertia).inverse.tolist(),
    }


def x_frame(forward: float, sideways: float) -> Positions:
    """Positions of the rotors of an X frame from their distances along the two axes, in m."""
    return [[x * forward, y * sideways, 0.0] for x, y in SIDES]


def inertia_of_frame(mass: float, positions: Positions) -> tuple[float, ...]:
    """Principal moments (kg m^2) from the mass (kg) and the positions of the rotors (m)."""
    forward, sideways = (sum(position[axis] ** 2 for position in positions) / len(positions) for axis in (0, 1))
    return TILT_INERTIA * mass * sideways, TILT_INERTIA * mass * forward, YAW_INERTIA * mass * (forward + sideways)


def _positions(known: Description, mass: float) -> Positions:
    if "motor_positions" in known.content:
        return _given_positions(known)
    offset, size, arm = known.number("arm_offset", 2), known.number("size", 3), known.number("arm_length")
    if offset is None and arm is None and size is not None:
        offset = known.estimate("arm_offset", (size[0] / 2, size[1] / 2), "m", "motors at the corners of the size")
    if offset is None:
        how = f"{ARM_PER_CUBE_ROOT_OF_MASS:g} m times the cube root of the mass in kg"
        arm = arm or known.estimate("arm_length", ARM_PER_CUBE_ROOT_OF_MASS * mass ** (1 / 3), "m", how)
        offset = [arm / math.sqrt(2)] * 2
    return x_frame(*offset)


def _given_positions(known: Description) -> Positions:
    key, positions = "motor_positions", []
    given = known.group(key, ROTORS)
    for rotor, (side_x, side_y) in zip(ROTORS, SIDES, strict=True):
        position = given.get(rotor)
        if not isinstance(position, list) or len(position) not in (2, 3) or not all(map(is_finite_number, position)):
            raise known.wrong(key, f"needs {rotor}: [x forward, y left] or [x, y, z up] in m")
        x, y, z = [*map(float, position), 0.0][:3]
        if min(x * side_x, y * side_y) < -ON_AXIS * math.hypot(x, y):
            signs = f"x {'>=' if side_x > 0 else '<='} 0 and y {'>=' if side_y > 0 else '<='} 0"
            raise known.wrong(key, f"must have {rotor} at {signs} (x forward, y left)")
        positions.append([x, y, z])
    for (x, y, _), (next_x, next_y, _) in zip(positions, [*positions[1:], positions[0]], strict=True):
        if x * next_y >= y * next_x:
            raise known.wrong(key, f"must go clockwise, seen from above: {', '.join(ROTORS)}")
    return positions


def _inertia(known: Description, mass: float, positions: Positions) -> Tensor:
    """The matrix (3, 3) in kg m^2."""
    given, size = known.content.get("inertia"), known.number("size", 3)
    if isinstance(given, list) and all(isinstance(row, list) for row in given):
        if len(given) != 3 or any(len(row) != 3 or not all(map(is_finite_number, row)) for row in given):
            raise known.wrong("inertia", "must be [Jxx, Jyy, Jzz] or a 3x3 matrix")
        matrix = torch.tensor(given, dtype=torch.float64)
        low, _, high = torch.linalg.eigvalsh(matrix).tolist()
        if not torch.allclose(matrix, matrix.mT, rtol=1e-4, atol=1e-4 * high) or low <= 0:
            raise known.wrong("inertia", "must be symmetric and positive definite")
        return matrix
    moments: Any = known.number("inertia", 3)
    if moments is None and size is not None:
        known.question("size", *size)
        x, y, z = (edge * edge for edge in size)
        box = tuple(mass * squares / 12 for squares in (y + z, x + z, x + y))
        moments = known.estimate("inertia", box, "kg m^2", "mass spread evenly over a box of the size")
    elif moments is None:
        factors = f"{TILT_INERTIA:g} mass y^2, {TILT_INERTIA:g} mass x^2 and {YAW_INERTIA:g} mass (x^2 + y^2)"
        how = f"{factors} with the motors' mean squares"
        moments = known.estimate("inertia", inertia_of_frame(mass, positions), "kg m^2", how)
    return torch.diag(torch.tensor(moments, dtype=torch.float64))


def _thrust_curve(known: Description, mass: float) -> list[float]:
    """Coefficients (N) of thrust over throttle."""
    weight = mass * GRAVITY
    hover, full, ratio = map(known.number, ("hover_throttle", "max_thrust_per_motor", "thrust_to_weight"))
    if hover is not None and hover >= 1:
        raise known.wrong("hover_throttle", "must be between 0 and 1")
    if full is not None:
        ratio = 4 * full / weight
        if ratio <= 1:
            raise known.wrong("max_thrust_per_motor", f"must be above {weight / 4:.4g} N for {mass:g} kg to hover")
    elif ratio is None:
        guess = (THRUST_TO_WEIGHT, MEDIAN) if hover is None else (1 / hover**2, "1 / hover_throttle^2")
        ratio = known.estimate("thrust_to_weight", guess[0], "", guess[1])
    elif ratio <= 1:
        raise known.wrong("thrust_to_weight", "must be above 1 for the vehicle to hover")
    full = ratio * weight / 4
    if hover is None:
        how = "thrust grows with the square of the throttle: 1 / sqrt(thrust_to_weight)"
        known.estimate("hover_throttle", math.sqrt(1 / ratio), "", how)
        return [0.0, 0.0, full]
    # thrust = full (a u + (1 - a) u^2), through full / ratio at hover; rising on the whole range for 0 <= a <= 2
    least, most = 1 - math.sqrt(1 - 1 / ratio), math.sqrt(1 / ratio)
    if not least - 1e-9 <= hover <= most + 1e-9:
        allowed = f"must be between {least:.3g} and {most:.3g} where full thrust is {ratio:.3g} times the weight"
        raise known.wrong("hover_throttle", allowed)
    linear = (1 / ratio - hover**2) / (hover - hover**2)
    return [0.0, full * linear, full * (1 - linear)]


def _time_constants(known: Description) -> list[float]:
    """Of the motors, rising and falling, in s."""
    key, ways = "motor_time_constant", ("rising", "falling")
    if not isinstance(known.content.get(key), Mapping):
        return [known.number(key) or known.estimate(key, MOTOR_TIME_CONSTANT, "s", MEDIAN)] * 2
    known.group(key, ways)
    rising, falling = (known.number(f"{key}.{way}") for way in ways)
    if rising is None and falling is None:
        raise known.wrong(key, "needs a number, or rising and falling")
    pairs = zip(ways, (rising, falling), (falling, rising), strict=True)
    return [given or known.estimate(f"{key}.{way}", other, "s", "as the other one") for way, given, other in pairs]


def _torque_constant(known: Description) -> float:
    """N m per N."""
    key, diameter = "propeller_torque_constant", known.number("propeller_diameter")
    value, how = TORQUE_PER_THRUST, MEDIAN
    if diameter is not None:
        known.question("propeller_diameter", diameter)
        value = TORQUE_PER_THRUST_AND_DIAMETER * diameter
        how = f"{TORQUE_PER_THRUST_AND_DIAMETER:g} times the diameter of the propeller"
    return known.number(key) or known.estimate(key, value, "N m per N", how)
