"""Nine vehicles that were measured by their builders, one JSON file each.

Source: the parameter registry of rl-tools; rotors are in crazyflie order, and what was corrected stands under `notes`.
"""

from __future__ import annotations

from pathlib import Path

import torch

from raptor.core.errors import UserError
from raptor.quadrotor.parameters import Quadrotors

PLATFORMS = ("crazyflie", "x500_real", "x500_sim", "mrs", "fs", "race", "flightmare", "soft", "soft_rigid")
"""Names of the platforms."""


def load_platform(name: str, dtype: torch.dtype = torch.float32) -> Quadrotors:
    """One of `PLATFORMS` as a population of one.

    Raises:
        UserError: there is no platform of that name.
    """
    if name not in PLATFORMS:
        raise UserError(f"there is no platform {name!r}: choose one of {', '.join(PLATFORMS)}")
    return Quadrotors.from_json(Path(__file__).parent / "platforms" / f"{name}.json", dtype)


def load_platforms(dtype: torch.dtype = torch.float32) -> Quadrotors:
    """All platforms as one population, in the order of `PLATFORMS`."""
    return Quadrotors.concatenate(load_platform(name, dtype) for name in PLATFORMS)
