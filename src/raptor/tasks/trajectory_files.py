"""Trajectories from files and arrays: samples over time, or way-points joined by minimum-snap polynomials.

What is read is text, known by its fingerprint: a file that changes later, or is gone, is not taken for what it was.
"""

from __future__ import annotations

import csv
import dataclasses
import functools
import hashlib
import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from raptor.core.atomic import write_atomically
from raptor.core.errors import UserError
from raptor.quadrotor.state import from_components

Floats = NDArray[np.float64]
Curve = Callable[[Floats], tuple[Floats, Floats]]  # times (T,) s to values (T, D) and their derivatives

COLUMNS = ("t", "x", "y", "z", "vx", "vy", "vz", "yaw", "yaw_deg", "yaw_rate")
PIECE = 0.02  # s; longest piece of a table, over which a cubic is exact to micrometres
SPARSE = 0.25  # s; rows without velocities that are further apart, in the mean, are way-points
MOST_WAY_POINTS, LONGEST, FASTEST, FASTEST_TURN = 300, 600.0, 50.0, 10.0  # -, s, m/s, rad/s
COPY = "trajectory.csv"  # in the folder of a run
MARK = "#"  # between the name of a file and the fingerprint of its content

_texts: dict[str, str] = {}  # what was read, by fingerprint


