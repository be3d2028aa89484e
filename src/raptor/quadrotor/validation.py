"""Validation: every number of a population is one that a quadrotor can have.

`validate` runs wherever vehicles are read or written; the dynamics never check.
"""

from __future__ import annotations

import dataclasses
import os
import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from raptor.core.errors import UserError
from raptor.quadrotor.estimates import ON_AXIS, SIDES
from raptor.quadrotor.plausible import doubts
from raptor.quadrotor.schema import FIELDS
from raptor.quadrotor.vehicles import LONGEST_STEP, V, Vehicles

Source = str | os.PathLike[str] | Sequence[str | os.PathLike[str]] | None

INERTIA_TOLERANCE = 1e-4  # of the largest entry: how far the inertia may be from what its inverse says
ROUNDING = 1e-2, 1e-6  # how far, relatively or in kg m^2, to count as rounded: l2f writes six decimals
THRUST_ROUNDING = 0.02  # possible relative error of the full thrust from which on rounding is worth a warning
LARGEST_MOMENT = 1.001, 1.05  # over the sum of the other principal moments: measured inaccurately beyond, wrong beyond

SHORTEST_TIME_CONSTANT = 1e-3
"""s; of a rotor. Whatever is shorter, a step of 0.01 s integrates its thrust as if it were this."""

_ROTOR_SIDES = torch.tensor(SIDES, dtype=torch.float64)
_REACTION = torch.tensor([-1.0, 1.0, -1.0, 1.0], dtype=torch.float64)


class QuadrotorWarning(UserWarning):
    """Something about a vehicle is usable but probably not what its author meant."""


@dataclasses.dataclass(frozen=True)
class _Checker:
    """The population in float64 on the CPU, and how to speak of it."""

    quadrotors: Vehicles
    source: Source

    def __getitem__(self, field: str) -> Tensor:
        return getattr(self.quadrotors, field)  # type: ignore[no-any-return]

    def label(self, field: str) -> str:
        path = FIELDS[field].path
        return field if path.endswith(f".{field}") else f"{field} ({path})"

    def vehicle(self, index: int) -> str:
        name = index if self.quadrotors.names is None else self.quadrotors.names[index]
        one = self.source is None or isinstance(self.source, (str, os.PathLike))
        source: Any = self.source if one else self.source[index]  # type: ignore[index]
        return f"(vehicle {name})" if source is None else f"(vehicle {name}, {os.fspath(source)})"

    def forbid(self, bad: Tensor, field: str, rule: str) -> None:
        """Raise for the first entry of `field` that `bad`, of the field's shape or of its first axes, marks."""
        if not bad.any():
            return
        vehicle, *entry = bad.nonzero()[0].tolist()
        value: Any = self[field][vehicle].tolist()
        for axis in entry:
            value = value[axis]
        unit = f" {FIELDS[field].unit}".rstrip()
        where = f"[{', '.join(map(str, entry))}]" if entry else ""
        raise UserError(f"{self.label(field)}{where} {rule}, got {_digits(value)}{unit} {self.vehicle(vehicle)}")

    def warn(self, bad: Tensor, text: str) -> None:
        if bad.any():
            first, count = int(bad.nonzero()[0]), int(bad.sum())
            others = "" if count == 1 else f" and {count - 1} more vehicle{'s' if count > 2 else ''}"
            warnings.warn(f"{text} {self.vehicle(first)}{others}", QuadrotorWarning, stacklevel=4)


def _digits(value: Any) -> str:
    return f"[{', '.join(map(_digits, value))}]" if isinstance(value, list) else f"{value:.7g}"


