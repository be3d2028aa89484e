"""`raptor train-direct`: settings, learner and run folder put together."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch.utils import _pytree as pytree

from raptor.core.atomic import PathLike
from raptor.core.compilation import steps_before_compiling
from raptor.core.devices import find_device, memory_explained
from raptor.core.distributed import ALONE, Parts, World, process_group
from raptor.core.errors import UserError
from raptor.core.pool import Pool, num_processes
from raptor.core.threads import few_threads
from raptor.formats.policy_files import load_policy
from raptor.nn.policy import RaptorPolicy
from raptor.quadrotor.around import Around, Spread
from raptor.quadrotor.parameters import PLATFORMS, Quadrotors
from raptor.quadrotor.reader import load_quadrotors
from raptor.runs.callbacks import Callback, Callbacks
from raptor.runs.checkpoints import RunWarning
from raptor.runs.folder import Layout, RunFolder, settings_of
from raptor.runs.job import PolicyFiles, RunSummary, held, run_to_end, settle
from raptor.runs.progress import ProgressFunction
from raptor.runs.trainer import Phase, Trainer
from raptor.training.direct.config import TrainDirectConfig
from raptor.training.direct.learner import GradientLearner, shrink_output_layer
from raptor.training.memory import largest_batch
from raptor.training.purposes import warn_of_idle
from raptor.training.validation import TRAINING_SEEDS, Validation

QUADROTORS, UNFINISHED = "quadrotors", "quadrotors.new"  # the run's copy of vehicles that it trains around
LAYOUT = Layout("train-direct", own=(QUADROTORS, UNFINISHED))
VEHICLE = "vehicle"  # preset for training around given vehicles


def load_run_config(
    run: PathLike,
    file: str | Path | None = None,
    overrides: Sequence[str] = (),
    resume: bool = True,
    quadrotors: Sequence[str] = (),
) -> TrainDirectConfig:
    """The settings of the run in a folder, see `settings_of`.

    Where `quadrotors` to train around are given, a run that begins without a `file` has those of the preset `vehicle`.
    """
    if quadrotors:
        overrides = [f"quadrotors={json.dumps([*quadrotors])}", *overrides]
        if file is None and not (resume and RunFolder(run, LAYOUT).check(True, False)):
            file = VEHICLE
    return settings_of(TrainDirectConfig, LAYOUT, run, file, overrides, resume)


@dataclasses.dataclass(frozen=True)
class TrainDirectSummary(RunSummary):
    """What came of `train_direct`."""

    diverged: int  # vehicles that left their bounds and were replaced
    skipped: int  # updates without a step, because their gradient was not finite


@few_threads()
def train_direct(
    output: PathLike,
    config: TrainDirectConfig | None = None,
    seed: int | None = None,
    device: str | None = None,
    resume: bool = False,
    overwrite: bool = False,
    progress: ProgressFunction | None = None,
    largest: bool = False,
    callbacks: Sequence[Callback] = (),
) -> TrainDirectSummary:
    """Train a policy through the simulator's gradient, in the run folder `output`.

    A run that was killed at any moment and resumed gives bit for bit what it would have given without, on the same
    machine with as many threads. Where torchrun started several processes, they share each batch, and the first one
    writes; a run may be resumed by another number of them.

    Where no `config` is given, the settings are those of the run that is resumed, or else the default ones; `seed` and
    `device` take the place of theirs. `resume` goes on with the run that is there, if any, and `overwrite` deletes what
    it wrote. `progress` is called after each update and around each validation. `largest` begins with the largest
    `batch_size` that fits into memory; a run that is resumed keeps its own. A run keeps a copy of the vehicles that it
    trains around, and goes on with that copy. `callbacks` are called as the run goes on, see
    `raptor.training.Callback`.

    Raises:
        UserError: the folder holds a run and neither `resume` nor `overwrite` is given, the settings differ from those
            of the run to be resumed, the batch does not fit into memory or cannot be cut evenly for all processes, one
            of these ended, the device is missing, the disk is full, a callback failed.
    """
    folder, called = RunFolder(output, LAYOUT), Callbacks(callbacks, output)
    config, stored = settle(folder, TrainDirectConfig, config, resume, overwrite, seed=seed, device=device)
    warn_of_idle(config)
    around = vehicles_around(folder, config, resumes=stored is not None)
    with process_group(config.device) as world:
        find_device(config.device)
        folder.writes = world.is_main_process
        seeking = largest and stored is None
        if seeking:
            num = largest_batch(config, first_policy(config, begins=False), config.device, world)
            config = dataclasses.replace(config, batch_size=num)
        Parts(world).refuse_uneven("batch_size", config.batch_size)
        processes = num_processes(config.processes, config.device, world.size)
        with memory_explained(f"batch_size {config.batch_size}"), Pool(processes, folder.log) as pool:
            learner = make_learner(config, first_policy(config, begins=stored is None), world, around, pool)
            how = f"{config.batch_size} quadrotors flown at once, segments of {config.segment_steps} steps"

            def describe(step: int) -> str:
                return f"through the gradient of the simulator: update {step} of {config.num_updates}, {how}"

            def own(trainer: Trainer) -> dict[str, int]:
                return {"diverged": learner.diverged_count, "skipped": learner.skipped_count}

            with held(folder, config, resume, overwrite, world) as stop:
                if around is not None and folder.writes:
                    keep_vehicles(folder.path, around.quadrotors)
                folder.log(f"minimises in each step: {config.objective.formula(config.task)}")
                if seeking:
                    folder.log(f"the largest batch that fits: batch_size={config.batch_size}")
                intervals = config.validation_interval, config.checkpoint_interval
                phase = Phase("training", config.num_updates, lambda: learner, *intervals)
                files = PolicyFiles(folder, learner.policy, config, describe)
                options: dict[str, Any] = {"world": world, "callbacks": called}
                return run_to_end(files, [phase], stop, TrainDirectSummary, own, progress, **options)


def vehicles_around(folder: RunFolder, config: TrainDirectConfig, resumes: bool) -> Around | None:
    """What to train around: the vehicles that the settings name, or the run's own copy of them; None where none are."""
    kept = folder.path / QUADROTORS
    if not config.quadrotors:
        if config.spread != Spread():
            raise UserError("spread is around given vehicles: name them with --quadrotor, or leave it out")
        return None
    if not (resumes and kept.is_dir()):
        return Around(load_quadrotors(config.quadrotors), config.spread)
    own = kept_vehicles(folder.path)
    with contextlib.suppress(UserError):  # the files are gone
        pairs = zip(pytree.tree_leaves(load_quadrotors(config.quadrotors)), pytree.tree_leaves(own), strict=False)
        if not all(torch.equal(*pair) for pair in pairs):
            text = f"{', '.join(config.quadrotors)} changed since the run began, which goes on with its copy in {kept}"
            folder.log(f"warning: {text}")
            warnings.warn(text, RunWarning, stacklevel=3)
    return Around(own, config.spread)


