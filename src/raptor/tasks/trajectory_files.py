"""Trajectories from files and arrays: samples over time, or way-points joined by minimum-snap polynomials.

What is read is text, known by its fingerprint: a file that changes later, or is gone, is not taken for what it was.
"""

from __future__ import annotations

import csv
import difflib
import functools
import hashlib
import io
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from raptor.core.atomic import checked_path, write_atomically
from raptor.core.errors import UserError
from raptor.tasks.splines import Floats, Table, hermite, minimum_snap, tabulated

COLUMNS = ("t", "x", "y", "z", "vx", "vy", "vz", "yaw", "yaw_deg", "yaw_rate")
SPARSE = 0.25  # s; rows without velocities that are further apart, in the mean, are way-points
SHORTEST, LONGEST = 1e-3, 600.0  # s
FASTEST, FASTEST_TURN = 50.0, 10.0  # m/s, rad/s, of rows
FASTEST_SPIN = 2.5 * FASTEST_TURN  # rad/s, of the curve through them
ABRUPT = 0.15  # m off a straight course within half a piece of a table, noise of a recorded flight included
UNHURRIED = 250.0  # s; arrays without times are checked at a speed at which they take about so long, or less
MARGIN = 1.0, 0.5  # m, and part of what the rows span, by which the curve may leave them
COPY = "trajectory.csv"  # in the folder of a run
MARK = "#"  # between the name of a file and the fingerprint of its content

_texts: dict[str, str] = {}  # what was read, by fingerprint


def settled(source: str) -> str:
    """The name of a file with the fingerprint of its content, which is read and kept; `UserError` if it has changed."""
    name, mark, fingerprint = source.partition(MARK)
    if mark and fingerprint in _texts:
        return source
    try:
        found = remember(checked_path(name, "the trajectory").read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError) as error:
        why = "is not text" if isinstance(error, UnicodeDecodeError) else error.strerror or "cannot be read"
        raise UserError(f"the trajectory {name} cannot be read ({why}): name a CSV file") from error
    if mark and found != fingerprint:
        remedy = f"a run keeps the file that it was begun with as {COPY} in its folder"
        raise UserError(f"the trajectory {name} is not the one that was meant, its content has changed: {remedy}")
    return f"{name}{MARK}{found}"


def remember(text: str) -> str:
    """Keep the text of a file; returns its fingerprint."""
    fingerprint = hashlib.sha256(text.encode()).hexdigest()[:12]
    _texts[fingerprint] = text
    return fingerprint


def text_of(source: str | None) -> str | None:
    """The text that a settled source stands for; None for anything else."""
    return _texts.get((source or "").partition(MARK)[2])


def keep_copy(settings: Any, folder: Path) -> None:
    """Write the file that a task of some settings follows, if any, into the folder of a run."""
    tasks: list[Any] = [getattr(each, "task", None) for each in (settings, getattr(settings, "fine_tune", None))]
    sources = [task.references.trajectory.source for task in tasks if hasattr(task, "references")]
    if text := next(filter(None, map(text_of, sources)), None):
        write_atomically(folder / COPY, text)


def recall_copy(folder: Path, settings: Any) -> None:
    """Know the file whose copy is in the folder of a run, if there is one; refuse a copy that its settings need.

    Raises:
        UserError: the copy is not what the run began with, and the file that it was made of cannot be had, either.
    """
    copy = folder / COPY
    if not copy.is_file():
        return
    remember(copy.read_text(encoding="utf-8", errors="replace"))
    for source in re.findall(rf'"([^"]*{MARK}[0-9a-f]{{12}})"', json.dumps(settings, ensure_ascii=False)):
        try:
            settled(source)
        except UserError as error:
            name = source.partition(MARK)[0]
            remedy = f"put back the content that it had, or {name} as it was"
            raise UserError(f"{copy} is not what the run began with, it was changed: {remedy}") from error


