"""What every job does around its training: settle the settings, hold the folder, train to the end, sum up."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from raptor.config.settings import Settings
from raptor.core.atomic import write_atomically
from raptor.core.devices import host
from raptor.core.distributed import ALONE, World
from raptor.runs.folder import RunFolder
from raptor.runs.policies import PolicyFiles
from raptor.runs.progress import Clock, ProgressFunction
from raptor.runs.stopping import StopRequest, stop_on_signal
from raptor.runs.trainer import Phase, Trainer

T = TypeVar("T", bound=Settings)
S = TypeVar("S", bound="RunSummary")


@dataclasses.dataclass(frozen=True)
class RunSummary:
    """What came of a run."""

    output: Path
    finished: bool  # False where it was asked to stop before its end
    unit: str  # what a step is
    num_steps: int  # that were made
    wall_clock_s: float  # of all sessions, compilation included
    rate: float  # steps per second of the last session, compilation excluded
    env_steps: float  # steps of simulation
    validation: dict[str, float]  # of the last policy; empty where there was none
    best: dict[str, float]  # step and figures of the best policy; empty where there is none
    best_by: str  # what the figures of the best policy are of


def settle(
    folder: RunFolder,
    cls: type[T],
    given: T | None,
    resume: bool,
    overwrite: bool,
    free: Callable[[], Sequence[str]] = tuple,
    **changes: Any,
) -> tuple[T, T | None]:
    """The settings of a run, and those that it began with, None where it begins now; changes nothing.

    Args:
        folder: of the run.
        cls: of the settings.
        given: by default those that the run began with, or else the default ones.
        resume: go on with the run in the folder, if any.
        overwrite: replace it.
        free: groups of settings that may differ from those that the run began with.
        changes: values in place of those that are given; None leaves them.

    Raises:
        UserError: see `RunFolder.check` and `RunFolder.refuse_changes`.
    """
    stored = folder.settings(cls) if folder.check(resume, overwrite) else None
    changes = {name: value for name, value in changes.items() if value is not None}
    settings = dataclasses.replace(given or stored or cls(), **changes)
    if stored is not None:
        folder.refuse_changes(stored, settings, free())
    return settings, stored


@contextlib.contextmanager
def held(
    folder: RunFolder, settings: Settings, resume: bool, overwrite: bool, world: World = ALONE
) -> Iterator[StopRequest]:
    """Hold the folder of a run while a job works in it; see `RunFolder.open`."""
    with contextlib.closing(folder), stop_on_signal() as stop:
        with world.main_process_first():
            folder.open(settings, resume, overwrite)
        yield stop


def run_to_end(
    files: PolicyFiles,
    phases: Sequence[Phase],
    stop: StopRequest,
    progress: ProgressFunction | None,
    world: World = ALONE,
    clock: Clock | None = None,
    after_step: Callable[[int, bool], None] | None = None,
) -> Trainer:
    """Train until the end, where the final policy is written, or until a request to stop.

    Args:
        files: of the policy that is trained; their settings have a `device` and say whether to `compile`.
        phases: those without a step are left out.
        stop: the request to stop, if any.
        progress: called by the main process after each step and around what takes long.
        world: the processes that share the work.
        clock: started when the session began.
        after_step: see `Trainer`.
    """
    folder, settings = files.folder, files.settings
    trainer = Trainer(
        [phase for phase in phases if phase.num_steps],
        folder,
        files,
        stop,
        unit=folder.layout.unit,
        clock=clock,
        device=settings.device,
        compiles=settings.compile,
        world=world,
        after_step=after_step,
    )
    for standing in trainer:
        if progress is not None and world.is_main_process:
            progress(standing)
    if trainer.finished:
        files.write_final(trainer.step, trainer.validation)
    return trainer


def write_summary(files: PolicyFiles, trainer: Trainer, cls: type[S], **own: Any) -> S:
    """Write what came of a session, with where it ran, and note how it ended; `own` are the job's own fields."""
    folder = files.folder
    summary = cls(
        output=folder.path,
        finished=trainer.finished,
        unit=trainer.unit,
        num_steps=trainer.step,
        wall_clock_s=trainer.clock.elapsed_s,
        rate=trainer.clock.rate,
        env_steps=trainer.env_steps,
        validation=trainer.validation,
        best=trainer.best_figures,
        best_by="validation" if trainer.best is None else trainer.best.by,
        **own,
    )
    if folder.writes:
        document = {**dataclasses.asdict(summary), "output": str(folder.path), "host": host(files.settings.device)}
        write_atomically(folder.summary, f"{json.dumps(document, indent=2)}\n")
        status = "finished" if summary.finished else "stopped"
        folder.note_status(status)
        folder.log(f"{status} after {summary.wall_clock_s:.1f} s")
    return summary
