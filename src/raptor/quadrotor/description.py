"""A quadrotor described by what its owner knows, turned into full parameters.

What it leaves out is estimated (`raptor.quadrotor.estimates`), and each estimate is handed back to be shown.
"""

from __future__ import annotations

import dataclasses
import math
import os
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch

from raptor.core.errors import UserError
from raptor.quadrotor import estimates
from raptor.quadrotor.description_file import Reader, load
from raptor.quadrotor.documents import is_finite_number
from raptor.quadrotor.estimates import ROTORS, Estimate, Positions
from raptor.quadrotor.parameters import Quadrotors
from raptor.quadrotor.validation import SHORTEST_TIME_CONSTANT, QuadrotorWarning


def from_description(
    source: str | os.PathLike[str] | Mapping[str, Any], dtype: torch.dtype = torch.float32
) -> tuple[Quadrotors, tuple[Estimate, ...]]:
    """Turn a description into full parameters; `KEYS` and examples/my_quadrotor.yaml say what it may hold.

    Args:
        source: a YAML file, or its content as a mapping.
        dtype: of the tensors.

    Returns:
        A population of one, its starts and its termination box scaled to its arms as RAPTOR does; and what was
        estimated because the description leaves it out.

    Raises:
        UserError: names the file, the key, the value and what is allowed.
    """
    if isinstance(source, Mapping):
        return _complete(Reader(source, None), "my_quadrotor", dtype)
    path = Path(source)
    return _complete(Reader(load(path), path), path.stem, dtype)


def _complete(reader: Reader, name: str, dtype: torch.dtype) -> tuple[Quadrotors, tuple[Estimate, ...]]:
    mass = reader.number("mass")
    if mass is None:
        raise UserError(f"mass is missing{reader.where}: give the mass ready to fly, in kg")
    positions = _positions(reader, mass)
    inertia = torch.tensor(_inertia(reader, mass, positions), dtype=torch.float64)
    curve = _thrust_curve(reader, mass)
    rising, falling = _time_constants(reader)
    torque_constant = reader.number("propeller_torque_constant")
    if torque_constant is None:
        diameter = reader.number("propeller_diameter")
        torque_constant = reader.note(estimates.torque_constant(diameter))
        if diameter is not None:
            reader.question("propeller_diameter", diameter)
    spin = reader.choice("front_right_spin", ("counterclockwise", "clockwise"))
    if spin is None:
        spin = reader.note(estimates.front_right_spin())
    sign = 1.0 if spin == "counterclockwise" else -1.0
    document = {
        "dynamics": {
            "rotor_positions": positions,
            "rotor_thrust_directions": [[0.0, 0.0, 1.0]] * 4,
            "rotor_torque_directions": [[0.0, 0.0, sign * direction] for direction in (-1, 1, -1, 1)],
            "rotor_thrust_coefficients": [curve] * 4,
            "rotor_torque_constants": [torque_constant] * 4,
            "rotor_time_constants_rising": [rising] * 4,
            "rotor_time_constants_falling": [falling] * 4,
            "mass": mass,
            "gravity": [0.0, 0.0, -estimates.GRAVITY],
            "J": inertia.tolist(),
            "J_inv": torch.linalg.inv_ex(inertia).inverse.tolist(),
            "hovering_throttle_relative": 0.5,  # written anew from the thrust curve
            "action_limit": {"min": 0.0, "max": 1.0},
        }
    }
    given = reader.content.get("name", name)
    if not isinstance(given, str):
        raise reader.wrong("name", "must be text")
    exact = Quadrotors.from_dicts(
        [document], torch.float64, names=[given], sources=None if reader.path is None else [reader.path]
    )
    scaled = dataclasses.replace(exact, position_threshold=20 * exact.arm_length, max_position=10 * exact.arm_length)
    documented = dataclasses.replace(scaled, documents=tuple(scaled.to_dicts()))
    if reader.doubts:
        doubts = ", ".join(reader.doubts)
        warnings.warn(
            f"unusual for a quadrotor, check the units: {doubts}{reader.where}", QuadrotorWarning, stacklevel=3
        )
    return documented.to(dtype=dtype), tuple(reader.estimates)


def _positions(reader: Reader, mass: float) -> Positions:
    if "motor_positions" in reader.content:
        positions = [_position(reader, rotor, side) for rotor, side in zip(ROTORS, estimates.SIDES, strict=True)]
        for (x, y, _), (next_x, next_y, _) in zip(positions, [*positions[1:], positions[0]], strict=True):
            if x * next_y >= y * next_x:
                raise reader.wrong("motor_positions", f"must go clockwise, seen from above: {', '.join(ROTORS)}")
        return positions
    offset = reader.numbers("arm_offset", 2)
    if offset is not None:
        return estimates.x_frame(*offset)
    arm = reader.number("arm_length")
    size = reader.numbers("size", 3)
    if arm is None and size is not None:
        length, width, _ = size
        reader.note(estimates.arm_offset_of_size(length, width))
        return estimates.x_frame(length / 2, width / 2)
    if arm is None:
        arm = reader.note(estimates.arm_length(mass))
    return estimates.x_frame(arm / math.sqrt(2), arm / math.sqrt(2))


