"""Putting policies to the suites."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils import _pytree as pytree

import raptor
from raptor.devices import find_device
from raptor.errors import UserError
from raptor.evaluation import metrics
from raptor.evaluation.results import Evaluation
from raptor.evaluation.rollout import Policy, fly
from raptor.evaluation.statistics import CONFIDENCE, RESAMPLES, Estimate, Floats, Means, average, bootstrap_means
from raptor.evaluation.suites import (
    FIGURE_EIGHT_DURATION,
    FIGURE_EIGHT_INTERVALS,
    SUITES,
    TEST_SEEDS,
    Condition,
    conditions,
    starts_per_figure,
    starts_per_platform,
)
from raptor.quadrotor.parameters import NUM_ROTORS
from raptor.tasks.observation import STUDENT_DIM

Progress = Callable[[str, int, int], None]
"""Called with what is being done, how much is done, and how much there is."""

LANES = {"cpu": 2048, "cuda": 65536}
"""Vehicles that fly at once, by type of device; it bounds memory and gives all suites the same shapes to compile."""


def evaluate(
    policies: Mapping[str, Policy],
    suites: Sequence[str] = SUITES,
    num_quadrotors: int = 2048,
    episodes: int = 1,
    seed: int = 0,
    device: torch.device | str = "cpu",
    progress: Progress | None = None,
    compile: bool = True,
) -> Evaluation:
    """Fly policies through suites; each of them meets the same vehicles, starts, references and noise.

    Args:
        policies: by name; the first is the one that others are held against.
        suites: some of `SUITES`.
        num_quadrotors: vehicles that are sampled; see `raptor.evaluation.suites.conditions` for the named platforms.
        episodes: of each vehicle.
        seed: of vehicles, starts, references and noise.
        device: where to fly.
        progress: told how far it is, in steps of flight.
        compile: False runs eagerly.

    Raises:
        UserError: an unknown suite or device, a number out of range, no policy, or one of other dimensions.
    """
    where = find_device(device)
    _check(policies, suites)
    planned = {suite: conditions(suite, num_quadrotors, episodes, seed, where) for suite in dict.fromkeys(suites)}
    every = [condition for group in planned.values() for condition in group]
    lanes = min(LANES.get(where.type, 2048), max(len(condition.quadrotors) for condition in every))
    log = _Log(progress, total=len(policies) * sum(c.num_steps * _num_chunks(c, lanes) for c in every))
    results: dict[str, dict[str, dict[str, Estimate]]] = {name: {} for name in policies}
    for suite, group in planned.items():
        for name, policy in policies.items():
            means = {}
            for condition in group:
                log.begin(f"{name}: {suite} {condition.name}".rstrip())
                rows = _fly(policy, condition, lanes, compile, log)
                means[condition.name] = bootstrap_means(rows, _labels(condition, len(rows)), seed)
            results[name][suite] = _estimates(means, group[0].groups)
    settings = {
        "version": raptor.__version__,
        "suites": list(planned),
        "num_quadrotors": num_quadrotors,
        "episodes": episodes,
        "seed": seed,
        "test_seed": TEST_SEEDS + seed,
        "device": str(where),
        "starts_per_platform": starts_per_platform(num_quadrotors, episodes),
        "figure_eight_intervals_s": list(FIGURE_EIGHT_INTERVALS),
        "figure_eight_duration_s": FIGURE_EIGHT_DURATION,
        "figure_eight_starts_per_platform": starts_per_figure(num_quadrotors, episodes),
        "vehicles_at_once": lanes,
        "confidence": CONFIDENCE,
        "bootstrap_resamples": RESAMPLES,
    }
    return Evaluation(results, settings)


class _Log:
    """How far it is, in steps of flight, told to whoever wants to know."""

    def __init__(self, progress: Progress | None, total: int) -> None:
        self._progress, self._total = progress, total
        self._done, self._what = 0, ""

    def begin(self, what: str) -> None:
        self._what = what
        self.add(0)

    def add(self, steps: int) -> None:
        self._done += steps
        if self._progress is not None:
            self._progress(self._what, self._done, self._total)


def _check(policies: Mapping[str, Policy], suites: Sequence[str]) -> None:
    if not policies:
        raise UserError("there is no policy to evaluate: name at least one")
    if isinstance(suites, str) or not suites:
        raise UserError(f"suites must be some of {', '.join(SUITES)}, got {suites!r}")
    for name, policy in policies.items():
        dimensions = getattr(policy, "observation_dim", STUDENT_DIM), getattr(policy, "action_dim", NUM_ROTORS)
        if dimensions != (STUDENT_DIM, NUM_ROTORS):
            raise UserError(
                f"policy {name!r} maps {dimensions[0]} numbers to {dimensions[1]}, and no suite can fly it: "
                f"it must map {STUDENT_DIM} to {NUM_ROTORS}"
            )


def _num_chunks(condition: Condition, lanes: int) -> int:
    return math.ceil(len(condition.quadrotors) / lanes)


def _fly(policy: Policy, condition: Condition, lanes: int, compile: bool, log: _Log) -> Floats:
    """Metrics (n, 5) of each vehicle, its episodes averaged, flown so many at once."""
    start, generator = condition.begin()
    tables = []
    for first in range(0, len(condition.quadrotors), lanes):
        chunk = slice(first, first + lanes)
        flights = fly(
            policy,
            condition.task,
            condition.quadrotors[chunk],
            generator,
            condition.num_steps,
            start=pytree.tree_map(lambda tensor, chunk=chunk: tensor[chunk], start),
            first_counted_step=condition.first_counted_step,
            lanes=lanes if compile else None,
            compile=compile,
        )
        reference = pytree.tree_map(lambda tensor, chunk=chunk: tensor[chunk], start.reference)
        tables.append(metrics.table(flights, reference, condition.survivors_only))
        log.add(condition.num_steps)
    table = torch.cat(tables).reshape(-1, condition.episodes, len(metrics.METRICS))
    rows: Floats = table.nanmean(1).cpu().numpy()
    return rows


def _labels(condition: Condition, num_rows: int) -> NDArray[np.int64]:
    """Which group each row belongs to."""
    num_groups = max(1, len(condition.groups))
    return np.repeat(np.arange(num_groups), num_rows // num_groups)


def _estimates(means: Mapping[str, Means], groups: Sequence[str]) -> dict[str, Estimate]:
    """Flatten to CONDITION/GROUP/METRIC, after the averages over conditions and over groups."""
    overall = average([table.over_groups() for table in means.values()])
    estimates = _row("", overall, 0)
    for name, table in means.items():
        if name:
            estimates |= _row(f"{name}/", table.over_groups(), 0)
        for index, group in enumerate(groups):
            estimates |= _row(f"{name}/{group}/".lstrip("/"), table, index)
    return estimates


def _row(prefix: str, means: Means, group: int) -> dict[str, Estimate]:
    return {prefix + metric: means.estimate(group, column) for column, metric in enumerate(metrics.METRICS)}
