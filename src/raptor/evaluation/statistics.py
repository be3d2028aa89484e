"""Metrics of each vehicle, and their means with bootstrap intervals."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from raptor.environments.collectors import ActionChanges, Episodes, PositionErrors, TermMeans, TrackingErrors
from raptor.tasks.reference import Reference

METRICS = ("return", "terminated", "length", "position_rmse", "steady_offset", "action_change")
"""Names, in the order of the columns: the sum of rewards; 1 where the episode ended before its time; steps flown; the
root mean square of the distance from the target, m; the length of the mean position error, m; the mean absolute change
of the clipped action per step, over steps and rotors while the vehicle flies. The last three are of the second half of
episodes of 5 s, so that the recovery at the start hides neither an offset nor a wobble, and of every step of figure
eights and of the suite `reference`."""

TRACKING_METRICS = ("worst_error", "yaw_rmse")
"""Further columns of the suite `reference`: the largest distance from the target, m; and, of a target with a yaw, the
root mean square of the error of yaw, rad."""

RESAMPLES, CONFIDENCE = 2000, 0.95
_CHUNK = 250  # resamples that are held in memory at once

Floats = NDArray[np.float64]

OWN = "extra."
"""What the metrics of terms of one's own begin with: their means over the steps that were flown, unweighted."""


class Estimate(NamedTuple):
    """A mean and its interval; all NaN where there is nothing to average."""

    value: float
    low: float
    high: float

    def to_dict(self) -> dict[str, float | None]:
        """The three numbers by name, None in place of NaN, which JSON does not know."""
        return {name: number if math.isfinite(number) else None for name, number in self._asdict().items()}

    @classmethod
    def from_dict(cls, numbers: Mapping[str, float | None]) -> Estimate:
        """What `to_dict` gave."""
        return cls(*(math.nan if (number := numbers[name]) is None else float(number) for name in cls._fields))


Estimates = Mapping[str, Mapping[str, Mapping[str, Estimate]]]  # by policy, suite and metric


class Means(NamedTuple):
    """Means of M columns in each of S groups, and the same of R resamples."""

    point: Floats  # (S, M)
    samples: Floats  # (R, S, M)

    def over_groups(self) -> Means:
        """Mean of the groups, all of equal weight, as a single group; NaN where one of them has no mean."""
        return Means(self.point.mean(0, keepdims=True), self.samples.mean(1, keepdims=True))

    def estimate(self, group: int, column: int) -> Estimate:
        """The mean of one column in one group with its percentile interval; resamples without a mean do not count."""
        samples = self.samples[:, group, column]
        samples = samples[np.isfinite(samples)]
        value = float(self.point[group, column])
        if not (math.isfinite(value) and samples.size):
            return Estimate(value, math.nan, math.nan)
        low, high = np.quantile(samples, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
        return Estimate(value, float(low), float(high))


def metrics_of(
    episodes: Episodes,
    errors: PositionErrors,
    changes: ActionChanges,
    reference: Reference,
    survivors_only: bool = True,
    more: Sequence[TrackingErrors | TermMeans] = (),
) -> Tensor:
    """Metrics of each vehicle, (N, M), in the order of `METRICS` and in float64; `reference` as at the start.

    Position errors matter only of vehicles that flew to the end, and the steady offset only of those whose target stood
    still; NaN for the others. Without `survivors_only` they matter for all. Action changes matter of all vehicles;
    NaN for those that were lost before a step counted. After them come the columns of `more`.
    """
    offset = torch.linalg.vector_norm(errors.offset, dim=-1)
    returns = episodes.returns.nan_to_num(nan=-torch.inf, posinf=torch.inf, neginf=-torch.inf)  # not left out: worst
    columns = [returns, episodes.terminated, episodes.lengths, errors.rmse, offset, changes.mean]
    columns += [column for collected in more for column in collected.columns]
    result = torch.stack([column.double() for column in columns], dim=-1)
    if survivors_only:
        followed = [course.scale.unsqueeze(-1) for course in reference.course]
        paths = torch.cat([reference.amplitude, reference.legs, *followed], dim=-1)
        moving = (reference.langevin_sigma != 0) | (paths != 0).any(dim=-1)
        result[:, 3] = result[:, 3].masked_fill(episodes.terminated, torch.nan)
        result[:, 4] = result[:, 4].masked_fill(episodes.terminated | moving, torch.nan)
    return result


def bootstrap_means(values: ArrayLike, groups: ArrayLike, seed: int = 0, num_resamples: int = RESAMPLES) -> Means:
    """Resample the rows (n, M) within each group (n,) from 0 to S - 1, with replacement; NaN entries are left out.

    The same seed and sizes give the same resampling: tables of the same vehicles are averaged resample by resample.
    """
    table, labels = np.asarray(values, dtype=np.float64), np.asarray(groups)
    generator = np.random.default_rng(seed)
    members = [table[labels == group] for group in range(int(labels.max()) + 1)]
    point = np.stack([_means(np.ones((1, len(rows))), rows)[0] for rows in members])
    samples = []
    for rows in members:
        num, parts = len(rows), []
        for first in range(0, num_resamples, _CHUNK):
            size = min(_CHUNK, num_resamples - first)
            drawn = generator.integers(num, size=(size, num)) + num * np.arange(size)[:, None]
            counts = np.bincount(drawn.ravel(), minlength=size * num).reshape(size, num)
            parts.append(_means(counts.astype(np.float64), rows))
        samples.append(np.concatenate(parts))
    return Means(point, np.stack(samples, axis=1))


def average(tables: Sequence[Means]) -> Means:
    """Mean of several tables of the same shape, resample by resample; NaN where one of them has no mean."""
    return Means(*(np.mean(parts, axis=0) for parts in zip(*tables, strict=True)))


def estimates(means: Mapping[str, Means], groups: Sequence[str], terms: Sequence[str] = ()) -> dict[str, Estimate]:
    """Flatten to CONDITION/GROUP/METRIC, after the averages over conditions and over groups.

    The last columns are the means of `terms` of one's own, as `extra.NAME`.
    """
    num = next(iter(means.values())).point.shape[1] - len(terms)
    metrics = [*(*METRICS, *TRACKING_METRICS)[:num], *(f"{OWN}{name}" for name in terms)]
    rows = [("", average([table.over_groups() for table in means.values()]), 0)]
    for name, table in means.items():
        rows += [(f"{name}/", table.over_groups(), 0)] if name else []
        rows += [(f"{name}/{group}/".lstrip("/"), table, index) for index, group in enumerate(groups)]
    return {
        prefix + metric: table.estimate(row, column)
        for prefix, table, row in rows
        for column, metric in enumerate(metrics)
    }


def _means(weights: Floats, rows: Floats) -> Floats:
    """(R, M) weighted means of the entries that are not NaN; NaN where there is none."""
    valid = ~np.isnan(rows)
    with np.errstate(invalid="ignore"):  # an infinite entry makes its mean infinite, and a resample without it NaN
        total = weights @ np.where(valid, rows, 0.0)
    num = weights @ valid.astype(np.float64)
    return np.divide(total, num, out=np.full_like(total, np.nan), where=num > 0)
