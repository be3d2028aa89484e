"""Where the motors of a described quadrotor are, and how its mass is spread."""

from __future__ import annotations

import math
import re

import torch
from torch import Tensor

from raptor.core.errors import UserError
from raptor.quadrotor.known import ROTORS, Description
from raptor.quadrotor.units import KINDS
from raptor.quadrotor.validation import DESCRIBED
from raptor.quadrotor.vehicles import ON_AXIS, SIDES

ARM_PER_CUBE_ROOT_OF_MASS = 0.2  # m kg^(-1/3)
TILT_INERTIA = 0.34  # of mass times the rotors' mean square distance from the roll or pitch axis
YAW_INERTIA = 0.315  # of mass times the rotors' mean square distance from the yaw axis
LARGEST_MISFIT = 2.0  # factor between the size and the distances of the motors; guards and bodies differ by less
UNLIKELY, IMPOSSIBLE = 5.0, 30.0  # inertia over its estimate; all mass at twice the arms' length would be 25

FRAMES = {
    "x": SIDES,
    "plus": ((1.0, 0.0), (0.0, -1.0), (-1.0, 0.0), (0.0, 1.0)),
    "wide-x": tuple((x, 1.2 * y) for x, y in SIDES),  # as the platforms race, fs and soft, within 5 %
    "deadcat": ((1.515, -2.45), (-1.515, -1.875), (-1.515, 1.875), (1.515, 2.45)),  # of an SK450, from PX4's geometries
}
"""Shapes by name: the motors around the middle, in the order of `ROTORS`; the length does not matter."""

Positions = list[list[float]]  # per rotor: x, y, z in m, body, from the centre of mass


def rotor_positions(known: Description, mass: float) -> Positions:
    """Positions from the centre of mass, from whatever says where the motors are."""
    around = _given_positions(known) if "motor_positions" in known else _frame(known, mass)
    diagonal = max(math.dist(around[i], around[i + 2]) for i in (0, 1))
    for key, implied in {"wheelbase": diagonal, "diagonal": diagonal, "arm_length": diagonal / 2}.items():
        if (given := known.number(key)) is not None:
            known.agree(key, given, "the other lengths", implied, "m")
    if (size := known.number("size", 3)) is not None:
        length, width = (max(edge) - min(edge) for edge in list(zip(*around, strict=True))[:2])
        _check_size(known, size, math.hypot(length, width))
    if "centre_of_mass" not in known:
        return around
    centre = known.point("centre_of_mass", known.content["centre_of_mass"])
    if centre is None:
        raise known.wrong("centre_of_mass", "must be [x forward, y left] or [x, y, z up] in m")
    return [[x - offset for x, offset in zip(position, centre, strict=True)] for position in around]


def x_frame(forward: float, sideways: float) -> Positions:
    """Positions of the rotors of an X frame from their distances along the two axes, in m."""
    return [[x * forward, y * sideways, 0.0] for x, y in SIDES]


def _frame(known: Description, mass: float) -> Positions:
    """The motors of a frame by its shape, as large as the lengths say."""
    frame = re.sub("[ _]", "-", str(known.content.get("frame", "x"))).lower()
    frame = {"+": "plus", "dead-cat": "deadcat"}.get(frame, frame)
    if frame not in FRAMES:
        raise known.wrong("frame", f"must be {', '.join(FRAMES)}, or left out for motor_positions")
    offset, size, shape = known.number("arm_offset", 2), known.number("size", 3), FRAMES[frame]
    key = next((key for key in ("arm_offset", "wheelbase", "diagonal", "arm_length") if key in known), "")
    known.certain("arm_length", {key: 1}, 0.02)
    is_x = frame in ("x", "wide-x")
    if offset is not None and not is_x:
        raise UserError(f"arm_offset is for X frames, not for {frame}{known.where('frame')}: give motor_positions")
    if not key and size is not None and is_x:
        how = "motors at the corners of the size"
        offset = known.estimate("arm_offset", (size[0] / 2, size[1] / 2), "m", how, 0.05, "arm_length", {"size": 1})
    if offset is not None:
        return x_frame(*offset)
    if key:
        span = known.number(key) * (2 if key == "arm_length" else 1)
    elif size is not None:
        length = max(x for x, _ in shape) - min(x for x, _ in shape)
        span = math.dist(shape[0], shape[2]) * size[0] / length
        how = f"as long as the size, {size[0]:.4g} m"
        known.estimate("wheelbase", span, "m", how, 0.05, "arm_length", {"size": 1})
    else:
        how = f"{ARM_PER_CUBE_ROOT_OF_MASS:g} m times the cube root of the mass in kg: 0.2 x {mass:.4g}^(1/3)"
        arm = known.estimate("arm_length", ARM_PER_CUBE_ROOT_OF_MASS * mass ** (1 / 3), "m", how, 0.25, of="arm_length")
        span = 2 * arm
    scale = span / math.dist(shape[0], shape[2])
    positions = [[scale * x, scale * y, 0.0] for x, y in shape]
    if frame in ("wide-x", "deadcat"):
        numbers = round(positions[3][0], 6), *(round(positions[i][1], 6) for i in (3, 2))
        how = f"typical proportions of {frame}, scaled to the diagonal; motor_positions say it exactly"
        known.estimate("motor_positions", numbers, "m forward, left in front, left behind", how)
    return positions


