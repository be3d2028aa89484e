"""Post-training: one student from many teachers."""

from __future__ import annotations

import dataclasses
import json
import os
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from raptor.config import differences, to_yaml
from raptor.core.atomic import PathLike, write_atomically
from raptor.core.devices import find_device
from raptor.core.distributed import Parts, World, joined
from raptor.core.errors import UserError
from raptor.core.host import memory_explained
from raptor.nn.teachers import TeacherPopulation
from raptor.runs.checkpoints import Checkpoints
from raptor.runs.folder import MARK, RunFolder, settings_of
from raptor.runs.progress import Clock, Progress, ProgressFunction, stop_on_signal
from raptor.training.direct.largest_batch import largest_fine_tuning, smallest, with_batch
from raptor.training.distillation.config import PostTrainConfig
from raptor.training.distillation.fine_tuning import fitted
from raptor.training.distillation.learner import num_active
from raptor.training.distillation.post_training_memory import plan_post_training
from raptor.training.distillation.post_training_run import (
    BEST,
    FINAL,
    JOB,
    OWN,
    TEACHERS,
    PostTrainRun,
    PostTrainSummary,
)
from raptor.training.distillation.selection import examine, fingerprint, read_teachers, select, shortened
from raptor.training.distillation.teacher_sources import Source, TeacherFile, documented, several

__all__ = ["PostTrainConfig", "PostTrainSummary", "TeacherFile", "load_post_train_config", "post_train"]


def post_train(
    output: PathLike,
    teachers: Source | None = None,
    config: PostTrainConfig | None = None,
    resume: bool = False,
    overwrite: bool = False,
    progress: ProgressFunction | None = None,
    announce: Callable[[str], None] | None = None,
    largest_batch: bool = False,
) -> PostTrainSummary:
    """Teach one student what many teachers do, then train it on through the simulator's gradient.

    A run that was killed at any moment and resumed gives bit for bit what it would have given without, on the same kind
    of machine with as many threads. Where torchrun started several processes, they share flights and batches, and the
    first one writes; a run may be resumed by another number of them.

    Args:
        output: the run folder, see `raptor.load_policy`.
        teachers: a folder of `raptor pre-train`, a `TeacherFile` from elsewhere, several of these, or a population; by
            default those of the run that is resumed.
        config: the settings; by default those of the run that is resumed, or else the default ones.
        resume: go on with the run in `output`; start it where there is none.
        overwrite: delete what an earlier run wrote to `output`.
        progress: called after each epoch and around what takes long.
        announce: called with the architecture of the teachers, with the plan, and with the teachers that are left out.
        largest_batch: begin with the largest `fine_tune.batch_size` that fits into memory; a run that is resumed keeps
            its own.

    Raises:
        UserError: the folder holds a run and neither `resume` nor `overwrite` is given, settings or teachers differ
            from those of the run to be resumed, teachers cannot be read, are too weak or come without vehicles, the
            training does not fit into memory or cannot be cut evenly for all processes, one of these ended, the device
            is missing, the disk is full.
    """
    folder, clock = run_folder(output), Clock()
    going_on = folder.check(resume, overwrite)
    stored = load_post_train_config(output) if going_on else None
    config = stored or PostTrainConfig() if config is None else config
    if stored is not None:
        folder.refuse_changes(_differences(folder, stored, config))
    folder.checkpoints.keep = config.keep_checkpoints
    with joined(config.device) as world:
        folder.writes = world.is_main_process
        progress = progress if world.is_main_process else None
        find_device(config.device)
        before = _read_tested(folder) if going_on else None
        say = announce if announce is not None and world.is_main_process else (lambda message: None)
        told: list[str] = []
        population = read_teachers(_source(folder, before, teachers), told.append)
        mark = fingerprint(population)
        if before is not None and before["fingerprint"] != mark:
            raise UserError(f"the run in {folder.path} learns from other teachers: resume it without giving any")
        if largest_batch and not config.fine_tune.num_updates:
            raise UserError("--largest-batch seeks fine_tune.batch_size, and fine_tune.num_updates=0 needs none")
        seeking = largest_batch and before is None
        least = with_batch(config, smallest(config.fine_tune, world)) if seeking else config
        plan = plan_post_training(least, len(population), population.widths, world)
        for words in told if seeking else [*told, plan.describe()]:
            say(words)
        _check_parts(least, len(population), world)
        if before is None:
            population = examine(population, config, _teller(progress, len(population)), world)
        else:
            population = dataclasses.replace(population, records=tuple(before["records"]))
        strong, weak = select(population, config)
        if weak:
            say(f"{len(weak)} teachers do not reach {config.solved_return:g} and are left out: {shortened(weak)}")
        if seeking:
            config = _with_largest_batch(config, strong, world, say)
        _check_parts(config, len(strong), world)
        fitted(config.tuning, len(strong))  # what does not go together shall not come out after the imitation
        document = {"source": _place(teachers), "fingerprint": mark, "records": population.records}
        noted = json.dumps(document, default=_plain)
        try:
            with world.main_process_first():
                folder.open(to_yaml(config), resume, overwrite)
                if stored is not None and stored.fine_tune != config.fine_tune:
                    _begin_otherwise(folder, dataclasses.replace(stored, fine_tune=config.fine_tune))
                if before is None and folder.writes:
                    write_atomically(folder.path / TEACHERS, f"{noted}\n")
            batches = f"batch_size {config.batch_size} or fine_tune.batch_size {config.fine_tune.batch_size}"
            with memory_explained(batches), stop_on_signal() as stop:
                return PostTrainRun(folder, config, strong, tuple(weak), clock, progress, world).run(stop)
        finally:
            folder.close()


