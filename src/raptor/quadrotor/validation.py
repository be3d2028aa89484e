"""Validation: every number of a population is one that a quadrotor can have, and plausible.

`validate` runs wherever vehicles are read or written; the dynamics never check.
"""

from __future__ import annotations

import dataclasses
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from raptor.core.errors import UserError
from raptor.quadrotor.vehicles import FIELDS, LONGEST_STEP, ON_AXIS, SIDES, V, Vehicles

Source = str | os.PathLike[str] | Sequence[str | os.PathLike[str]] | None

INERTIA_TOLERANCE = 1e-4  # of the largest entry: how far the inertia may be from what its inverse says
ROUNDING = 1e-2, 1e-6  # how far, relatively or in kg m^2, to count as rounded: l2f writes six decimals
THRUST_ROUNDING = 0.02  # possible relative error of the full thrust from which on rounding is worth a warning
LARGEST_MOMENT = 1.001, 1.05  # over the sum of the other principal moments: measured inaccurately beyond, wrong beyond
DEFINITE = "must be symmetric, positive definite and invertible"

_ROTOR_SIDES = torch.tensor(SIDES, dtype=torch.float64)
_REACTION = torch.tensor([-1.0, 1.0, -1.0, 1.0], dtype=torch.float64)

DECADES = 2.0
"""How many powers of ten a size must span to be drawn on a logarithmic axis."""
_SIZES = ("mass", "arm_length", "torque_to_inertia")
_ANY = (-float("inf"), float("inf"))


class QuadrotorWarning(UserWarning):
    """Something about a vehicle is usable but probably not what its author meant."""


class Characteristic(NamedTuple):
    """A number of a vehicle or of its description, and what it is in ordinary quadrotors, of 20 g to 10 kg."""

    label: str
    unit: str  # empty where it has none
    trained: tuple[float, float] = _ANY  # range of the training distribution
    ordinary: tuple[float, float] = _ANY
    units: Mapping[str, float | None] = {}  # mistaken for ours, and factor to ours; None: fits what is too small
    given: str = "given"  # in one of these units
    values: Tensor = torch.empty(0)  # (N,) of a population
    is_size: bool = False  # whether it may span decades

    @property
    def title(self) -> str:
        """Label and unit."""
        return f"{self.label} ({self.unit})" if self.unit else self.label

    @property
    def spans_decades(self) -> bool:
        """Whether the logarithm of the values shows more than the values do."""
        values = self.values[self.values.isfinite()]
        return self.is_size and len(values) > 0 and bool(0 < values.min() * 10**DECADES <= values.max())

    def slip(self, value: float) -> str:
        """In which unit a value that no ordinary quadrotor has was probably meant; empty where nothing suggests one."""
        least, most = self.ordinary
        if least <= value <= most:
            return ""
        for low, high in (self.trained, self.ordinary):
            fits = {unit: low <= factor * value <= high for unit, factor in self.units.items() if factor is not None}
            fits |= {unit: 0 < value < least for unit, factor in self.units.items() if factor is None}
            if any(fits.values()):
                return f"{self.given} in {' or '.join(unit for unit in fits if fits[unit])}?"
        return ""

    def doubt(self, value: float) -> str | None:
        """What is odd about a value, or None where nothing is."""
        (low, high), (least, most) = self.trained, self.ordinary
        if least <= value <= most:
            return None
        guess = "".join(f"; {slip}" for slip in [self.slip(value)] if slip)
        number = f"{self.label} {value:.4g} {self.unit.replace('²', '^2')}".rstrip()
        return f"{number} ({low:g} to {high:g} in training{guess})"


_LENGTHS = {"mm": 1e-3, "cm": 1e-2, "inches": 0.0254}
_FORCES = {"gram-force": 9.81e-3, "kgf": 9.81}
_INERTIAS = {"g m^2": 1e3, "kg cm^2": 1e4, "kg mm^2": 1e6, "g cm^2": 1e7, "g mm^2": 1e9}
_TIMES = {"ms": 1e-3}
_TORQUES = {"N mm per N": 1e-3, "N m s^2 (divide it by the thrust coefficient in N s^2)": None}

