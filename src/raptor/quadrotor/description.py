"""A quadrotor described by what its owner knows, turned into full parameters.

What it leaves out is estimated (`raptor.quadrotor.estimates`), and each estimate is handed back to be shown.
"""

from __future__ import annotations

import dataclasses
import math
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from raptor.core.atomic import PathLike
from raptor.core.errors import UserError
from raptor.quadrotor import estimates
from raptor.quadrotor.description_file import Reader, load
from raptor.quadrotor.documents import is_finite_number
from raptor.quadrotor.estimates import MEDIAN, ROTORS, SIDES, Estimate
from raptor.quadrotor.parameters import Quadrotors
from raptor.quadrotor.validation import QuadrotorWarning

Positions = list[list[float]]  # per rotor: x, y, z in m, body, from the centre of mass


def from_description(
    source: PathLike | Mapping[str, Any], dtype: torch.dtype = torch.float32
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
    path = None if isinstance(source, Mapping) else Path(source)
    reader = Reader(source if isinstance(source, Mapping) else load(Path(source)), path)
    name = reader.content.get("name", "my_quadrotor" if path is None else path.stem)
    if not isinstance(name, str):
        raise reader.wrong("name", "must be text")
    document = {"dynamics": _dynamics(reader)}
    exact = Quadrotors.from_dicts([document], torch.float64, names=[name], sources=None if path is None else [path])
    if reader.doubts:
        text = f"unusual for a quadrotor, check the units: {', '.join(reader.doubts)}{reader.where}"
        warnings.warn(text, QuadrotorWarning, stacklevel=2)
    scaled = dataclasses.replace(exact, position_threshold=20 * exact.arm_length, max_position=10 * exact.arm_length)
    documented = dataclasses.replace(scaled, documents=tuple(scaled.to_dicts()))
    return documented.to(dtype=dtype), tuple(reader.estimates)


def _dynamics(reader: Reader) -> dict[str, Any]:
    """The group of this name in l2f's schema."""
    mass = reader.number("mass")
    if mass is None:
        raise UserError(f"mass is missing{reader.where}: give the mass ready to fly, in kg")
    positions = _positions(reader, mass)
    inertia = _inertia(reader, mass, positions)
    curve = _thrust_curve(reader, mass)
    rising, falling = _time_constants(reader)
    torque_constant = _torque_constant(reader)
    spin = reader.choice("front_right_spin", ("counterclockwise", "clockwise")) or reader.estimate(
        "front_right_spin", "counterclockwise", "", "as in PX4's and the Crazyflie's X layout"
    )
    sign = 1.0 if spin == "counterclockwise" else -1.0
    return {
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


def _positions(reader: Reader, mass: float) -> Positions:
    if "motor_positions" in reader.content:
        return _given_positions(reader)
    offset, size, arm = reader.numbers("arm_offset", 2), reader.numbers("size", 3), reader.number("arm_length")
    if offset is None and arm is None and size is not None:
        offset = reader.estimate("arm_offset", (size[0] / 2, size[1] / 2), "m", "motors at the corners of the size")
    if offset is None:
        length = estimates.ARM_PER_CUBE_ROOT_OF_MASS
        how = f"{length:g} m times the cube root of the mass in kg"
        arm = arm or reader.estimate("arm_length", length * mass ** (1 / 3), "m", how)
        offset = [arm / math.sqrt(2)] * 2
    return estimates.x_frame(*offset)


def _given_positions(reader: Reader) -> Positions:
    key, positions = "motor_positions", []
    given = reader.group(key, ROTORS)
    for rotor, (side_x, side_y) in zip(ROTORS, SIDES, strict=True):
        position = given.get(rotor)
        if not isinstance(position, list) or len(position) not in (2, 3) or not all(map(is_finite_number, position)):
            raise reader.wrong(key, f"needs {rotor}: [x forward, y left] or [x, y, z up] in m")
        x, y, z = [*map(float, position), 0.0][:3]
        if min(x * side_x, y * side_y) < -estimates.ON_AXIS * math.hypot(x, y):
            signs = f"x {'>=' if side_x > 0 else '<='} 0 and y {'>=' if side_y > 0 else '<='} 0"
            raise reader.wrong(key, f"must have {rotor} at {signs} (x forward, y left)")
        positions.append([x, y, z])
    for (x, y, _), (next_x, next_y, _) in zip(positions, [*positions[1:], positions[0]], strict=True):
        if x * next_y >= y * next_x:
            raise reader.wrong(key, f"must go clockwise, seen from above: {', '.join(ROTORS)}")
    return positions


def _inertia(reader: Reader, mass: float, positions: Positions) -> Tensor:
    """The matrix (3, 3) in kg m^2."""
    given, size = reader.content.get("inertia"), reader.numbers("size", 3)
    if "inertia" in reader.content and isinstance(given, list) and all(isinstance(row, list) for row in given):
        if len(given) != 3 or any(len(row) != 3 or not all(map(is_finite_number, row)) for row in given):
            raise reader.wrong("inertia", "must be [Jxx, Jyy, Jzz] or a 3x3 matrix")
        matrix = torch.tensor(given, dtype=torch.float64)
        low, _, high = torch.linalg.eigvalsh(matrix).tolist()
        if not torch.allclose(matrix, matrix.mT, rtol=1e-4, atol=1e-4 * high) or low <= 0:
            raise reader.wrong("inertia", "must be symmetric and positive definite")
        return matrix
    moments = reader.numbers("inertia", 3)
    if moments is None and size is not None:
        reader.question("size", *size)
        box = estimates.inertia_of_box(mass, *size)
        moments = reader.estimate("inertia", box, "kg m^2", "mass spread evenly over a box of the size")
    elif moments is None:
        frame = estimates.inertia_of_frame(mass, positions)
        moments = reader.estimate("inertia", frame, "kg m^2", estimates.FRAME_INERTIA)
    return torch.diag(torch.tensor(moments, dtype=torch.float64))


def _thrust_curve(reader: Reader, mass: float) -> list[float]:
    """Coefficients (N) of thrust over throttle."""
    weight = mass * estimates.GRAVITY
    hover, full, ratio = map(reader.number, ("hover_throttle", "max_thrust_per_motor", "thrust_to_weight"))
    if hover is not None and hover >= 1:
        raise reader.wrong("hover_throttle", "must be between 0 and 1")
    if full is not None:
        ratio = 4 * full / weight
        if ratio <= 1:
            raise reader.wrong("max_thrust_per_motor", f"must be above {weight / 4:.4g} N for {mass:g} kg to hover")
    elif ratio is None:
        guess = (estimates.THRUST_TO_WEIGHT, MEDIAN) if hover is None else (1 / hover**2, "1 / hover_throttle^2")
        ratio = reader.estimate("thrust_to_weight", guess[0], "", guess[1])
    elif ratio <= 1:
        raise reader.wrong("thrust_to_weight", "must be above 1 for the vehicle to hover")
    full = ratio * weight / 4
    if hover is None:
        how = "thrust grows with the square of the throttle: 1 / sqrt(thrust_to_weight)"
        reader.estimate("hover_throttle", math.sqrt(1 / ratio), "", how)
        return [0.0, 0.0, full]
    # thrust = full (a u + (1 - a) u^2), through full / ratio at hover; rising on the whole range for 0 <= a <= 2
    least, most = 1 - math.sqrt(1 - 1 / ratio), math.sqrt(1 / ratio)
    if not least - 1e-9 <= hover <= most + 1e-9:
        allowed = f"must be between {least:.3g} and {most:.3g} where full thrust is {ratio:.3g} times the weight"
        raise reader.wrong("hover_throttle", allowed)
    linear = (1 / ratio - hover**2) / (hover - hover**2)
    return [0.0, full * linear, full * (1 - linear)]


def _time_constants(reader: Reader) -> tuple[float, float]:
    """Of the motors, rising and falling, in s."""
    key = "motor_time_constant"
    if not isinstance(reader.content.get(key), Mapping):
        both = reader.number(key) or reader.estimate(key, estimates.MOTOR_TIME_CONSTANT, "s", MEDIAN)
        return both, both
    inner = Reader(reader.group(key, ("rising", "falling")), reader.path, f"{key}.")
    rising, falling = inner.number("rising"), inner.number("falling")
    if rising is None and falling is None:
        raise reader.wrong(key, "needs a number, or rising and falling")
    return (
        rising or reader.estimate(f"{key}.rising", falling, "s", "as the other one"),
        falling or reader.estimate(f"{key}.falling", rising, "s", "as the other one"),
    )


def _torque_constant(reader: Reader) -> float:
    """N m per N."""
    key, diameter = "propeller_torque_constant", reader.number("propeller_diameter")
    value, how = estimates.TORQUE_PER_THRUST, MEDIAN
    if diameter is not None:
        reader.question("propeller_diameter", diameter)
        value = estimates.TORQUE_PER_THRUST_AND_DIAMETER * diameter
        how = f"{estimates.TORQUE_PER_THRUST_AND_DIAMETER:g} times the diameter of the propeller"
    return reader.number(key) or reader.estimate(key, value, "N m per N", how)
