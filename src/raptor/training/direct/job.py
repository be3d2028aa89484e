"""The jobs: settings, a learner and a run folder put together."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path

from raptor.config import differences, to_yaml
from raptor.core.devices import find_device
from raptor.core.distributed import joined
from raptor.core.host import memory_explained
from raptor.runs.folder import RunFolder, settings_of
from raptor.runs.progress import ProgressFunction, stop_on_signal
from raptor.training.direct.largest_batch import largest_direct
from raptor.training.direct.learner import DirectLearner
from raptor.training.direct.session import JOB, RunSummary, Session, TrainDirectConfig

__all__ = ["JOB", "RunSummary", "TrainDirectConfig", "load_run_config", "train_direct"]


def train_direct(
    output: str | os.PathLike[str],
    config: TrainDirectConfig | None = None,
    seed: int | None = None,
    device: str | None = None,
    resume: bool = False,
    overwrite: bool = False,
    progress: ProgressFunction | None = None,
    largest_batch: bool = False,
) -> RunSummary:
    """Train a policy through the simulator's gradient, in a run folder.

    A run that was killed at any moment and resumed gives bit for bit what it would have given without, on the same
    machine with as many threads. Where torchrun started several processes, they share each batch, and the first one
    writes; a run may be resumed by another number of them.

    Args:
        output: the run folder.
        config: the settings; by default those of the run that is resumed, or else the default ones.
        seed: instead of that of the settings.
        device: instead of that of the settings.
        resume: go on with the run in `output`; start it where there is none.
        overwrite: delete what an earlier run wrote to `output`.
        progress: called after each update and around each validation.
        largest_batch: begin with the largest `batch_size` that fits into memory; a run that is resumed keeps its own.

    Raises:
        UserError: the folder holds a run and neither `resume` nor `overwrite` is given, the settings differ from those
            of the run to be resumed, the device is missing, the batch does not fit into memory or cannot be cut evenly
            for all processes, one of these ended, the disk is full.
    """
    folder = RunFolder(output, JOB)
    going_on = folder.check(resume, overwrite)
    stored = load_run_config(output) if going_on else None
    config = stored or TrainDirectConfig() if config is None else config
    config = dataclasses.replace(
        config,
        seed=config.seed if seed is None else seed,
        device=config.device if device is None else device,
    )
    if stored is not None:
        folder.refuse_changes(differences(stored, dataclasses.replace(config, accumulation=stored.accumulation)))
    folder.checkpoints.keep = config.keep_checkpoints
    with joined(config.device) as world:
        find_device(config.device)
        folder.writes = world.is_main_process
        seeking = largest_batch and stored is None
        if seeking:
            config = dataclasses.replace(config, batch_size=largest_direct(config, config.device, world))
        with memory_explained(f"batch_size {config.batch_size}"):
            learner = DirectLearner(config, config.seed, config.device, config.compile, world)
            try:
                with world.main_process_first():
                    folder.open(to_yaml(config), resume, overwrite)
                if seeking:
                    folder.log(f"the largest batch that fits: batch_size={config.batch_size}")
                with stop_on_signal() as stop:
                    return Session(folder, config, learner, progress if world.is_main_process else None).run(stop)
            finally:
                folder.close()


def load_run_config(
    run: str | os.PathLike[str], file: str | Path | None = None, overrides: Sequence[str] = (), resume: bool = True
) -> TrainDirectConfig:
    """The settings of the run in a folder; see `raptor.runs.folder.settings_of`."""
    return settings_of(TrainDirectConfig, RunFolder(run, JOB), file, overrides, resume)