def _position(reader: Reader, rotor: str, side: tuple[float, float]) -> list[float]:
    positions = reader.group("motor_positions", ROTORS)
    position = positions.get(rotor)
    if not isinstance(position, list) or len(position) not in (2, 3) or not all(map(is_finite_number, position)):
        raise reader.wrong("motor_positions", f"needs {rotor}: [x forward, y left] or [x, y, z up] in m")
    x, y, *z = map(float, position)
    if min(x * side[0], y * side[1]) < -estimates.ON_AXIS * math.hypot(x, y):
        signs = " and ".join(f"{axis} {'>=' if s > 0 else '<='} 0" for axis, s in zip("xy", side, strict=True))
        raise reader.wrong("motor_positions", f"must have {rotor} at {signs} (x forward, y left)")
    return [x, y, *(z or [0.0])]


def _inertia(reader: Reader, mass: float, positions: Positions) -> list[list[float]]:
    if "inertia" not in reader.content:
        size = reader.numbers("size", 3)
        if size is None:
            estimate = estimates.inertia_of_frame(mass, positions)
        else:
            reader.question("size", *size)
            estimate = estimates.inertia_of_box(mass, *size)
        return _diagonal(reader.note(estimate))
    given = reader.content["inertia"]
    rows = given if isinstance(given, list) and all(isinstance(row, list) for row in given) else None
    if rows is None:
        moments = reader.numbers("inertia", 3)
        assert moments is not None
        rows = _diagonal(moments)
    if len(rows) != 3 or any(len(row) != 3 or not all(map(is_finite_number, row)) for row in rows):
        raise reader.wrong("inertia", "must be [Jxx, Jyy, Jzz] or a 3x3 matrix")
    matrix = torch.tensor(rows, dtype=torch.float64)
    low, _, high = torch.linalg.eigvalsh(matrix).tolist()
    if not torch.allclose(matrix, matrix.mT, rtol=1e-4, atol=1e-4 * high) or low <= 0:
        raise reader.wrong("inertia", "must be symmetric and positive definite")
    return rows


def _thrust_curve(reader: Reader, mass: float) -> list[float]:
    weight = mass * estimates.GRAVITY
    hover = reader.number("hover_throttle")
    if hover is not None and hover >= 1:
        raise reader.wrong("hover_throttle", "must be between 0 and 1")
    full = reader.number("max_thrust_per_motor")
    ratio = reader.number("thrust_to_weight")
    if full is not None:
        ratio = 4 * full / weight
        if ratio <= 1:
            raise reader.wrong("max_thrust_per_motor", f"must be above {weight / 4:.4g} N for {mass:g} kg to hover")
    elif ratio is None:
        ratio = reader.note(estimates.thrust_to_weight(hover))
    elif ratio <= 1:
        raise reader.wrong("thrust_to_weight", "must be above 1 for the vehicle to hover")
    full = ratio * weight / 4
    if hover is None:
        reader.note(estimates.hover_throttle(ratio))
        return [0.0, 0.0, full]
    # thrust = full (a u + (1 - a) u^2), through full / ratio at hover; rising on the whole range for 0 <= a <= 2
    least, most = 1 - math.sqrt(1 - 1 / ratio), math.sqrt(1 / ratio)
    if not least - 1e-9 <= hover <= most + 1e-9:
        allowed = f"must be between {least:.3g} and {most:.3g} where full thrust is {ratio:.3g} times the weight"
        raise reader.wrong("hover_throttle", allowed)
    linear = (1 / ratio - hover**2) / (hover - hover**2)
    return [0.0, full * linear, full * (1 - linear)]


def _time_constants(reader: Reader) -> tuple[float, float]:
    key = "motor_time_constant"
    if key not in reader.content:
        both = reader.note(estimates.motor_time_constant())
        return both, both
    if not isinstance(reader.content[key], Mapping):
        single = _time_constant(reader, key)
        assert single is not None
        return single, single
    inner = Reader(reader.group(key, ("rising", "falling")), reader.path, f"{key}.")
    rising, falling = _time_constant(inner, "rising"), _time_constant(inner, "falling")
    if rising is None and falling is None:
        raise reader.wrong(key, "needs a number, or rising and falling")
    if rising is None or falling is None:
        missing, present = ("rising", falling) if rising is None else ("falling", rising)
        assert present is not None
        same = reader.note(Estimate(f"{key}.{missing}", present, "s", "as the other one"))
        return same, same
    return rising, falling


def _time_constant(reader: Reader, key: str) -> float | None:
    value = reader.number(key)
    if value is not None and value < SHORTEST_TIME_CONSTANT:
        raise reader.wrong(key, f"must be at least {SHORTEST_TIME_CONSTANT:g} s, the shortest that can be simulated")
    return value


def _diagonal(moments: Iterable[float]) -> list[list[float]]:
    return [[moment if row == column else 0.0 for column in range(3)] for row, moment in enumerate(moments)]
