"""Pre-training: one teacher for each vehicle of a population, shard by shard, on any engine."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch.utils import _pytree as pytree

from raptor.core.atomic import PathLike
from raptor.core.devices import find_device
from raptor.core.errors import UserError
from raptor.core.threads import few_threads
from raptor.quadrotor.parameters import Quadrotors
from raptor.quadrotor.population import read_population, sample_quadrotors
from raptor.quadrotor.reader import Source, load_quadrotors
from raptor.quadrotor.validation import cannot_hover
from raptor.runs.callbacks import Callback, Callbacks
from raptor.runs.engines import make_engine
from raptor.runs.folder import Layout, RunFolder, locked, settings_of
from raptor.runs.job import settle
from raptor.runs.progress import ProgressFunction
from raptor.runs.stopping import stop_on_signal
from raptor.training.purposes import warn_of_idle
from raptor.training.teachers.config import PreTrainConfig
from raptor.training.teachers.session import CURVES, QUADROTORS, SHARDS, PreTrainSummary, Session
from raptor.training.teachers.shard import Plan, make_plan, read_plan

__all__ = ["PreTrainConfig", "PreTrainSummary", "load_pre_train_config", "pre_train"]

PLAN = "plan.json"
OWN = (SHARDS, QUADROTORS, CURVES, PLAN, "teachers.safetensors", "teachers.json", "teachers.png", "curves.png")
LAYOUT = Layout("pre-train", best=None, own=OWN)

PATIENCE_S = 20.0  # with another part that begins the run


@few_threads()
def pre_train(
    output: PathLike,
    quadrotors: Source | None = None,
    config: PreTrainConfig | None = None,
    *,
    generate: int | None = None,
    num_teachers: int | None = None,
    resume: bool = False,
    overwrite: bool = False,
    part: tuple[int, int] | None = None,
    progress: ProgressFunction | None = None,
    announce: Callable[[str], None] | None = None,
    callbacks: Sequence[Callback] = (),
) -> PreTrainSummary:
    """Train one teacher for each vehicle.

    A run that was killed at any moment and resumed gives bit for bit what it would have given without, on the same kind
    of machine with as many threads. So does one that was trained in parts: call this for each of them, at the same time
    or not, then once with `resume`, which gathers what they have trained, and trains what is missing.

    The vehicles are given, see `load_quadrotors`, or so many are drawn with `generate`; `num_teachers` trains for
    the first so many alone, and `part` (i, n) the i-th of n parts, from 1; the first part to come begins the run.
    `progress` is called with each report of a shard, `announce` once with the plan, in words. `callbacks` are called in
    this process, with what shards report, wherever these are trained. For all else see `train_direct`;
    `raptor.load_teachers` reads the teachers.

    Raises:
        UserError: as in `train_direct`; or a vehicle cannot be read or cannot hover, or the cluster is not there.
    """
    if part is not None and not 1 <= part[0] <= part[1]:
        raise UserError(f"a part must be one of 1/{part[1]} to {part[1]}/{part[1]}, got {part[0]}/{part[1]}")
    if part is not None and overwrite:
        raise UserError("--shard and --overwrite exclude each other: several parts write to the same folder")
    folder, called, resume = RunFolder(output, LAYOUT), Callbacks(callbacks, output), resume or part is not None
    config, stored = settle(folder, PreTrainConfig, config, resume, overwrite, lambda: ("engine",))
    warn_of_idle(config)
    find_device(config.device)
    given = _given_vehicles(quadrotors, generate, num_teachers, config.seed)
    engine, plan_file = make_engine(config.engine, config.device), folder.path / PLAN
    at_once = engine.num_at_once

    def stored_plan() -> tuple[Quadrotors, Plan]:
        folder.refuse_changes(folder.settings(PreTrainConfig), config, ("engine",))
        plan = read_plan(plan_file, config, at_once)
        return _own_vehicles(folder.path, plan, given, num_teachers), plan

    begun = stored is not None and (plan_file.exists() or (folder.path / SHARDS).exists())
    if begun:
        vehicles, plan = stored_plan()
    elif given is None:
        raise UserError("there are no quadrotors to train for: give a folder of them, or a number to generate")
    else:
        names = given.names or tuple(f"{i:04d}" for i in range(len(given)))
        plan = make_plan(config, names, at_once, 1 if part is None else part[1])
        vehicles = dataclasses.replace(given, names=plan.names)

    with contextlib.closing(folder), contextlib.ExitStack() as held:
        if part is None or not begun:
            folder.open(config, resume, overwrite, 0.0 if part is None else PATIENCE_S)
            if not begun and (part is None or not plan_file.exists()):  # another part may have come first
                vehicles.save(folder.path / QUADROTORS, overwrite=True, numbered=True)
                plan.write(plan_file)
        if part is None:
            folder.record_where(lambda line: begun)
        else:
            if not begun:
                folder.close()
                vehicles, plan = stored_plan()
            held.enter_context(locked(folder.path, shared=True, patience_s=PATIENCE_S))
            folder.writes = False
        if announce is not None:
            announce(plan.describe())
        stop = held.enter_context(stop_on_signal())
        return Session(folder, config, vehicles, plan, engine, progress, stop, called, part).run()


load_pre_train_config = functools.partial(settings_of, PreTrainConfig, LAYOUT)
"""The settings of the run in a folder; see `settings_of`."""


def _given_vehicles(source: Source | None, generate: int | None, num: int | None, seed: int) -> Quadrotors | None:
    """The vehicles that are given, all of which can hover; None where none are."""
    if source is not None and generate is not None:
        raise UserError("quadrotors are either read or generated: give a folder, or a number to generate")
    if generate is not None:
        given = sample_quadrotors(generate, seed=seed)
    elif source is None:
        return None
    else:
        given = load_quadrotors(source)
    if num is not None:
        if not 1 <= num <= len(given):
            raise UserError(f"num_teachers must be between 1 and the {len(given)} quadrotors there are, got {num}")
        given = given[:num]
    if stuck := cannot_hover(given).nonzero().flatten().tolist():
        names = ", ".join(given.names[i] if given.names else str(i) for i in stuck[:10])
        raise UserError(f"{len(stuck)} quadrotors cannot hover within their limits: {names}; leave them out")
    return given


def _own_vehicles(run: Path, plan: Plan, given: Quadrotors | None, num: int | None) -> Quadrotors:
    """The vehicles of a run that goes on, which what is given must equal, whatever their names."""
    own = read_population(run / QUADROTORS)
    wanted = num if given is None else len(given)
    if wanted not in (None, len(own)):
        raise UserError(
            f"the run in {run} trains {len(own)} teachers, got {wanted} quadrotors: resume it without them, "
            "or choose another output folder"
        )
    pairs = [] if given is None else zip(pytree.tree_leaves(given), pytree.tree_leaves(own), strict=True)
    if not all(torch.allclose(a.to(b), b, rtol=1e-5, atol=1e-12) for a, b in pairs):
        raise UserError(f"the run in {run} trains for other quadrotors: resume it without giving any")
    return dataclasses.replace(own, names=plan.names)
