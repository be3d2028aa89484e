"""Quadrotors by name: nine that were measured by their builders, one JSON file each, and those of a user's files.

Source: the parameter registry of rl-tools; rotors are in crazyflie order, and what was corrected stands under `notes`.
"""

from __future__ import annotations

import os
from pathlib import Path

import torch

from raptor.core.atomic import PathLike, checked_path
from raptor.core.errors import UserError
from raptor.quadrotor.parameters import Quadrotors

PLATFORMS = ("crazyflie", "x500_real", "x500_sim", "mrs", "fs", "race", "flightmare", "soft", "soft_rigid")


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


def load_quadrotors(source: PathLike, *others: str) -> Quadrotors:
    """A platform by its name, a JSON file, or a folder of them.

    Raises:
        UserError: there is nothing of that name; says what could be given, `others` included.
    """
    if source in PLATFORMS:
        return load_platform(os.fspath(source))
    path = checked_path(source, "the quadrotor file")
    if not path.exists():
        names = ", ".join((*PLATFORMS, *others))
        raise UserError(f"there is no quadrotor {os.fspath(source)!r}: give one of {names}, or a JSON file or a folder")
    return Quadrotors.from_json(path)