def validate(quadrotors: V, source: Source = None) -> V:
    """Check every parameter of a population.

    Args:
        quadrotors: N vehicles.
        source: the file they came from, or one file for each vehicle; named in errors.

    Returns:
        The same vehicles. Where the inertia was rounded (six decimals ruin that of small vehicles), it is rebuilt from
        its inverse, with a warning.

    Raises:
        UserError: names the first field, vehicle and value that cannot be.
    """
    _check_shapes(quadrotors)
    check = _Checker(dataclasses.replace(quadrotors.to("cpu", torch.float64), documents=None), source)
    for field in FIELDS:
        check.forbid(~torch.isfinite(check[field]), field, "must be a finite number")
    check.forbid(check["mass"] <= 0, "mass", "must be positive")
    _check_rotors(check)
    for field in ("random_force", "random_torque"):
        bad = (check[field] < 0) & torch.tensor([False, True])
        check.forbid(bad, field, "has a standard deviation (std) that must not be negative")
    check.forbid(check["position_threshold"] <= 0, "position_threshold", "must be positive")
    check.forbid(check["max_position"] < 0, "max_position", "must not be negative")
    rebuilt = _check_inertia(check)
    _check_hover(check)
    _check_thrust(check)
    check.warn(*doubts(check.quadrotors))
    return quadrotors if rebuilt is None else dataclasses.replace(quadrotors, inertia=rebuilt.to(quadrotors.mass))


def _check_shapes(quadrotors: Vehicles) -> None:
    if quadrotors.mass.ndim != 1:
        raise UserError(f"mass must have shape (N,), got {tuple(quadrotors.mass.shape)}")
    for field, tensor in quadrotors.tensors().items():
        wanted = (len(quadrotors), *FIELDS[field].shape)
        if tuple(tensor.shape) != wanted:
            raise UserError(f"{field} must have shape {wanted}, got {tuple(tensor.shape)}")
        if not tensor.is_floating_point():
            raise UserError(f"{field} must hold floating-point numbers, got {tensor.dtype}")
    if quadrotors.names is not None and len(quadrotors.names) != len(quadrotors):
        raise UserError(f"names must be one for each of the {len(quadrotors)} vehicles, got {len(quadrotors.names)}")


def _check_rotors(check: _Checker) -> None:
    for field in ("rotor_time_constants_rising", "rotor_time_constants_falling"):
        check.forbid(check[field] <= 0, field, "must be positive")
        shortest = f"must be at least {SHORTEST_TIME_CONSTANT:g} s, the shortest that can be simulated"
        check.forbid(check[field] < SHORTEST_TIME_CONSTANT, field, shortest)
    check.warn(
        check.quadrotors.shortest_time_constant < 0.01 / LONGEST_STEP,
        f"rotors with time constants below {0.01 / LONGEST_STEP:g} s are too fast for l2f's one Runge-Kutta step of "
        "0.01 s: their speeds are integrated exactly instead, except where a task says exact_rotors=false, as the "
        "presets named paper do",
    )
    for field in ("rotor_thrust_directions", "rotor_torque_directions"):
        length = torch.linalg.vector_norm(check[field], dim=-1)
        check.forbid((length - 1).abs() > 1e-4, field, "must be a unit vector")
    field, rule = "rotor_torque_constants", "must not be negative (rotor_torque_directions give the sign)"
    check.forbid(check[field] < 0, field, rule)
    low, high = check["action_limit"].unbind(-1)
    check.forbid(low >= high, "action_limit", "must be two numbers, the lower one first")
    sides = check["rotor_positions"][..., :2] * _ROTOR_SIDES + ON_AXIS * check.quadrotors.arm_length[:, None, None]
    reaction = check["rotor_torque_directions"][..., 2] * _REACTION
    check.warn(
        (sides < 0).flatten(1).any(-1),
        f"{check.label('rotor_positions')} are not in the order front-right, back-right, back-left, front-left, "
        "which every policy expects",
    )
    check.warn(
        (reaction < 0).any(-1) & (sides >= 0).flatten(1).all(-1),
        f"{check.label('rotor_torque_directions')} along z are not -1, 1, -1, 1, which every policy expects",
    )


def _check_thrust(check: _Checker) -> None:
    coefficients, highest = check["rotor_thrust_coefficients"], check["action_limit"].abs().amax(-1)
    rounded = (coefficients != 0) & (coefficients == (coefficients * 1e6).round() / 1e6)
    lost = 0.5e-6 * torch.stack([highest**0, highest, highest**2], -1)[:, None] * rounded
    error = (lost.sum(-1) / check.quadrotors.full_thrust).amax(-1)
    check.warn(
        error > THRUST_ROUNDING,
        f"{check.label('rotor_thrust_coefficients')} were rounded, as by writing six decimals, and the thrust may be "
        f"off by {100 * error.nan_to_num(0.0).amax():.2g} %: write more digits",
    )


