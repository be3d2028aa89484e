"""Pre-training: one teacher for each vehicle of a population, shard by shard, on any engine."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from raptor.core.atomic import write_atomically
from raptor.core.devices import find_device
from raptor.core.errors import UserError
from raptor.quadrotor.characteristics import cannot_hover
from raptor.quadrotor.parameters import Quadrotors
from raptor.quadrotor.population import read_population
from raptor.quadrotor.sampling import sample_quadrotors
from raptor.runs.engines import Engine, make_engine
from raptor.runs.folder import Layout, RunFolder, settings_of
from raptor.runs.stopping import stop_on_signal
from raptor.training.teachers.config import PreTrainConfig
from raptor.training.teachers.memory import Plan, plan
from raptor.training.teachers.population_run import (
    JOB,
    OWN,
    PLAN,
    QUADROTORS,
    SHARDS,
    PopulationRun,
    PreTrainProgress,
    PreTrainSummary,
    ProgressFunction,
)

LAYOUT = Layout(JOB, own=OWN)

__all__ = ["PreTrainConfig", "PreTrainProgress", "PreTrainSummary", "load_pre_train_config", "pre_train"]


def pre_train(
    output: str | os.PathLike[str],
    quadrotors: Quadrotors | str | os.PathLike[str] | None = None,
    config: PreTrainConfig | None = None,
    generate: int | None = None,
    num_teachers: int | None = None,
    resume: bool = False,
    overwrite: bool = False,
    progress: ProgressFunction | None = None,
    announce: Callable[[str], None] | None = None,
) -> PreTrainSummary:
    """Train one teacher for each vehicle.

    A run that was killed at any moment and resumed gives bit for bit what it would have given without, on the same kind
    of machine with as many threads.

    Args:
        output: the run folder, see `raptor.load_teachers`.
        quadrotors: the vehicles, or a folder of them.
        config: the settings; by default those of the run that is resumed, or else the default ones.
        generate: draw so many vehicles instead.
        num_teachers: train only for the first so many.
        resume: go on with the run in `output`; start it where there is none.
        overwrite: delete what an earlier run wrote to `output`.
        progress: called whenever a shard has something to tell.
        announce: called once with the plan, in words.

    Raises:
        UserError: the folder holds a run and neither `resume` nor `overwrite` is given, settings or vehicles differ
            from those of the run to be resumed, a vehicle cannot be read or cannot hover, the memory does not suffice,
            the device or the cluster is not there, the disk is full.
    """
    folder = RunFolder(output, LAYOUT)
    going_on = folder.check(resume, overwrite)
    stored = folder.settings(PreTrainConfig) if going_on else None
    config = stored or PreTrainConfig() if config is None else config
    if stored is not None:
        folder.refuse_changes(stored, config, free=("engine",))
    find_device(config.device)
    begun = going_on and any((folder.path / name).exists() for name in (PLAN, SHARDS))
    before = _read_plan(folder) if begun else None
    vehicles = _population(folder, before, quadrotors, generate, num_teachers, config.seed)
    engine = make_engine(config.engine, config.device)
    cut = _plan(before, config, len(vehicles), engine)
    if announce is not None:
        announce(cut.describe())
    try:
        folder.open(config, resume, overwrite)
        if not begun:
            vehicles.save(folder.path / QUADROTORS, overwrite=True, numbered=True)
            document = {**cut._asdict(), "names": vehicles.names}
            write_atomically(folder.path / PLAN, f"{json.dumps(document)}\n")
        folder.record_where(lambda line: begun)
        with stop_on_signal() as stop:
            return PopulationRun(folder, config, vehicles, cut, engine, progress, stop).run()
    finally:
        folder.close()


def load_pre_train_config(
    run: str | os.PathLike[str], file: str | Path | None = None, overrides: Sequence[str] = (), resume: bool = True
) -> PreTrainConfig:
    """The settings of the run in a folder; see `raptor.runs.folder.settings_of`."""
    return settings_of(PreTrainConfig, RunFolder(run, LAYOUT), file, overrides, resume)


def _population(
    folder: RunFolder,
    before: _StoredPlan | None,
    source: Quadrotors | str | os.PathLike[str] | None,
    generate: int | None,
    num: int | None,
    seed: int,
) -> Quadrotors:
    """The vehicles to train for, each with a name; on resuming those of the run, which what is given must equal."""
    if source is not None and generate is not None:
        raise UserError("quadrotors are either read or generated: give a folder, or a number to generate")
    given = None
    if generate is not None:
        given = sample_quadrotors(generate, seed=seed)
    elif isinstance(source, Quadrotors):
        given = source
    elif source is not None:
        given = read_population(source)
    if given is not None and num is not None:
        if not 1 <= num <= len(given):
            raise UserError(f"num_teachers must be between 1 and the {len(given)} quadrotors there are, got {num}")
        given = given[:num]
    if given is not None and (stuck := cannot_hover(given).nonzero().flatten().tolist()):
        names = ", ".join(given.names[i] if given.names else str(i) for i in stuck[:10])
        raise UserError(f"{len(stuck)} quadrotors cannot hover within their limits: {names}; leave them out")
    if before is None:
        if given is None:
            raise UserError("there are no quadrotors to train for: give a folder of them, or a number to generate")
        return dataclasses.replace(given, names=given.names or tuple(f"{i:04d}" for i in range(len(given))))
    own = read_population(folder.path / QUADROTORS)
    wanted = num if given is None else len(given)
    if wanted not in (None, len(own)):
        raise UserError(
            f"the run in {folder.path} trains {len(own)} teachers, got {wanted} quadrotors: resume it without them, "
            "or choose another output folder"
        )
    if given is not None and not _equal(given, own):
        raise UserError(f"the run in {folder.path} trains for other quadrotors: resume it without giving any")
    return dataclasses.replace(own, names=before.names or own.names)


def _equal(some: Quadrotors, others: Quadrotors) -> bool:
    """Whether vehicles are the same, whatever their names."""
    pairs = [(getattr(some, field.name), getattr(others, field.name)) for field in dataclasses.fields(Quadrotors)]
    return all(torch.allclose(a.to(b), b, rtol=1e-5, atol=1e-12) for a, b in pairs if isinstance(b, torch.Tensor))


class _StoredPlan(NamedTuple):
    """What a run noted of itself when it began."""

    shard_size: int
    names: tuple[str, ...] | None  # of the vehicles


def _read_plan(folder: RunFolder) -> _StoredPlan:
    path = folder.path / PLAN
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        return _StoredPlan(int(document["shard_size"]), tuple(document.get("names") or ()) or None)
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(f"{path} cannot be read: start anew with --overwrite") from error


def _plan(before: _StoredPlan | None, config: PreTrainConfig, num: int, engine: Engine) -> Plan:
    """How the population is cut; as at the beginning where the run goes on, because rounding depends on it."""
    cut = plan(config, num, engine.num_at_once)
    if before is None:
        return cut
    if before.shard_size > cut.shard_size:
        plan(dataclasses.replace(config, shard_size=before.shard_size), num, engine.num_at_once)  # says what is missing
    return cut._replace(shard_size=before.shard_size)
