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

from raptor.atomic import PathLike, write_atomically
from raptor.config import differences, to_yaml
from raptor.devices import find_device
from raptor.errors import UserError
from raptor.nn.teachers import TeacherPopulation
from raptor.training.checkpoints import Checkpoints
from raptor.training.fine_tuning import fitted
from raptor.training.host import memory_explained
from raptor.training.post_training_config import PostTrainConfig
from raptor.training.post_training_memory import plan_post_training
from raptor.training.post_training_run import BEST, FINAL, JOB, OWN, TEACHERS, PostTrainRun, PostTrainSummary
from raptor.training.progress import Clock, Progress, ProgressFunction, stop_on_signal
from raptor.training.run import MARK, RunFolder, settings_of
from raptor.training.selection import examine, fingerprint, read_teachers, select, shortened

__all__ = ["PostTrainConfig", "PostTrainSummary", "load_post_train_config", "post_train"]

Source = TeacherPopulation | PathLike | Sequence[PathLike]


def post_train(
    output: PathLike,
    teachers: Source | None = None,
    config: PostTrainConfig | None = None,
    resume: bool = False,
    overwrite: bool = False,
    progress: ProgressFunction | None = None,
    announce: Callable[[str], None] | None = None,
) -> PostTrainSummary:
    """Teach one student what many teachers do, then train it on through the simulator's gradient.

    A run that was killed at any moment and resumed gives bit for bit what it would have given without, on the same kind
    of machine with as many threads.

    Args:
        output: the run folder, see `raptor.load_policy`.
        teachers: a folder of `raptor pre-train`, several of them, or a population; by default those of the run that is
            resumed.
        config: the settings; by default those of the run that is resumed, or else the default ones.
        resume: go on with the run in `output`; start it where there is none.
        overwrite: delete what an earlier run wrote to `output`.
        progress: called after each epoch and around what takes long.
        announce: called with the plan, and with the teachers that are left out, in words.

    Raises:
        UserError: the folder holds a run and neither `resume` nor `overwrite` is given, settings or teachers differ
            from those of the run to be resumed, teachers cannot be read, are too weak or come without vehicles, the
            training does not fit into memory, the device is missing, the disk is full.
    """
    folder, clock = run_folder(output), Clock()
    going_on = folder.check(resume, overwrite)
    stored = load_post_train_config(output) if going_on else None
    config = stored or PostTrainConfig() if config is None else config
    if stored is not None:
        folder.refuse_changes(_differences(folder, stored, config))
    folder.checkpoints.keep = config.keep_checkpoints
    find_device(config.device)
    before = _read_tested(folder) if going_on else None
    population = read_teachers(_source(folder, before, teachers))
    mark = fingerprint(population)
    if before is not None and before["fingerprint"] != mark:
        raise UserError(f"the run in {folder.path} learns from other teachers: resume it without giving any")
    say = announce or (lambda message: None)
    say(plan_post_training(config, len(population), population.widths).describe())
    if before is None:
        population = examine(population, config, _teller(progress, len(population)))
    else:
        population = dataclasses.replace(population, records=tuple(before["records"]))
    strong, weak = select(population, config)
    if weak:
        say(f"{len(weak)} teachers do not reach {config.solved_return:g} and are left out: {shortened(weak)}")
    fitted(config.tuning, len(strong))  # what does not go together shall not come out after the imitation
    document = {"source": _place(teachers), "fingerprint": mark, "records": population.records}
    noted = json.dumps(document, default=_plain)
    try:
        folder.open(to_yaml(config), resume, overwrite)
        if stored is not None and stored.fine_tune != config.fine_tune:
            _begin_otherwise(folder, dataclasses.replace(stored, fine_tune=config.fine_tune))
        if before is None:
            write_atomically(folder.path / TEACHERS, f"{noted}\n")
        batches = f"batch_size {config.batch_size} or fine_tune.batch_size {config.fine_tune.batch_size}"
        with memory_explained(batches), stop_on_signal() as stop:
            return PostTrainRun(folder, config, strong, tuple(weak), clock, progress).run(stop)
    finally:
        folder.close()


def run_folder(output: PathLike) -> RunFolder:
    """The folder of a post-training, as it lays out its files."""
    checkpoints = Checkpoints(Path(output), prefix="checkpoint_epoch_", best=BEST)
    return RunFolder(output, JOB, own=OWN, config="params/config.yaml", checkpoints=checkpoints)


def load_post_train_config(
    run: str | os.PathLike[str], file: str | Path | None = None, overrides: Sequence[str] = (), resume: bool = True
) -> PostTrainConfig:
    """The settings of the run in a folder; see `raptor.training.run.settings_of`."""
    return settings_of(PostTrainConfig, run_folder(run), file, overrides, resume)


def _differences(folder: RunFolder, stored: PostTrainConfig, config: PostTrainConfig) -> list[str]:
    """Settings that would change the result so far.

    How often something is written, and how much is kept, would not; nor would settings of a fine-tuning that is yet to
    come, so that one that turns out not to fit into memory does not cost the imitation.
    """
    free = ["checkpoint_interval", "keep_checkpoints", "video_interval", "memory_gib"]
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


def _place(teachers: Source | None) -> list[str] | None:
    """The folders that teachers are read from; None where they are no files."""
    if teachers is None or isinstance(teachers, TeacherPopulation):
        return None
    folders = [teachers] if isinstance(teachers, (str, os.PathLike)) else list(teachers)
    return [str(Path(folder).resolve()) for folder in folders]


def _source(folder: RunFolder, before: dict[str, Any] | None, teachers: Source | None) -> Source:
    if teachers is not None:
        return teachers
    if before is None:
        raise UserError("there are no teachers to learn from: give the output folder of raptor pre-train")
    if before["source"] is None:
        raise UserError(f"the run in {folder.path} began with teachers of no folder: give the same ones to resume it")
    source: list[str] = before["source"]
    return source


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
