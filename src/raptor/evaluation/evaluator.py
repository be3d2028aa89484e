"""Evaluating policies on suites of conditions, each a population of vehicles at the start of its episodes."""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils import _pytree as pytree

from raptor.config import to_dict
from raptor.core.compilation import steps_before_compiling
from raptor.core.devices import find_device
from raptor.core.errors import UserError
from raptor.core.threads import few_threads
from raptor.environments.collectors import (
    ActionChanges,
    Collector,
    PositionErrors,
    Recorder,
    Snapshot,
    TermMeans,
    TrackingErrors,
)
from raptor.environments.episode import Episode
from raptor.environments.rollout import VEHICLES_AT_ONCE, Policy, controller_of, rollout
from raptor.evaluation.results import Evaluation
from raptor.evaluation.statistics import CONFIDENCE, RESAMPLES, bootstrap_means, estimates, metrics_of
from raptor.evaluation.suites import (
    FIGURE_EIGHT_DURATION,
    FIGURE_EIGHT_INTERVALS,
    GIVEN_SUITES,
    REFERENCE,
    SUITES,
    TEST_SEEDS,
    VISIBLE,
    Condition,
    begin_together,
    conditions,
    names_of,
    starts_of_each,
)
from raptor.quadrotor.dynamics import step
from raptor.quadrotor.parameters import NUM_ROTORS, PLATFORMS, Quadrotors
from raptor.quadrotor.population import uncertainty_of
from raptor.quadrotor.state import State
from raptor.tasks.terms import WEIGHTED, Term, Terms, Use
from raptor.tasks.trajectories import Trajectory

CountFunction = Callable[[str, int, int], None]
"""Called with what is being done, how much is done, and how much there is."""

Simulate = Callable[..., State]
"""Called as `raptor.quadrotor.step` is."""


@few_threads()
def evaluate(
    policies: Mapping[str, Policy],
    suites: Sequence[str] | None = None,
    num_quadrotors: int = 2048,
    episodes: int = 1,
    seed: int = 0,
    device: torch.device | str = "cpu",
    progress: CountFunction | None = None,
    compile: bool | None = None,
    quadrotors: Quadrotors | None = None,
    reference: str | Trajectory | None = None,
    extra: Terms | Sequence[Use | Term] = (),
    simulate: Simulate | None = None,
) -> Evaluation:
    """Evaluate policies by name on suites; each of them meets the same vehicles, starts, references and noise.

    The first policy is the one that others are compared with. `num_quadrotors` are sampled; see `conditions` for the
    named platforms, and for `quadrotors` that are given in place of both. Suites are by default `SUITES`, or
    `GIVEN_SUITES`, and with a `reference`, the name or file of a trajectory, the suite of that name. Unless `compile`
    says so, it is compiled where that saves time. `extra` are terms of one's own that all suites are flown under:
    disturbances act, rewards count, terminations end episodes, and the mean of each cost and reward is a metric.
    `simulate` replaces our own physics, for instance by a `raptor.interop.mujoco.MujocoSimulator`; nothing is compiled
    then.

    A `UserError` is raised for an unknown suite or device, one that does not go with given vehicles, a number out of
    range, no policy, or one of other dimensions.
    """
    where, extra = find_device(device), Terms.over(extra)
    choice = (*(SUITES if quadrotors is None else GIVEN_SUITES), *([] if reference is None else [REFERENCE]))
    suites = choice if suites is None else suites
    if isinstance(suites, str) or not suites:
        raise UserError(f"suites must be some of {', '.join(choice)}, got {suites!r}")
    planned = {
        suite: [
            condition.under(extra)
            for condition in conditions(suite, num_quadrotors, episodes, seed, where, quadrotors, reference)
        ]
        for suite in dict.fromkeys(suites)
    }
    results, how = evaluate_conditions(policies, planned, seed, progress, compile, simulate)
    num_named = len(PLATFORMS if quadrotors is None else quadrotors)
    settings = {
        "version": importlib.metadata.version("raptor-python"),
        "suites": list(planned),
        "num_quadrotors": num_quadrotors,
        "episodes": episodes,
        "seed": seed,
        "test_seed": TEST_SEEDS + seed,
        "device": str(where),
        "starts_per_platform": starts_of_each(num_named, num_quadrotors, episodes),
        "figure_eight_intervals_s": list(FIGURE_EIGHT_INTERVALS),
        "figure_eight_duration_s": FIGURE_EIGHT_DURATION,
        "figure_eight_starts_per_platform": starts_of_each(num_named, num_quadrotors, episodes, 32),
        **how,
        **({"extra": to_dict(extra)} if extra else {}),
        "confidence": CONFIDENCE,
        "bootstrap_resamples": RESAMPLES,
        **({} if quadrotors is None else identity(quadrotors)),
        **({} if reference is None else {REFERENCE: getattr(reference, "source", reference)}),
        **({"trajectory": to_dict(reference)} if isinstance(reference, Trajectory) else {}),
    }
    return Evaluation(results, settings)


