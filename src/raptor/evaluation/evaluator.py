"""Putting policies to the suites."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils import _pytree as pytree

import raptor
from raptor.core.devices import find_device
from raptor.core.errors import UserError
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
    begin_together,
    conditions,
    starts_per_figure,
    starts_per_platform,
)
from raptor.quadrotor.parameters import NUM_ROTORS
from raptor.tasks.observation import STUDENT_DIM

Progress = Callable[[str, int, int], None]
"""Called with what is being done, how much is done, and how much there is."""

VEHICLES_AT_ONCE = {"cpu": 2048, "cuda": 65536}
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
    largest = max(sum(len(condition.quadrotors) for condition in group) for group in planned.values())
    pad_to = min(VEHICLES_AT_ONCE.get(where.type, VEHICLES_AT_ONCE["cpu"]), largest)
    batches = {suite: _batches(group, pad_to) for suite, group in planned.items()}
    log = _Log(progress, total=len(policies) * sum(_num_steps(b, pad_to) for group in batches.values() for b in group))
    results: dict[str, dict[str, dict[str, Estimate]]] = {name: {} for name in policies}
    for suite, group in batches.items():
        for name, policy in policies.items():
            means = {}
            for batch in group:
                log.begin(" ".join([f"{name}: {suite}", *(condition.name for condition in batch)]).strip())
                for condition, rows in zip(batch, _fly(policy, batch, pad_to, compile, log), strict=True):
                    means[condition.name] = bootstrap_means(rows, _labels(condition, len(rows)), seed)
            results[name][suite] = _estimates(means, planned[suite][0].groups)
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
        "vehicles_at_once": pad_to,
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


def _batches(group: Sequence[Condition], pad_to: int) -> list[list[Condition]]:
    """Put conditions that are flown alike into common flights, as long as there is room."""
    batches: list[list[Condition]] = []
    for condition in group:
        last = batches[-1] if batches else []
        room = sum(len(other.quadrotors) for other in [*last, condition]) <= pad_to
        alike = all(
            (c.task, c.num_steps, c.first_counted_step)
            == (condition.task, condition.num_steps, condition.first_counted_step)
            for c in last
        )
        if last and room and alike:
            last.append(condition)
        else:
            batches.append([condition])
    return batches


def _num_steps(batch: Sequence[Condition], pad_to: int) -> int:
    """Steps of flight that a batch takes, chunk after chunk."""
    return batch[0].num_steps * math.ceil(sum(len(condition.quadrotors) for condition in batch) / pad_to)


def _fly(policy: Policy, batch: Sequence[Condition], pad_to: int, compile: bool, log: _Log) -> list[Floats]:
    """Metrics (n, 5) of each vehicle of each condition, episodes of a vehicle averaged; so many fly at once."""
    quadrotors, start, generator = begin_together(batch)
    tables = []
    for first in range(0, len(quadrotors), pad_to):
        chunk = slice(first, first + pad_to)
        flights = fly(
            policy,
            batch[0].task,
            quadrotors[chunk],
            generator,
            batch[0].num_steps,
            start=pytree.tree_map(lambda tensor, chunk=chunk: tensor[chunk], start),
            first_counted_step=batch[0].first_counted_step,
            pad_to=pad_to if compile else None,
            compile=compile,
        )
        reference = pytree.tree_map(lambda tensor, chunk=chunk: tensor[chunk], start.reference)
        tables.append(metrics.table(flights, reference, batch[0].survivors_only))
        log.add(batch[0].num_steps)
    parts = torch.cat(tables).split([len(condition.quadrotors) for condition in batch])
    return [
        part.unflatten(0, (-1, condition.episodes)).nanmean(1).cpu().numpy()
        for part, condition in zip(parts, batch, strict=True)
    ]


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