CHARACTERISTICS = {
    "mass": Characteristic("mass", "kg", (0.02, 5), (0.01, 20), {"g": 1e-3}),
    "arm_length": Characteristic("arm length", "m", (0.024, 0.27), (0.015, 0.8), _LENGTHS),
    "thrust_to_weight": Characteristic("thrust-to-weight", "", (1.5, 5), (1.2, 20), _FORCES, "thrust given"),
    "torque_to_inertia": Characteristic(
        "torque-to-inertia", "1/s²", (40, 1200), (34, 6000), _INERTIAS, "inertia given"
    ),
    "hover_throttle": Characteristic("hover throttle", "", (0.376, 0.796)),
    "rotor_time_constant_rising": Characteristic("rotor time constant, rising", "s", (0.03, 0.1), (0, 0.3), _TIMES),
    "rotor_time_constant_falling": Characteristic("rotor time constant, falling", "s", (0.03, 0.3), (0, 0.6), _TIMES),
    "rotor_torque_constant": Characteristic(
        "rotor torque constant", "N m per N", (0.005, 0.05), (0.001, 0.3), _TORQUES
    ),
    "disturbance_to_weight": Characteristic("disturbance force (std.) over weight", "", (0, 0.2), (0, 1)),
}
"""By the name of an attribute of vehicles; a `rotor_..._constant` is the mean of the `rotor_..._constants`."""

DESCRIBED = {
    "propeller_diameter": Characteristic("propeller_diameter", "m", (0.07, 0.7), (0.02, 0.8), _LENGTHS),
    "size": Characteristic("size", "m", (0.03, 0.4), (0.005, 2), _LENGTHS),
}
"""By keys of a description."""


def characteristics(vehicles: Vehicles) -> dict[str, Characteristic]:
    """What sets the vehicles of a population apart, by name."""
    found = {}
    for name, trait in CHARACTERISTICS.items():
        per_rotor = name.replace("constant", "constants")
        values = getattr(vehicles, name) if per_rotor == name else getattr(vehicles, per_rotor).mean(-1)
        found[name] = trait._replace(values=values, is_size=name in _SIZES)
    return found


def cannot_hover(vehicles: Vehicles) -> Tensor:
    """(N,) whether the rotors cannot carry the weight, or carry it with nothing to spare."""
    return vehicles.hover_throttle.isnan() | ~(vehicles.thrust_to_weight > 1)


def doubts(vehicles: Vehicles) -> tuple[Tensor, str]:
    """(N,) whether something is odd about a vehicle, and what it is about the first of these."""
    traits = characteristics(vehicles)
    least, most = torch.tensor([trait.ordinary for trait in traits.values()], dtype=torch.float64).T
    values = torch.stack([trait.values for trait in traits.values()], -1)
    odd = (values - values.clamp(least, most)).ne(0).any(-1)
    row = values[odd][0].tolist() if odd.any() else []
    texts = {name: text for name, value in zip(traits, row, strict=False) if (text := traits[name].doubt(value))}
    if texts.keys() & {"mass", "arm_length"}:  # from which these follow
        texts = {name: text for name, text in texts.items() if name not in ("thrust_to_weight", "torque_to_inertia")}
    return odd, f"unusual for a quadrotor, check the units: {', '.join(texts.values())}"


def validate(quadrotors: V, source: Source = None) -> V:
    """Check every parameter of a population; errors name the first field, vehicle and value that cannot be, and files.

    Returns the same vehicles. Where the inertia was rounded (six decimals ruin that of small vehicles), it is rebuilt
    from its inverse, with a warning.
    """
    _check_shapes(quadrotors)
    check = _Checker(dataclasses.replace(quadrotors.to("cpu", torch.float64), documents=None), source)
    tensors = check.quadrotors.tensors()
    for name, tensor in tensors.items():
        check.forbid(~torch.isfinite(tensor), name, "must be a finite number")
    for name, tensor in tensors.items():
        for rule, holds in FIELDS[name].rules:
            check.forbid(~holds(tensor), name, rule)
    rebuilt = _check_inertia(check)
    _check_hover(check)
    for odd, text in _oddities(check.quadrotors):
        check.warn(odd, text)
    return quadrotors if rebuilt is None else dataclasses.replace(quadrotors, inertia=rebuilt.to(quadrotors.mass))