def trajectory_from_array(
    position: ArrayLike,
    time: ArrayLike | None = None,
    *,
    velocity: ArrayLike | None = None,
    yaw: ArrayLike | None = None,
    yaw_rate: ArrayLike | None = None,
) -> str:
    """Make a trajectory of arrays, as a file of these columns would be; returns what `Trajectory.source` takes.

    Positions (T, 3) m and velocities (T, 3) m/s are in the world frame, times (T,) in s, yaws (T,) in rad. Without
    times the positions are way-points.
    """
    named = {"t": time, "x y z": position, "vx vy vz": velocity, "yaw": yaw, "yaw_rate": yaw_rate}
    given = {names: np.asarray(values, dtype=np.float64) for names, values in named.items() if values is not None}
    wide = {names: v[:, None] if v.ndim == 1 else v for names, v in given.items()}
    rows = {names: f"{names}: {given[names].shape}" for names in given}
    if any(v.ndim != 2 or v.shape != (len(wide["x y z"]), len(n.split())) for n, v in wide.items()):
        raise UserError(f"a trajectory of T samples takes x y z of shape (T, 3), others to match, got {rows.values()}")
    lines = [",".join(map(repr, row)) for row in np.concatenate(list(wide.values()), axis=1).tolist()]
    fingerprint = remember("\n".join([",".join(" ".join(wide).split()), *lines, ""]))
    length = np.linalg.norm(np.diff(wide["x y z"], axis=0), axis=1).sum()
    read_table(f"array{MARK}{fingerprint}", 1.0 if time is not None else max(1.0, length / UNHURRIED))
    return f"array{MARK}{fingerprint}"


@functools.lru_cache(maxsize=16)
def read_table(source: str, speed: float = 1.0) -> Table:
    """The table of a settled source; way-points without times are flown at most at `speed` m/s.

    Raises:
        UserError: names the line and what is wrong with it: columns, numbers, order of times, units, a jump.
    """
    name, text = source.partition(MARK)[0], text_of(source)
    assert text is not None, f"{source} was not settled"
    columns, lines = _columns(text, name)
    value = np.stack([columns[key] for key in "xyz"], axis=1)
    if "yaw" in columns:
        value = np.concatenate([value, np.unwrap(columns["yaw"])[:, None]], axis=1)
    if "t" not in columns:
        times, curve = minimum_snap(value, None, speed, name)
        if times[-1] > LONGEST:
            text = f"{name}: way-points without t take {times[-1]:.4g} s at {speed:g} m/s, over {LONGEST:g} s"
            raise UserError(f"{text}: positions must be in m, or give task.references.trajectory.speed, or a column t")
        _check_yaw(times, value, columns, lines, name)
    else:
        times = columns["t"] - columns["t"][0]
        _check_motion(times, value, columns, lines, name)
        if times[-1] / (len(times) - 1) >= SPARSE and "vx" not in columns:
            if "yaw_rate" in columns:
                why = f"rows {SPARSE:g} s apart or more are way-points, which take no yaw_rate: leave it out"
                raise UserError(f"{name}, line {lines[0]}: {why}")
            times, curve = minimum_snap(value, times, speed, name)
        else:
            slope = np.gradient(value, times, axis=0, edge_order=2 if len(times) > 2 else 1)
            for place, key in enumerate(("vx", "vy", "vz", "yaw_rate")):
                if key in columns and place < value.shape[1]:
                    slope[:, place] = columns[key]
            curve = functools.partial(hermite, times, value, slope)
    table = tabulated(curve, float(times[-1]))
    _check_curve(table, times, value[:, :3], lines, name)
    return table