def _check_inertia(check: _Checker) -> Tensor | None:
    """Check both matrices; return the inertia with that of some rebuilt from the inverse, None if all agree."""
    rule = "must be symmetric, positive definite and invertible"
    check.forbid(~_is_positive_definite(check["inertia_inverse"]), "inertia_inverse", rule)
    inertia, inverse = check["inertia"], check["inertia_inverse"]
    rebuilt = _symmetric(torch.linalg.inv_ex(_symmetric(inverse)).inverse) + 0.0  # which turns -0 into 0
    difference = (inertia - rebuilt).abs()
    scale = rebuilt.abs().amax((-2, -1), keepdim=True)
    agrees = (difference <= INERTIA_TOLERANCE * scale).flatten(1).all(-1)
    rounded = ~agrees & (difference <= torch.clamp(ROUNDING[0] * scale, min=ROUNDING[1])).flatten(1).all(-1)
    check.forbid(~rounded & ~_is_positive_definite(inertia), "inertia", rule)
    wrong = ~agrees & ~rounded
    if wrong.any():
        vehicle = int(wrong.nonzero()[0])
        row, column = divmod(int(difference[vehicle].argmax()), 3)
        raise UserError(
            f"{check.label('inertia')}[{row}, {column}] is {inertia[vehicle, row, column]:.6g} kg m^2, but "
            f"{check.label('inertia_inverse')} says {rebuilt[vehicle, row, column]:.6g}: correct the one that is wrong "
            f"{check.vehicle(vehicle)}"
        )
    names = check.label("inertia"), check.label("inertia_inverse")
    check.warn(rounded, f"{names[0]} was rounded, as by writing six decimals; rebuilt from {names[1]}")
    used = torch.where(rounded[:, None, None], rebuilt, inertia)
    low, middle, high = torch.linalg.eigvalsh(_symmetric(used)).unbind(-1)
    ratio, allowed = high / (low + middle), LARGEST_MOMENT[1]
    rule = "is of no rigid body: the largest principal moment exceeds the sum of the others"
    check.forbid(ratio > allowed, "inertia", f"{rule} by more than {100 * (allowed - 1):.2g} %")
    check.warn(ratio > LARGEST_MOMENT[0], f"{check.label('inertia')} {rule}, which small errors of measurement explain")
    return used if rounded.any() else None


def _symmetric(matrices: Tensor) -> Tensor:
    return matrices / 2 + matrices.mT / 2


def _is_positive_definite(matrices: Tensor) -> Tensor:
    scale = matrices.abs().amax((-2, -1))
    skew = (matrices - _symmetric(matrices)).abs().amax((-2, -1))
    lowest = torch.linalg.eigvalsh(_symmetric(matrices))[..., 0]
    return (skew <= INERTIA_TOLERANCE * scale) & (lowest > 1e-6 * scale)


def _check_hover(check: _Checker) -> None:
    quadrotors = check.quadrotors
    check.forbid(quadrotors.gravity[:, 2] >= 0, "gravity", "must point down, along negative z")
    stuck = torch.isnan(quadrotors.hover_throttle)
    if stuck.any():
        vehicle = int(stuck.nonzero()[0])
        lost = (check["rotor_thrust_coefficients"][vehicle] == 0).any() and check["action_limit"][vehicle, 1] > 100
        hint = " (a coefficient of 0 may have been smaller than the six decimals that l2f writes)" if lost else ""
        raise UserError(
            f"a vehicle of mass {quadrotors.mass[vehicle]:.4g} kg (weight {quadrotors.weight[vehicle]:.4g} N, "
            f"thrust_to_weight {quadrotors.thrust_to_weight[vehicle]:.3g}) cannot hover with its "
            f"rotor_thrust_coefficients within action_limit: check these three{hint} {check.vehicle(vehicle)}"
        )
