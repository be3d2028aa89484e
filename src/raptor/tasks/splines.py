"""Curves through samples and way-points, as tables of cubic pieces that are looked up in a compiled step."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from raptor.core.errors import UserError
from raptor.quadrotor.state import from_components

Floats = NDArray[np.float64]
Curve = Callable[[Floats], tuple[Floats, Floats]]  # times (T,) s to values (T, D) and their derivatives

PIECE = 0.02  # s; longest piece of a table, over which a cubic is exact to micrometres
MOST_WAY_POINTS = 300


@dataclasses.dataclass(frozen=True, eq=False)
class Table:
    """A trajectory in cubic pieces of equal duration; after its end it stands still, or begins again if closed."""

    coefficients: Tensor  # (4 D, P); of 1, u, u^2, u^3 with u from 0 to 1 in each piece; D is 3, or 4 with yaw
    duration: float  # s
    closed: bool
    copies: dict[Any, Tensor] = dataclasses.field(default_factory=dict)  # by type and device

    @property
    def has_yaw(self) -> bool:
        """Whether it has a yaw."""
        return len(self.coefficients) == 16

    def __call__(self, t: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """Position (..., 3) m at times (...) s; with it yaw (...) rad, if there is one."""
        t = t.remainder(self.duration) if self.closed else t.clamp(0, self.duration)
        place = t * (self.coefficients.shape[1] / self.duration)
        piece = place.detach().floor().clamp(0, self.coefficients.shape[1] - 1)
        kind = t.dtype, t.device
        if kind not in self.copies:  # before a step is compiled or captured, which then holds a constant
            self.copies[kind] = self.coefficients.to(t)
        u, found = place - piece, self.copies[kind][:, piece.long()].unflatten(0, (4, -1))
        parts = [c0 + u * (c1 + u * (c2 + u * c3)) for c0, c1, c2, c3 in zip(*found, strict=True)]
        position = from_components(parts[:3])
        return (position, parts[3]) if self.has_yaw else position


def tabulated(curve: Curve, duration: float) -> Table:
    """The table of a curve from 0 to `duration` s."""
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


def hermite(times: Floats, value: Floats, slope: Floats, at: Floats) -> tuple[Floats, Floats]:
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
