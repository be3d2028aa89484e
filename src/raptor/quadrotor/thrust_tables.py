"""Thrust tables of a test stand: throttle and thrust, as pairs in a description or as a CSV file beside it."""

from __future__ import annotations

import csv
import itertools
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from raptor.core.atomic import checked_path
from raptor.core.errors import UserError
from raptor.quadrotor.files import shown
from raptor.quadrotor.known import Description
from raptor.quadrotor.units import parse

KEY = "thrust_table"
LARGEST_FILE, LOWEST_TOP = 2**20, 0.5  # bytes; throttle that the last point must reach
NOISE = 0.05  # of the largest thrust, by which a point may be below one at less throttle
_COLUMNS = {"throttle": r"throttle|esc|signal|pwm|command", "thrust": r"thrust|force|lift"}
_PULSE = 1000.0, 2000.0  # us, of an ESC's signal at no and at full throttle

Table = list[tuple[float, float]]
"""Throttle, 0 to 1, and thrust of a motor in N."""


def thrust_table(known: Description) -> Table | None:
    """The points of a description's table, None where it has none; errors name the point or the line."""
    if KEY not in known:
        return None
    given = known.content[KEY]
    if isinstance(given, str):
        folder = Path() if known.path is None else known.path.parent
        rows = _read_csv(folder / given)
    else:
        pairs = list(map(list, given.items())) if isinstance(given, Mapping) else given
        if not isinstance(pairs, list) or not all(isinstance(pair, list) and len(pair) == 2 for pair in pairs):
            raise known.wrong(
                KEY, "must be pairs of throttle and thrust, [[50 %, 480 g], ...], or the name of a CSV file"
            )
        rows = [(pair, f"{KEY}[{i}]{known.where(KEY)}") for i, pair in enumerate(pairs)]
    points = [_point(known, cells, place) for cells, place in rows]
    top = max((throttle for throttle, _ in points), default=0.0)
    if len({throttle for throttle, _ in points if throttle > 0}) < 2 or top < LOWEST_TOP:
        text = f"{KEY} needs two points above zero, one of them at {LOWEST_TOP:.0%} of throttle or more"
        raise UserError(f"{text}, got {len(points)} up to {top:.0%}{known.where(KEY)}")
    if max(thrust for _, thrust in points) <= 0:
        raise UserError(f"{KEY} holds no thrust above zero{known.where(KEY)}: give the lift of one motor")
    _check_order(points, [place for _, place in rows])
    return points


def fit_thrust(known: Description, table: Table) -> list[float]:
    """Coefficients (N) of the curve c1 u + c2 u^2 nearest to a table, which rises on the whole range.

    It passes through the origin, so that tables that begin in the middle do not bend it below.
    """
    throttle, thrust = np.array(table).T
    columns = np.stack([throttle, throttle**2], -1)
    linear, square = np.linalg.lstsq(columns, thrust, rcond=None)[0]
    if linear < 0 or linear + 2 * square < 0:  # falling at an end: the nearest curve that is level there
        column = throttle**2 if linear < 0 else throttle - throttle**2 / 2
        scale = float(column @ thrust / (column @ column))
        linear, square = (0.0, scale) if linear < 0 else (scale, -scale / 2)
    residual = float(np.sqrt(np.mean((columns @ [linear, square] - thrust) ** 2)))
    full = float(linear + square)
    if not full > 0:
        raise UserError(f"{KEY} gives no thrust at full throttle{known.where(KEY)}: check its columns and their units")
    share = residual / full
    reach = "" if throttle.max() > 0.99 else f", extrapolated from {throttle.max():.0%} of throttle"
    how = (
        f"least squares through {len(table)} points{reach}; they are off by {residual:.2g} N (rms), {share:.1%} of full"
    )
    known.estimate("thrust", (float(linear), float(square)), "N times throttle, throttle^2", how)
    known.certain("thrust", {KEY: 1}, max(0.05, min(2 * share, 0.9)))
    return [0.0, float(linear), float(square)]