def _columns(text: str, name: str) -> tuple[dict[str, Floats], list[int]]:
    """The columns of a CSV by name, yaw in rad, and the number of each row's line."""
    rows = [(i, line) for i, line in enumerate(text.splitlines(), 1) if line.strip() and not line.startswith("#")]
    cells = [[cell.strip() for cell in row] for row in csv.reader(io.StringIO("\n".join(line for _, line in rows)))]
    if len(cells) != len(rows) or not rows:
        raise UserError(f"{name} must hold a header such as t,x,y,z and rows of numbers")
    first, header = rows[0][0], cells[0]

    def refuse(line: int, why: str) -> UserError:
        return UserError(f"{name}, line {line}: {why}")

    known = f"the columns are {', '.join(COLUMNS)} (s, m, m/s, rad; yaw_deg in degrees), separated by commas"
    if unknown := [key for key in header if key not in COLUMNS]:
        if re.fullmatch(r"[-+.0-9eE]+", unknown[0]):
            raise refuse(first, f"the first line must name the columns: {known}")
        near = difflib.get_close_matches(unknown[0], COLUMNS, 1, 0.4)
        raise refuse(first, f"there is no column {unknown[0]!r}{f', did you mean {near[0]}?' if near else ''}: {known}")
    together = [{"x", "y", "z"}, *([{"vx", "vy", "vz"}] if {"vx", "vy", "vz"} & {*header} else [])]
    if missing := [key for group in together for key in sorted(group - {*header})]:
        raise refuse(first, f"the column {missing[0]} is missing: {known}")
    if "t" not in header and {"vx", "yaw_rate"} & {*header}:
        raise refuse(first, "velocities and yaw rates need a column t beside them")
    if "yaw_rate" in header and not {"yaw", "yaw_deg"} & {*header}:
        raise refuse(first, "yaw_rate needs a column yaw beside it: add one, or leave yaw_rate out")
    if len({*header}) < len(header) or {"yaw", "yaw_deg"} <= {*header}:
        raise refuse(first, "a column is given twice: keep one of them, and one of yaw and yaw_deg")
    lines = [line for line, _ in rows[1:]]
    for line, row in zip(lines, cells[1:], strict=True):
        if len(row) != len(header):
            raise refuse(line, f"{len(header)} numbers are expected, as in the header, got {len(row)}")
    table = np.array([[_number(cell) for cell in row] for row in cells[1:]]).reshape(-1, len(header))
    for place, column in np.argwhere(~np.isfinite(table))[:1]:
        raise refuse(lines[place], f"{header[column]} must be a finite number, got {cells[1 + place][column]!r}")
    if len(table) < 2:
        raise refuse(first, f"at least two rows of numbers are needed below the header, got {len(table)}")
    columns: dict[str, Floats] = dict(zip(header, table.T, strict=True))
    if "yaw_deg" in columns:
        columns["yaw"] = np.deg2rad(columns.pop("yaw_deg"))
    if "t" in columns and not (np.diff(columns["t"]) > 0).all():
        place = int(np.argmin(np.diff(columns["t"]) > 0))
        before, after = columns["t"][place : place + 2]
        raise refuse(lines[place + 1], f"t must increase from row to row, got {after:g} after {before:g}")
    return columns, lines


def _number(cell: str) -> float:
    try:
        return float(cell)
    except ValueError:
        return np.nan


def _refuse(wrong: Any, why: str, lines: Sequence[int], name: str, **facts: Floats) -> None:
    """Refuse the first change from row to row that is wrong, by the line of its second row."""
    if np.any(wrong):
        i = int(np.argmax(wrong))
        raise UserError(f"{name}, line {lines[i + 1]}: {why.format(**{key: fact[i] for key, fact in facts.items()})}")


def _check_motion(times: Floats, value: Floats, columns: dict[str, Floats], lines: Sequence[int], name: str) -> None:
    """Refuse rows that no quadrotor follows: a jump, or numbers in other units."""
    h, steps = np.diff(times), np.diff(value[:, :3], axis=0)
    far = np.linalg.norm(steps, axis=1)
    speed = far / h
    refuse = functools.partial(_refuse, lines=lines, name=name, far=far, h=h, speed=speed)
    slow = far.sum() > 1 and far.sum() / times[-1] < 0.02
    wrong = slow or not SHORTEST <= times[-1] <= LONGEST
    refuse([wrong], f"the rows span {times[-1]:g} s, t must be in s and at most {LONGEST:g} long")
    around = np.pad(speed, 5, mode="reflect" if len(speed) > 10 else "edge")
    near = np.lib.stride_tricks.sliding_window_view(around, 11)
    refuse(
        speed > 3 * np.median(near, axis=1) + 100 * h,
        "the position jumps by {far:.3g} m within {h:.3g} s: the target must move continuously",
    )
    refuse(speed > FASTEST, "the target moves at {speed:.3g} m/s: positions must be in m, and t in s")
    if "vx" in columns:
        velocity = np.stack([columns[key] for key in ("vx", "vy", "vz")], axis=1)
        moved, size = (velocity[1:] + velocity[:-1]) / 2, np.linalg.norm(velocity, axis=1)
        apart = np.linalg.norm(steps / h[:, None] - moved, axis=1) > 0.5 * np.maximum(size[1:], size[:-1]) + 0.5
        refuse(apart & (h < SPARSE), "the velocity is not that of the change of position: both must be in m and s")
    _check_yaw(times, value, columns, lines, name)


