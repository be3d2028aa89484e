"""Nine vehicles that were measured by their builders; one JSON file each beside this module.

Source: the parameter registry of rl-tools.
Rotors are outputs into crazyflie order, mistyped or stale numbers are mended, and each file says so under `notes`.
"""

from __future__ import annotations

import importlib.resources
import json

import torch

from raptor.core.errors import UserError
from raptor.quadrotor.parameters import Quadrotors

PLATFORMS = ("crazyflie", "x500_real", "x500_sim", "mrs", "fs", "race", "flightmare", "soft", "soft_rigid")
"""Names of the platforms."""


def platform(name: str, dtype: torch.dtype = torch.float32) -> Quadrotors:
    """One of the named platforms as a population of one.

    Args:
        name: one of `PLATFORMS`.
        dtype: of the tensors.

    Raises:
        UserError: there is no platform of that name.
    """
    if name not in PLATFORMS:
        raise UserError(f"there is no platform {name!r}: choose one of {', '.join(PLATFORMS)}")
    text = (importlib.resources.files("raptor.quadrotor") / "platforms" / f"{name}.json").read_text(encoding="utf-8")
    return Quadrotors.from_dicts([json.loads(text)], dtype, names=[name])


def platforms(dtype: torch.dtype = torch.float32) -> Quadrotors:
    """All platforms as one population, in the order of `PLATFORMS`."""
    return Quadrotors.concatenate(platform(name, dtype) for name in PLATFORMS)