@dataclasses.dataclass(frozen=True, eq=False)
class Table:
    """A trajectory in cubic pieces of equal duration; after its end it stands still, or begins again if closed."""

    coefficients: Tensor  # (4 D, P); of 1, u, u^2, u^3 with u from 0 to 1 in each piece; D is 3, or 4 with yaw
    duration: float  # s
    closed: bool

    @property
    def has_yaw(self) -> bool:
        """Whether it has a yaw."""
        return len(self.coefficients) == 16

    def __call__(self, t: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """Position (..., 3) m at times (...) s; with it yaw (...) rad, if there is one."""
        t = t.remainder(self.duration) if self.closed else t.clamp(0, self.duration)
        place = t * (self.coefficients.shape[1] / self.duration)
        piece = place.detach().floor().clamp(0, self.coefficients.shape[1] - 1)
        u, found = place - piece, self.coefficients.to(t)[:, piece.long()].unflatten(0, (4, -1))
        parts = [c0 + u * (c1 + u * (c2 + u * c3)) for c0, c1, c2, c3 in zip(*found, strict=True)]
        position = from_components(parts[:3])
        return (position, parts[3]) if self.has_yaw else position


def settled(source: str) -> str:
    """The name of a file with the fingerprint of its content, which is read and kept; `UserError` if it has changed."""
    name, mark, fingerprint = source.partition(MARK)
    if mark and fingerprint in _texts:
        return source
    try:
        found = remember(Path(name).expanduser().read_text(encoding="utf-8-sig"))
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
    """Write the file that the task of some settings follows, if any, into the folder of a run."""
    references = getattr(getattr(settings, "task", None), "references", None)
    if references is not None and (text := text_of(references.trajectory.source)) is not None:
        write_atomically(folder / COPY, text)


def recall_copy(folder: Path) -> None:
    """Know the file whose copy is in the folder of a run, if there is one."""
    if (folder / COPY).is_file():
        remember((folder / COPY).read_text(encoding="utf-8"))


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
    read_table(f"array{MARK}{fingerprint}")
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
    else:
        times = columns["t"] - columns["t"][0]
        _check_motion(times, value, columns, lines, name)
        if times[-1] / (len(times) - 1) >= SPARSE and "vx" not in columns:
            times, curve = minimum_snap(value, times, speed, name)
        else:
            slope = np.gradient(value, times, axis=0, edge_order=2 if len(times) > 2 else 1)
            for place, key in enumerate(("vx", "vy", "vz", "yaw_rate")):
                if key in columns and place < value.shape[1]:
                    slope[:, place] = columns[key]
            curve = functools.partial(_hermite, times, value, slope)
    return _table(curve, float(times[-1]))


def _table(curve: Curve, duration: float) -> Table:
    num = max(1, int(np.ceil(duration / PIECE - 1e-6)))
    p, v = curve(np.linspace(0, duration, num + 1))
    v = v * (duration / num)
    rise, before, after = np.diff(p, axis=0), v[:-1], v[1:]
    parts = [p[:-1], before, 3 * rise - 2 * before - after, before + after - 2 * rise]
    apart, faster = p[-1, :3] - p[0, :3], (v[-1] - v[0]) * num / duration
    turned = (p[-1, 3:] - p[0, 3:] + np.pi) % (2 * np.pi) - np.pi
    closed = max(np.abs([*apart, *turned])) < 1e-3 and np.abs(faster).max() < 0.1
    coefficients = torch.as_tensor(np.concatenate([part.T for part in parts]), dtype=torch.float32)
    return Table(coefficients.contiguous(), duration, bool(closed))


def _hermite(times: Floats, value: Floats, slope: Floats, at: Floats) -> tuple[Floats, Floats]:
    """The cubic through values (T, D) with these slopes, and its derivative."""
    piece = np.clip(np.searchsorted(times, at, side="right") - 1, 0, len(times) - 2)
    h = np.diff(times)[piece, None]
    u, rise = (at[:, None] - times[piece, None]) / h, np.diff(value, axis=0)[piece]
    before, after = slope[piece] * h, slope[piece + 1] * h
    c2, c3 = 3 * rise - 2 * before - after, before + after - 2 * rise
    return value[piece] + u * (before + u * (c2 + u * c3)), (before + u * (2 * c2 + 3 * u * c3)) / h


def minimum_snap(
    points: Floats, times: Floats | None = None, speed: float = 1.0, name: str = "way-points"
) -> tuple[Floats, Curve]:
    """Times (T,) s of way-points (T, D), and the curve through them from rest to rest with the least squared snap.

    Pieces are of order 7, and six derivatives are continuous: the optimum for given times. Without times each piece
    takes as long as it is far, such that the highest speed is `speed` m/s. Source: Mellinger and Kumar 2011.
    """
    num = len(points) - 1
    if not 1 <= num < MOST_WAY_POINTS:
        raise UserError(f"{name} must have 2 to {MOST_WAY_POINTS} way-points, or samples in time, got {num + 1} points")
    far = np.linalg.norm(np.diff(points[:, :3], axis=0), axis=1)
    if times is None and not far.min() > 0:
        raise UserError(f"{name} has the same way-point twice, number {int(far.argmin()) + 2}: give a column t")
    stamps = np.concatenate([[0.0], np.cumsum(far)]) if times is None else times
    h = np.diff(stamps)
    powers, order = np.arange(8), np.arange(7)[:, None]
    falling = np.prod([np.where(powers >= order, powers - k, 1) ** (order > k) for k in range(6)], axis=0)
    at_one = np.where(powers >= order, falling, 0).astype(float)  # (7, 8); derivatives of u^k at 1
    at_zero = np.where(powers == order, falling, 0).astype(float)
    matrix, right = np.zeros((8 * num, 8 * num)), np.zeros((8 * num, points.shape[1]))
    row = 0
    for i in range(num):
        own = slice(8 * i, 8 * i + 8)
        matrix[row, own], right[row] = at_zero[0], points[i]
        matrix[row + 1, own], right[row + 1] = at_one[0], points[i + 1]
        row += 2
        if i + 1 < num:
            scale = (h[i] / h[i + 1]) ** np.arange(1, 7)[:, None]
            matrix[row : row + 6, own], matrix[row : row + 6, 8 * i + 8 : 8 * i + 16] = at_one[1:], -scale * at_zero[1:]
            row += 6
    matrix[row : row + 3, :8], matrix[row + 3 :, -8:] = at_zero[1:4], at_one[1:4]
    pieces = np.linalg.solve(matrix, right).reshape(num, 8, -1)

    def curve(at: Floats) -> tuple[Floats, Floats]:
        piece = np.clip(np.searchsorted(stamps, at, side="right") - 1, 0, num - 1)
        u, chosen = (at - stamps[piece]) / h[piece], pieces[piece]
        rows, slopes = u[:, None] ** powers, powers * u[:, None] ** np.maximum(powers - 1, 0) / h[piece, None]
        return np.einsum("tk,tkd->td", rows, chosen), np.einsum("tk,tkd->td", slopes, chosen)

    if times is not None:
        return stamps, curve
    _, velocity = curve(np.linspace(0, stamps[-1], 200 * num))
    slower = float(np.linalg.norm(velocity[:, :3], axis=1).max()) / speed

    def paced(at: Floats) -> tuple[Floats, Floats]:
        value, slope = curve(at / slower)
        return value, slope / slower

    return stamps * slower, paced


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
        raise refuse(first, f"there is no column {unknown[0]!r}: {known}")
    together = [{"x", "y", "z"}, *([{"vx", "vy", "vz"}] if {"vx", "vy", "vz"} & {*header} else [])]
    if missing := [key for group in together for key in sorted(group - {*header})]:
        raise refuse(first, f"the column {missing[0]} is missing: {known}")
    if "t" not in header and {"vx", "yaw_rate"} & {*header}:
        raise refuse(first, "velocities and yaw rates need a column t beside them")
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


def _check_motion(times: Floats, value: Floats, columns: dict[str, Floats], lines: Sequence[int], name: str) -> None:
    """Refuse motion that no quadrotor makes: a jump, or numbers in other units."""
    h, steps = np.diff(times), np.diff(value[:, :3], axis=0)
    speed, far = np.linalg.norm(steps, axis=1) / h, np.linalg.norm(steps, axis=1)

    def refuse(wrong: Any, why: str) -> None:
        if np.any(wrong):
            i = int(np.argmax(wrong))
            facts = {"line": lines[i + 1], "far": far[i], "h": h[i], "speed": speed[i]}
            raise UserError(f"{name}, line {lines[i + 1]}: {why.format(**facts)}")

    slow = far.sum() > 1 and far.sum() / times[-1] < 0.02
    refuse([times[-1] > LONGEST or slow], f"the rows span {times[-1]:g} s, t must be in s and at most {LONGEST:g} long")
    near = np.lib.stride_tricks.sliding_window_view(np.pad(speed, 5, mode="edge"), 11)
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
    if "yaw" in columns:
        turn, change = np.abs(np.diff(value[:, 3])) / h, np.abs(np.diff(columns["yaw"]))
        too_far = change > (np.pi if np.abs(columns["yaw"]).max() > 2.1 * np.pi else 2.1 * np.pi)  # by a jump back
        refuse((turn > FASTEST_TURN) | too_far, "the yaw jumps: it must be in rad, degrees go into a column yaw_deg")