def evaluate_conditions(
    policies: Mapping[str, Policy],
    planned: Mapping[str, Sequence[Condition]],
    seed: int = 0,
    progress: CountFunction | None = None,
    compile: bool | None = None,
    simulate: Simulate | None = None,
) -> tuple[dict[str, dict[str, Any]], dict[str, Any]]:
    """Estimates by policy, suite and metric for suites of conditions of one's own; also how it was flown.

    The arguments are those of `evaluate`; the seed is that of the intervals.
    """
    _check_dimensions(policies)
    where = next(condition.quadrotors.device for group in planned.values() for condition in group)
    most = VEHICLES_AT_ONCE.get(where.type, VEHICLES_AT_ONCE["cpu"])
    pad_to = min(most, max(map(_num_vehicles, planned.values())))
    batches = {suite: _batches(group, pad_to) for suite, group in planned.items()}
    num_steps = len(policies) * sum(_num_steps(batch, pad_to) for group in batches.values() for batch in group)
    compile = num_steps > steps_before_compiling(pad_to) if compile is None else compile
    compile = compile and simulate is None
    results: dict[str, dict[str, Any]] = {name: {} for name in policies}
    show, done = progress or (lambda what, done, total: None), 0
    for suite, group in batches.items():
        for name, policy in policies.items():
            means: dict[str, Any] = {}
            for batch in group:
                which = batch[0].name if len(batch) == 1 else f"({len(batch)} conditions)"
                what = f"{name}: {suite} {which}".strip()
                flown = functools.partial(lambda what, before, now: show(what, before + now, num_steps), what, done)
                means |= _means(batch, _measure(policy, batch, pad_to, compile, flown, simulate), seed)
                done += _num_steps(batch, pad_to)
            first = planned[suite][0]
            results[name][suite] = estimates(means, first.groups, [use.term.name for use in first.task.own(*WEIGHTED)])
    return results, {"vehicles_at_once": pad_to, "compiled": compile}


def _check_dimensions(policies: Mapping[str, Policy]) -> None:
    """Refuse to go without policies, or with one that does not map what it observes to an action."""
    if not policies:
        raise UserError("there is no policy to evaluate: name at least one")
    for name, policy in policies.items():
        width = VISIBLE.observing(getattr(policy, "layout", {})).observation_dim
        dimensions = getattr(policy, "observation_dim", width), getattr(policy, "action_dim", NUM_ROTORS)
        if dimensions != (width, NUM_ROTORS):
            raise UserError(
                f"policy {name!r} maps {dimensions[0]} numbers to {dimensions[1]}, and no suite can fly it: "
                f"it must map {width} to {NUM_ROTORS}"
            )


def identity(quadrotors: Quadrotors) -> dict[str, Any]:
    """What the settings of an evaluation say of given vehicles; the uncertainty of each quantity is by vehicle."""
    tensors = quadrotors.to("cpu", torch.float64).tensors().values()
    rows = torch.cat([tensor.reshape(len(quadrotors), -1) for tensor in tensors], -1).numpy()
    prints = [hashlib.sha256(row.tobytes()).hexdigest()[:16] for row in rows]
    known = [{"name": name, "fingerprint": each} for name, each in zip(names_of(quadrotors), prints, strict=True)]
    return {"quadrotors": known, "uncertainty": {name: x.tolist() for name, x in uncertainty_of(quadrotors).items()}}


