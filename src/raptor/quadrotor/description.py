"""A quadrotor described by what its owner knows, turned into full parameters.

What it leaves out is estimated, and each estimate is handed back to be shown: from the parts of the vehicle where they
are known, otherwise by medians over the nine packaged platforms, scaled as physics suggests.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from raptor.core.atomic import PathLike
from raptor.core.errors import UserError, printable
from raptor.quadrotor.frames import Positions, inertia_matrix, rotor_positions
from raptor.quadrotor.known import DESCRIPTION_KEYS as DESCRIPTION_KEYS
from raptor.quadrotor.known import ROTORS, Description
from raptor.quadrotor.known import Estimate as Estimate
from raptor.quadrotor.parameters import TEMPLATE, Quadrotors
from raptor.quadrotor.propulsion import GRAVITY, propeller_of, thrust_curve, time_constants, torque_constant
from raptor.quadrotor.validation import QuadrotorWarning


def from_description(
    source: PathLike | Mapping[str, Any], dtype: torch.dtype = torch.float32
) -> tuple[Quadrotors, tuple[Estimate, ...]]:
    """Turn a description, a YAML or JSON file or its content, into full parameters, and what was estimated for them.

    `DESCRIPTION_KEYS` and examples/my_quadrotor.yaml say what it may hold. The result is a population of one, its
    starts and its termination box scaled to its arms as RAPTOR does. Its document has the estimates as text, and under
    `uncertainty` the half-range of quantities relative to their values, by fields of `around.Spread`.
    """
    known = Description(source if isinstance(source, Mapping) else Path(source))
    own, files = ("my_quadrotor", None) if known.path is None else (known.path.stem, [known.path])
    name = known.content.get("name", own)
    if not isinstance(name, str):
        raise known.wrong("name", "must be text")
    if "name" in known and ("\n" in name or not name.strip() or name != printable(name)):
        raise known.wrong("name", "must be a line of text, neither empty nor with control characters")
    exact = Quadrotors.from_dicts([{"dynamics": _dynamics(known)}], torch.float64, names=[name], sources=files)
    known.refuse_unused()
    if known.doubts:
        text = f"unusual for a quadrotor, check the units: {', '.join(known.doubts)}{known.where()}"
        warnings.warn(text, QuadrotorWarning, stacklevel=2)
    scaled = dataclasses.replace(exact, position_threshold=20 * exact.arm_length, max_position=10 * exact.arm_length)
    (document,) = scaled.to_dicts()
    document["uncertainty"] = {field: round(half_range, 6) for field, half_range in known.uncertainty.items()}
    document["estimates"] = list(map(str, known.estimates))
    documented = dataclasses.replace(scaled, documents=(document,))
    return documented.to(dtype=dtype), tuple(known.estimates)


def _dynamics(known: Description) -> dict[str, Any]:
    """The group of this name in l2f's schema."""
    mass = known.number("mass")
    if mass is None:
        raise UserError(f"mass is missing{known.where()}: give the mass ready to fly, in kg")
    known.certain("mass", {"mass": 1}, 0.02)
    positions = rotor_positions(known, mass)
    inertia = inertia_matrix(known, mass, positions)
    propeller = propeller_of(known)
    curve = thrust_curve(known, mass, propeller)
    rising, falling = time_constants(known)
    torque = torque_constant(known, propeller)
    key, spins = "front_right_spin", ("counterclockwise", "clockwise")
    spin = known.content.get(key, spins[0])
    if key not in known.content:
        known.estimate(key, spin, "", "as in PX4's and the Crazyflie's X layout")
    elif spin not in spins:
        raise known.wrong(key, f"must be {' or '.join(spins)}")
    sign = 1.0 if spin == spins[0] else -1.0
    _check_balance(known, positions, sum(curve), mass)
    return {
        **TEMPLATE["dynamics"],  # gravity and action limit; the hover throttle is written anew from the curve
        "rotor_positions": positions,
        "rotor_thrust_directions": [[0.0, 0.0, 1.0]] * 4,
        "rotor_torque_directions": [[0.0, 0.0, sign * direction] for direction in (-1, 1, -1, 1)],
        "rotor_thrust_coefficients": [curve] * 4,
        "rotor_torque_constants": [torque] * 4,
        "rotor_time_constants_rising": [rising] * 4,
        "rotor_time_constants_falling": [falling] * 4,
        "mass": mass,
        "J": inertia.tolist(),
        "J_inv": torch.linalg.inv_ex(inertia).inverse.tolist(),
    }


def _check_balance(known: Description, positions: Positions, full: float, mass: float) -> None:
    """Refuse a centre of mass that the motors cannot hold: hovering level, without turning, takes too much of one."""
    x, y, _ = torch.tensor(positions, dtype=torch.float64).T
    ones = torch.ones(4, dtype=torch.float64)
    rows = torch.stack([ones, y / y.abs().max(), x / x.abs().max(), ones * torch.tensor([-1, 1, -1, 1])])
    shares = torch.linalg.lstsq(rows, ones.new_tensor([1, 0, 0, 0])[:, None]).solution[:, 0]
    thrust = mass * GRAVITY * shares
    worst = int(thrust.argmax())
    if thrust.min() <= 0 or thrust[worst] >= full:
        key = "centre_of_mass" if "centre_of_mass" in known else "motor_positions"
        text = f"to hover level, {ROTORS[worst]} must give {thrust[worst]:.3g} N, but motors give 0 to {full:.3g} N"
        raise UserError(f"{key} is too far from the middle{known.where(key)}: {text}")