def _check_order(points: Table, places: list[str]) -> None:
    """Refuse a throttle that comes twice, and thrust that falls from one throttle to the next by more than noise."""
    ordered, most = sorted(zip(points, places, strict=True)), max(thrust for _, thrust in points)
    for ((before, more), _), ((throttle, less), place) in itertools.pairwise(ordered):
        if throttle == before:
            raise UserError(f"{place} has the throttle {throttle:.4g} a second time: keep one point of each throttle")
        if less < more - NOISE * most:
            text = f"{place} has less thrust ({less:.4g} N at {throttle:.0%}) than at {before:.0%} ({more:.4g} N)"
            raise UserError(f"{text}: it must grow with throttle, correct or delete the point")


def _point(known: Description, cells: Any, place: str) -> tuple[float, float]:
    """Throttle and thrust (N); thrust goes with the square of the throttle, and so does its uncertainty."""
    throttle, thrust = parse(cells[0], "ratio"), parse(cells[1], "thrust")
    if isinstance(cells[0], str) and (pulse := re.fullmatch(r"\s*([0-9.]+)\s*[uµμ]s\s*", cells[0])):
        low, high = _PULSE
        throttle = parse((float(pulse[1]) - low) / (high - low), "ratio")
    if throttle is None or not 0 <= throttle.value <= 1:
        hint = ": write 50 %" if throttle is not None and 1 < throttle.value <= 100 else ""
        raise UserError(f"{place} must have a throttle from 0 to 1, or in %, got {shown(cells[0])}{hint}")
    if thrust is None or thrust.value < 0:
        raise UserError(f"{place} must have a thrust in N, or with its unit, not below zero, got {shown(cells[1])}")
    known.state(KEY, throttle, power=2)
    known.state(KEY, thrust)
    return throttle.value, thrust.value


def _read_csv(path: Path) -> list[tuple[list[str], str]]:
    """Throttle and thrust of each line, with the unit of its column, and what to call the line."""
    file = checked_path(path, f"the {KEY}")
    try:
        if file.stat().st_size > LARGEST_FILE:
            raise UserError(f"{file} is no {KEY}: it is larger than {LARGEST_FILE >> 20} MiB")
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no text in UTF-8"
        raise UserError(f"cannot read the {KEY} {file}: {reason}") from error
    delimiter = max(",;\t", key=text.partition("\n")[0].count)
    if delimiter == ";":
        text = re.sub(r"(?<=[0-9]),(?=[0-9])", ".", text)
    try:
        lines = [(i, row) for i, row in enumerate(csv.reader(text.splitlines(), delimiter=delimiter), 1) if any(row)]
    except csv.Error as error:
        raise UserError(f"cannot read the {KEY} {file}: {error}") from error
    if not lines:
        raise UserError(f"the {KEY} {file} is empty")
    places, units = [0, 1], ["", ""]
    header = lines[0][1]
    if not re.fullmatch(r"[-+0-9.eE%\s]*", header[0]):
        lines = lines[1:]
        found = {
            name: [i for i, cell in enumerate(header) if re.search(what, cell.lower())]
            for name, what in _COLUMNS.items()
        }
        for name, columns in found.items():
            if not columns:
                raise UserError(f"the {KEY} {file} has no column {name} in its first line: {shown(header)}")
        places = [columns[0] for columns in found.values()]
        units = [(re.findall(r"[(\[](.*?)[)\]]", header[place]) or [""])[0] for place in places]
    rows = []
    for number, row in lines:
        if len(row) <= max(places):
            raise UserError(f"{file}, line {number} has {len(row)} columns, but {max(places) + 1} are needed")
        cells = [f"{row[place].strip()} {unit}".strip() for place, unit in zip(places, units, strict=True)]
        rows.append((cells, f"{file}, line {number}"))
    return rows