def _batches(group: Sequence[Condition], pad_to: int) -> list[list[Condition]]:
    """Put conditions that are flown alike into common rollouts, as long as there is room."""
    batches: list[list[Condition]] = []
    for condition in group:
        last = batches[-1] if batches else []
        room = _num_vehicles([*last, condition]) <= pad_to
        if last and room and last[0].flown_alike == condition.flown_alike:
            last.append(condition)
        else:
            batches.append([condition])
    return batches


def _num_vehicles(group: Sequence[Condition]) -> int:
    return sum(len(condition.quadrotors) for condition in group)


def _num_steps(batch: Sequence[Condition], pad_to: int) -> int:
    """Of all rollouts of a batch, one after the other."""
    return batch[0].num_steps * math.ceil(_num_vehicles(batch) / pad_to)


def _measure(
    policy: Policy,
    batch: Sequence[Condition],
    pad_to: int,
    compile: bool,
    flown: Callable[[int], None],
    simulate: Simulate | None,
) -> torch.Tensor:
    """Metrics (N, M) of all vehicles of a batch, at most `pad_to` in a rollout; `flown` is told steps so far."""
    batch = [condition.seen_by(policy) for condition in batch]
    quadrotors, start, generator = begin_together(batch)
    tables: list[torch.Tensor] = []

    def tell(now: Snapshot) -> bool:
        flown(len(tables) * batch[0].num_steps + now.step)
        return False

    for first in range(0, len(quadrotors), pad_to):
        vehicles, begun = pytree.tree_map(lambda t, first=first: t[first : first + pad_to], (quadrotors, start))
        start_of_all = vehicles, begun, generator
        flight = fly(policy, batch[0], start_of_all, pad_to, compile, stop=tell, simulate=simulate)
        episodes, errors, changes, *more = flight
        tables.append(metrics_of(episodes, errors, changes, begun.reference, batch[0].survivors_only, more))
        flown(len(tables) * batch[0].num_steps)
    return torch.cat(tables)


def _means(batch: Sequence[Condition], table: torch.Tensor, seed: int) -> dict[str, Any]:
    """Bootstrapped means of the metrics (N, M) of a batch, by condition."""
    means = {}
    for condition, part in zip(batch, table.split([len(part.quadrotors) for part in batch]), strict=True):
        rows = part.unflatten(0, (-1, condition.episodes)).nanmean(1).cpu().numpy()
        num_groups = max(1, len(condition.groups))
        means[condition.name] = bootstrap_means(rows, np.repeat(np.arange(num_groups), len(rows) // num_groups), seed)
    return means


def fly(
    policy: Policy,
    condition: Condition,
    begun: tuple[Quadrotors, Episode, torch.Generator],
    pad_to: int | None,
    compile: bool,
    watch: Recorder | None = None,
    stop: Callable[[Snapshot], bool] | None = None,
    simulate: Simulate | None = None,
) -> tuple[Any, ...]:
    """One rollout under a condition, of vehicles that have begun: episodes, position errors, action changes, others."""
    quadrotors, start, generator = begun
    first = condition.first_counted_step
    collectors: list[Collector] = [kind.begin(quadrotors.mass, first) for kind in (PositionErrors, ActionChanges)]
    if condition.tracked:
        collectors.append(TrackingErrors.begin(quadrotors.mass, start.reference.yaw is not None))
    if own := condition.task.own(*WEIGHTED):
        collectors.append(TermMeans.begin(quadrotors.mass, len(own)))
    episodes, collected = rollout(
        *controller_of(policy, len(quadrotors)),
        condition.task,
        quadrotors,
        generator,
        start=start,
        num_steps=condition.num_steps,
        collectors=collectors,
        watch=watch,
        stop=stop,
        pad_to=pad_to,
        compile=compile,
        simulate=simulate or step,
    )
    return episodes, *collected