def run_folder(output: PathLike) -> RunFolder:
    """The folder of a post-training, as it lays out its files."""
    checkpoints = Checkpoints(Path(output), prefix="checkpoint_epoch_", best=BEST)
    return RunFolder(output, JOB, own=OWN, config="params/config.yaml", checkpoints=checkpoints)


def load_post_train_config(
    run: str | os.PathLike[str], file: str | Path | None = None, overrides: Sequence[str] = (), resume: bool = True
) -> PostTrainConfig:
    """The settings of the run in a folder; see `raptor.runs.folder.settings_of`."""
    return settings_of(PostTrainConfig, run_folder(run), file, overrides, resume)


def _with_largest_batch(
    config: PostTrainConfig, teachers: TeacherPopulation, world: World, say: Callable[[str], None]
) -> PostTrainConfig:
    """The settings with the largest batch of fine-tuning that fits; told, with the plan of the memory."""
    tuning = dataclasses.replace(config.fine_tune, batch_size=largest_fine_tuning(config, teachers, world))
    config = dataclasses.replace(config, fine_tune=tuning)
    say(f"the largest batch that fits: fine_tune.batch_size={tuning.batch_size}")
    say(plan_post_training(config, len(teachers), teachers.widths, world).describe())
    return config


def _check_parts(config: PostTrainConfig, num_teachers: int, world: World) -> None:
    """Refuse what cannot be cut into parts."""
    imitation, tuning = Parts(world, config.accumulation), Parts(world, config.fine_tune.accumulation)
    Parts(world).refuse_fewer("validation vehicles", config.num_validation)
    if config.num_epochs:
        imitation.refuse_uneven("batch_size", config.batch_size)
        Parts(world).refuse_fewer("teachers", num_active(config, num_teachers))
    if config.fine_tune.num_updates:
        tuning.refuse_uneven("fine_tune.batch_size", config.fine_tune.batch_size)
        tuning.refuse_fewer("vehicles flown at once", fitted(config.tuning, num_teachers).batch_size)


def _differences(folder: RunFolder, stored: PostTrainConfig, config: PostTrainConfig) -> list[str]:
    """Settings that would change the result so far.

    How often something is written, how much is kept, and in how many parts it is computed would not; nor would settings
    of a fine-tuning that is yet to come, so that one that turns out not to fit into memory does not cost the imitation.
    """
    free = ["checkpoint_interval", "keep_checkpoints", "video_interval", "memory_gib", "accumulation"]
    tuning = dataclasses.replace(config.fine_tune, accumulation=stored.fine_tune.accumulation)
    config = dataclasses.replace(config, fine_tune=tuning)
    if stored.fine_tune != config.fine_tune and not _fine_tuned(folder):
        free.append("fine_tune")
    return differences(stored, dataclasses.replace(config, **{name: getattr(stored, name) for name in free}))


def _fine_tuned(folder: RunFolder) -> bool:
    """Whether a run that goes on does so after an update of fine-tuning."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # those of damaged checkpoints come when the run goes on
        found = folder.checkpoints.newest()
    return found is not None and "tuner" in found[1]["training"]


def _begin_otherwise(folder: RunFolder, config: PostTrainConfig) -> None:
    """Note what fine-tuning is to be instead; a run that ended with the imitation has not ended any more."""
    if not folder.writes:
        return
    for ending in (folder.summary, folder.path / FINAL):
        ending.unlink(missing_ok=True)
    write_atomically(folder.config, f"{MARK}{JOB}\n{to_yaml(config)}")


def _plain(value: Any) -> Any:
    """What JSON does not know, in its types: tensors and arrays as lists."""
    if isinstance(value, (torch.Tensor, np.ndarray, np.generic)):
        return value.tolist()
    raise UserError(
        f"records of teachers must be text, numbers, or lists and groups of these, got {type(value).__name__}: {value}"
    )


def _place(teachers: Source | None) -> list[str | dict[str, str | None]] | None:
    """The folders and files that teachers are read from; None where they are no files."""
    if teachers is None or isinstance(teachers, TeacherPopulation):
        return None
    return [one.document() if isinstance(one, TeacherFile) else str(Path(one).resolve()) for one in several(teachers)]


def _source(folder: RunFolder, before: dict[str, Any] | None, teachers: Source | None) -> Source:
    if teachers is not None:
        return teachers
    if before is None:
        raise UserError(
            "there are no teachers to learn from: give the output folder of raptor pre-train, or teacher files"
        )
    if before["source"] is None:
        raise UserError(f"the run in {folder.path} began with teachers of no folder: give the same ones to resume it")
    return [documented(source) for source in before["source"]]


def _read_tested(folder: RunFolder) -> dict[str, Any] | None:
    """What the run noted of its teachers; None where it was stopped before."""
    path = folder.path / TEACHERS
    if not path.exists():
        return None
    try:
        document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return {name: document[name] for name in ("source", "fingerprint", "records")}
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise UserError(f"{path} cannot be read: start anew with --overwrite") from error


def _teller(progress: ProgressFunction | None, num: int) -> Callable[[int], None] | None:
    if progress is None:
        return None

    def tell(done: int) -> None:
        nan = float("nan")
        progress(Progress("testing teachers", done, num, 0.0, 0.0, 0.0, nan, {}, {}, None, unit="teacher"))

    return tell
