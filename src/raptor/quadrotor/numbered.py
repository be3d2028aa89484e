"""A population as a folder of numbered files: 0000.json, 0001.json, ..."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from pathlib import Path

from raptor.core.atomic import PathLike
from raptor.core.errors import UserError
from raptor.quadrotor.parameters import Quadrotors
from raptor.quadrotor.validation import validate

PORTION = 50
"""How many files are written between two reports of progress."""

Report = Callable[[int, int], None]
"""Takes how many are done, and how many there are."""


def save_numbered(
    quadrotors: Quadrotors, folder: PathLike, overwrite: bool = False, progress: Report | None = None
) -> list[Path]:
    """Write vehicle i to `folder/{i:04d}.json`, whatever its name.

    Args:
        quadrotors: N vehicles, at least one.
        folder: created if it is not there.
        overwrite: replace the numbered files of an earlier population, also where it was larger.
        progress: called now and then.

    Returns:
        The paths, in the order of the vehicles.

    Raises:
        UserError: an impossible vehicle, or a folder that holds JSON files; before the first file is written.
    """
    target, num = Path(folder), len(quadrotors)
    if num == 0:
        raise UserError(f"there are no quadrotors to write to {target}: give at least one")
    numbered = dataclasses.replace(validate(quadrotors), names=tuple(f"{i:04d}" for i in range(num)))
    paths: list[Path] = []
    while len(paths) < num:
        begin = len(paths)
        paths += numbered[begin : begin + PORTION].save(target, overwrite or begin > 0)
        if progress is not None:
            progress(len(paths), num)
    written = set(paths)
    for path in target.glob("*.json"):
        if re.fullmatch(r"[0-9]{4,}", path.stem) and path not in written:
            path.unlink(missing_ok=True)
    return paths