def sources_of(run: Path, config: TrainDirectConfig) -> tuple[str, ...]:
    """The vehicles that a run trains around as its settings name them, or its own copy where one of them is gone."""
    there = (source in PLATFORMS or Path(source).expanduser().exists() for source in config.quadrotors)
    return config.quadrotors if all(there) else (str(run / QUADROTORS),)


def kept_vehicles(run: Path) -> Quadrotors:
    """The vehicles in the folder of a run, by their names."""
    own = Quadrotors.from_json(run / QUADROTORS)
    assert own.names is not None
    assert own.documents is not None
    names = (str(document.get("name", name)) for document, name in zip(own.documents, own.names, strict=True))
    return dataclasses.replace(own, names=tuple(names))


def keep_vehicles(run: Path, quadrotors: Quadrotors) -> None:
    """Copy vehicles into the folder of a run that has none yet; they appear there all at once."""
    if not (run / QUADROTORS).exists():
        documents = quadrotors.to_dicts()
        if quadrotors.names is not None:
            documents = [{"name": name, **each} for name, each in zip(quadrotors.names, documents, strict=True)]
        named = dataclasses.replace(quadrotors, documents=tuple(documents))
        named.save(run / UNFINISHED, overwrite=True, numbered=True)
        (run / UNFINISHED).rename(run / QUADROTORS)


def make_learner(
    config: TrainDirectConfig,
    policy: RaptorPolicy,
    world: World = ALONE,
    around: Around | None = None,
    pool: Pool | None = None,
) -> GradientLearner:
    """The learner of `raptor train-direct`; its blocks are computed by a pool, or by this process alone."""
    task, num, drawn_from = config.task, config.num_validation, around or config.distribution
    device, compile, validation = config.device, config.compile, None
    if isinstance(drawn_from, Around):
        around = drawn_from = dataclasses.replace(drawn_from, quadrotors=drawn_from.quadrotors.to(device))
    if config.validation_interval:
        num_steps = -(-config.num_updates // config.validation_interval) * task.episode_steps
        pays = num_steps > steps_before_compiling(num) / 4  # it is kept for later runs
        how: dict[str, Any] = {"device": device, "compile": compile and pays, "world": world}
        validation = Validation(task, num, distribution=drawn_from, **how)
    more: dict[str, Any] = {"validation": validation, "around": around, "pool": pool or Pool()}
    return GradientLearner(config, policy, config.seed, device, compile, world, **more)


def first_policy(config: TrainDirectConfig, begins: bool = True) -> RaptorPolicy:
    """The policy to begin with: drawn by the seed, or the one that the settings name.

    Where a checkpoint replaces its weights (`begins` is False), it is only of the right size.
    """
    if config.initial_policy is None or not begins:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(TRAINING_SEEDS + config.seed)
            policy = RaptorPolicy(config.task.observation_dim, config.hidden_dim)
        policy.layout = config.task.policy_layout
        shrink_output_layer(policy)
        return policy
    found = load_policy(config.initial_policy)
    if not isinstance(found, RaptorPolicy):
        raise UserError(f"initial_policy must be a recurrent policy that can be trained, got {config.initial_policy}")
    if found.hidden_dim != config.hidden_dim:
        has = f"has hidden_dim={found.hidden_dim}, the settings ask for {config.hidden_dim}: give the same"
        raise UserError(f"initial_policy {config.initial_policy} {has}")
    if found.layout != config.task.policy_layout:
        longer = "initial_policy=null and a longer training, such as num_updates=600"
        remedy = f"give the observation that it was trained with, or {longer}"
        raise UserError(f"initial_policy {config.initial_policy} observes other components than the task: {remedy}")
    return found