def _given_positions(known: Description) -> Positions:
    key, positions = "motor_positions", []
    given = known.group(key, ROTORS)
    for rotor, (side_x, side_y) in zip(ROTORS, SIDES, strict=True):
        position = known.point(key, given.get(rotor))
        if position is None:
            raise known.wrong(key, f"needs {rotor}: [x forward, y left] or [x, y, z up] in m")
        x, y, _ = position
        if min(x * side_x, y * side_y) < -ON_AXIS * math.hypot(x, y):
            signs = f"x {'>=' if side_x > 0 else '<='} 0 and y {'>=' if side_y > 0 else '<='} 0"
            raise known.wrong(key, f"must have {rotor} at {signs} (x forward, y left)")
        positions.append(position)
    for (x, y, _), (next_x, next_y, _) in zip(positions, [*positions[1:], positions[0]], strict=True):
        if x * next_y >= y * next_x:
            raise known.wrong(key, f"must go clockwise, seen from above: {', '.join(ROTORS)}")
    known.certain("arm_length", {key: 1}, 0.02)
    return positions


def inertia_of_frame(mass: float, positions: Positions) -> tuple[float, ...]:
    """Principal moments (kg m^2) from the mass (kg) and the positions of the rotors (m)."""
    forward, sideways = (sum(position[axis] ** 2 for position in positions) / len(positions) for axis in (0, 1))
    return TILT_INERTIA * mass * sideways, TILT_INERTIA * mass * forward, YAW_INERTIA * mass * (forward + sideways)


def inertia_matrix(known: Description, mass: float, positions: Positions) -> Tensor:
    """The matrix (3, 3) in kg m^2."""
    given, size, typical = known.content.get("inertia"), known.number("size", 3), inertia_of_frame(mass, positions)
    if size is not None:
        known.question("size", *size)
    if isinstance(given, list) and all(isinstance(row, list) for row in given):
        rows = [[known.quantity("inertia", x) for x in row] for row in given]
        if len(rows) != 3 or any(len(row) != 3 or None in row for row in rows):
            raise known.wrong("inertia", "must be [Jxx, Jyy, Jzz] or a 3x3 matrix")
        matrix = torch.tensor([[x.value for x in row if x] for row in rows], dtype=torch.float64)
        low, _, high = torch.linalg.eigvalsh(matrix).tolist()
        if not torch.allclose(matrix, matrix.mT, rtol=1e-4, atol=1e-4 * high) or low <= 0:
            raise known.wrong("inertia", "must be symmetric and positive definite")
        _check_moments(known, matrix.diagonal().tolist(), typical)
        return matrix
    moments = known.number("inertia", 3)
    if moments is not None:
        _check_moments(known, moments, typical)
    elif size is not None:
        x, y, z = (edge * edge for edge in size)
        box = tuple(mass * squares / 12 for squares in (y + z, x + z, x + y))
        numbers = f"{mass:.4g} ({size[1]:.4g}^2 + {size[2]:.4g}^2) / 12, and so on"
        how = f"mass spread evenly over a box of the size: {numbers}"
        moments = known.estimate("inertia", box, "kg m^2", how, 0.35, "inertia", {"size": 2})
    else:
        factors = f"{TILT_INERTIA:g} mass y^2, {TILT_INERTIA:g} mass x^2 and {YAW_INERTIA:g} mass (x^2 + y^2)"
        x, y = (math.sqrt(sum(position[axis] ** 2 for position in positions) / 4) for axis in (0, 1))
        how = f"{factors} with the motors' root mean squares x = {x:.4g} m, y = {y:.4g} m"
        moments = known.estimate("inertia", typical, "kg m^2", how, 0.4, of="inertia")
    return torch.diag(torch.tensor(moments, dtype=torch.float64))


def _check_size(known: Description, size: list[float], motors: float) -> None:
    """Refuse a size (m) whose length and width are far from those of the motors, which have this diagonal (m)."""
    diagonal = math.hypot(*size[:2])
    if not 1 / LARGEST_MISFIT < diagonal / motors < LARGEST_MISFIT:
        text = f"size is {diagonal:.3g} m along its diagonal, but the motors are {motors:.3g} m apart by the other keys"
        remedy = DESCRIBED["size"].slip(max(size)) or "it is length and width between motor axes, correct one of them"
        raise UserError(f"{text}{known.where('size')}: {remedy}")


def _check_moments(known: Description, moments: list[float], typical: tuple[float, ...]) -> None:
    """Note moments that are given; doubt or refuse those of another order of magnitude than mass and motors suggest."""
    known.certain("inertia", {"inertia": 1}, 0.1)
    ratio = math.prod(given / usual for given, usual in zip(moments, typical, strict=True)) ** (1 / 3)
    if 1 / UNLIKELY <= ratio <= UNLIKELY:
        return
    misfits = {unit: abs(math.log(ratio * factor)) for unit, factor in KINDS["inertia"].items()}
    unit = min(misfits, key=misfits.__getitem__)
    guess = f"; given in {unit}?" if misfits[unit] < math.log(UNLIKELY) else ""
    suggested = "what the mass and the motors' positions suggest"
    text = f"inertia {moments[0]:.4g} kg m^2 is {ratio:.3g} times {suggested}{guess}"
    if ratio > IMPOSSIBLE:
        raise UserError(f"{text}{known.where('inertia')}: correct one of the three")
    known.doubts.append(text)