def _check_shapes(quadrotors: Vehicles) -> None:
    if quadrotors.mass.ndim != 1:
        raise UserError(f"mass must have shape (N,), got {tuple(quadrotors.mass.shape)}")
    num = len(quadrotors)
    for name, tensor in quadrotors.tensors().items():
        if tuple(tensor.shape) != (num, *FIELDS[name].shape):
            raise UserError(f"{name} must have shape {(num, *FIELDS[name].shape)}, got {tuple(tensor.shape)}")
        if not tensor.is_floating_point():
            raise UserError(f"{name} must hold floating-point numbers, got {tensor.dtype}")
    if quadrotors.names is not None and len(quadrotors.names) != num:
        raise UserError(f"names must be one for each of the {num} vehicles, got {len(quadrotors.names)}")


@dataclasses.dataclass(frozen=True)
class _Checker:
    """The population in float64 on the CPU, and how to speak of it."""

    quadrotors: Vehicles
    source: Source

    def vehicle(self, index: int) -> str:
        name = index if self.quadrotors.names is None else self.quadrotors.names[index]
        one = self.source is None or isinstance(self.source, (str, os.PathLike))
        source: Any = self.source if one else self.source[index]  # type: ignore[index]
        return f"(vehicle {name})" if source is None else f"(vehicle {name}, {os.fspath(source)})"

    def forbid(self, bad: Tensor, field: str, rule: str) -> None:
        """Raise for the first entry of `field` that `bad`, of the field's shape or of its first axes, marks."""
        if bad.any():
            vehicle, *entry = place = bad.nonzero()[0].tolist()
            where = f"[{', '.join(map(str, entry))}]" if entry else ""
            value = getattr(self.quadrotors, field)[tuple(place)].tolist()
            text = f"{_label(field)}{where} {rule}, got {_digits(value)} {FIELDS[field].unit}".rstrip()
            raise UserError(f"{text} {self.vehicle(vehicle)}")

    def warn(self, bad: Tensor, text: str) -> None:
        if bad.any():
            first, count = int(bad.nonzero()[0]), int(bad.sum())
            others = "" if count == 1 else f" and {count - 1} more vehicle{'s' if count > 2 else ''}"
            warnings.warn(f"{text} {self.vehicle(first)}{others}", QuadrotorWarning, stacklevel=4)


def _label(field: str) -> str:
    path = FIELDS[field].path
    return field if path.endswith(f".{field}") else f"{field} ({path})"


def _digits(value: Any) -> str:
    return f"[{', '.join(map(_digits, value))}]" if isinstance(value, list) else f"{value:.7g}"