def _check_yaw(times: Floats, value: Floats, columns: dict[str, Floats], lines: Sequence[int], name: str) -> None:
    """Refuse a yaw that jumps, and a yaw rate that is not its change; both are in degrees, as a rule."""
    if "yaw" not in columns:
        return
    h, turn, change = np.diff(times), np.diff(value[:, 3]), np.abs(np.diff(columns["yaw"]))
    too_far = change > (np.pi if np.abs(columns["yaw"]).max() > 2.1 * np.pi else 2.1 * np.pi)  # by a jump back
    why = f"the yaw jumps: it must be in rad, degrees in a column yaw_deg, and turn by {FASTEST_TURN:g} rad/s at most"
    _refuse((np.abs(turn) / h > FASTEST_TURN) | too_far, why, lines, name)
    if "yaw_rate" in columns:
        before, after = columns["yaw_rate"][:-1], columns["yaw_rate"][1:]
        slack = 0.5 * h * np.maximum(np.abs(before), np.abs(after)) + 0.05  # rad
        apart = np.abs(turn - h * (before + after) / 2) > slack
        _refuse(apart & (h < SPARSE), "the yaw_rate is not that of the change of yaw: it must be in rad/s", lines, name)


def _check_curve(table: Table, times: Floats, rows: Floats, lines: Sequence[int], name: str) -> None:
    """Refuse a finished curve that no quadrotor follows, by the line of the row that is nearest to the fault."""
    parts = table.coefficients.numpy().astype(np.float64).reshape(4, -1, table.coefficients.shape[1])
    num, u = parts.shape[-1], np.arange(4)[:, None, None] / 4
    c0, c1, c2, c3 = parts[:, None]
    position = (c0 + u * (c1 + u * (c2 + u * c3))).transpose(2, 0, 1).reshape(4 * num, -1)
    velocity = (c1 + u * (2 * c2 + 3 * u * c3)).transpose(2, 0, 1).reshape(4 * num, -1) * num / table.duration
    place, speed = position[:, :3], np.linalg.norm(velocity[:, :3], axis=1)
    low, high = rows.min(axis=0), rows.max(axis=0)
    beyond = np.maximum(low - place, place - high).max(axis=1)
    bend = np.zeros(len(place))
    bend[2:-2] = np.linalg.norm(place[4:] - 2 * place[2:-2] + place[:-4], axis=1)
    spin = np.abs(velocity[:, 3:]).max(axis=1, initial=0.0)
    remedy = "give rows that are nearer to each other, or evenly spaced in time"
    for size, most, why in (
        (beyond, MARGIN[0] + MARGIN[1] * np.linalg.norm(high - low), f"it leaves them by {{:.3g}} m: {remedy}"),
        (speed, FASTEST, f"it moves at {{:.3g}} m/s: positions must be in m, t in s, velocities in m/s; or {remedy}"),
        (bend, ABRUPT, "it jumps by {:.3g} m: the target must move continuously"),
        (spin, FASTEST_SPIN, "it turns at {:.3g} rad/s: yaw must be in rad, yaw_rate in rad/s"),
    ):
        if not (worst := size.max()) <= most:
            at = int(size.argmax()) * table.duration / len(size)
            line = lines[int(np.abs(times - at).argmin())]
            text = f"{name}, line {line}: near this row no vehicle follows the curve through the rows"
            raise UserError(f"{text}, {why.format(worst)}")