def _check_inertia(check: _Checker) -> Tensor | None:
    """Check both matrices; return the inertia with that of some rebuilt from the inverse, None if all agree."""
    inertia, inverse = check.quadrotors.inertia, check.quadrotors.inertia_inverse
    check.forbid(~_is_positive_definite(inverse), "inertia_inverse", DEFINITE)
    rebuilt = _symmetric(torch.linalg.inv_ex(_symmetric(inverse)).inverse) + 0.0  # which turns -0 into 0
    difference = (inertia - rebuilt).abs()
    scale = rebuilt.abs().amax((-2, -1), keepdim=True)
    agrees = (difference <= INERTIA_TOLERANCE * scale).flatten(1).all(-1)
    rounded = ~agrees & (difference <= torch.clamp(ROUNDING[0] * scale, min=ROUNDING[1])).flatten(1).all(-1)
    check.forbid(~rounded & ~_is_positive_definite(inertia), "inertia", DEFINITE)
    name, of_inverse = _label("inertia"), _label("inertia_inverse")
    if (wrong := ~agrees & ~rounded).any():
        vehicle = int(wrong.nonzero()[0])
        row, column = divmod(int(difference[vehicle].argmax()), 3)
        raise UserError(
            f"{name}[{row}, {column}] is {inertia[vehicle, row, column]:.6g} kg m^2, but {of_inverse} says "
            f"{rebuilt[vehicle, row, column]:.6g}: correct the one that is wrong {check.vehicle(vehicle)}"
        )
    check.warn(rounded, f"{name} was rounded, as by writing six decimals; rebuilt from {of_inverse}")
    used = torch.where(rounded[:, None, None], rebuilt, inertia)
    low, middle, high = torch.linalg.eigvalsh(_symmetric(used)).unbind(-1)
    ratio, allowed = high / (low + middle), LARGEST_MOMENT[1]
    rule = "is of no rigid body: the largest principal moment exceeds the sum of the others"
    check.forbid(ratio > allowed, "inertia", f"{rule} by more than {100 * (allowed - 1):.2g} %")
    check.warn(ratio > LARGEST_MOMENT[0], f"{name} {rule}, which small errors of measurement explain")
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
    stuck = torch.isnan(quadrotors.hover_throttle)
    if stuck.any():
        vehicle = int(stuck.nonzero()[0])
        lost = (quadrotors.rotor_thrust_coefficients[vehicle] == 0).any() and quadrotors.action_limit[vehicle, 1] > 100
        hint = " (a coefficient of 0 may have been smaller than the six decimals that l2f writes)" if lost else ""
        raise UserError(
            f"a vehicle of mass {quadrotors.mass[vehicle]:.4g} kg (weight {quadrotors.weight[vehicle]:.4g} N, "
            f"thrust_to_weight {quadrotors.thrust_to_weight[vehicle]:.3g}) cannot hover with its "
            f"rotor_thrust_coefficients within action_limit: check these three{hint} {check.vehicle(vehicle)}"
        )


def _oddities(quadrotors: Vehicles) -> Iterator[tuple[Tensor, str]]:
    """What is usable but odd, (N,), and what to say of it."""
    shortest = 0.01 / LONGEST_STEP
    too_fast = f"rotors with time constants below {shortest:g} s are too fast for l2f's one Runge-Kutta step of 0.01 s"
    instead = "their speeds are integrated exactly instead, except where a task says exact_rotors=false"
    yield quadrotors.shortest_time_constant < shortest, f"{too_fast}: {instead}, as the presets named paper do"
    sides = quadrotors.rotor_positions[..., :2] * _ROTOR_SIDES + ON_AXIS * quadrotors.arm_length[:, None, None]
    misplaced = (sides < 0).flatten(1).any(-1)
    order = "front-right, back-right, back-left, front-left, which every policy expects"
    yield misplaced, f"rotor_positions are not in the order {order}"
    mirrored = (quadrotors.rotor_torque_directions[..., 2] * _REACTION < 0).any(-1)
    text = "rotor_torque_directions along z are not -1, 1, -1, 1, which every policy expects"
    yield mirrored & ~misplaced, text
    coefficients, highest = quadrotors.rotor_thrust_coefficients, quadrotors.action_limit.abs().amax(-1)
    rounded = (coefficients != 0) & (coefficients == (coefficients * 1e6).round() / 1e6)
    lost = 0.5e-6 * torch.stack([highest**0, highest, highest**2], -1)[:, None] * rounded
    error = (lost.sum(-1) / quadrotors.full_thrust).amax(-1)
    text = "rotor_thrust_coefficients were rounded, as by writing six decimals, and the thrust may be off by"
    yield error > THRUST_ROUNDING, f"{text} {100 * error.nan_to_num(0.0).amax():.2g} %: write more digits"
    yield doubts(quadrotors)
