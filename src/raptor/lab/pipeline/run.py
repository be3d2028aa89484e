"""Running a pipeline: stage after stage, each as far as it has not been done."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from raptor.core.atomic import PathLike, explained, write_atomically
from raptor.core.devices import find_device
from raptor.core.errors import UserError
from raptor.core.yaml_files import dump_yaml
from raptor.lab.pipeline.document import Pipeline, Stage, load_pipeline
from raptor.lab.pipeline.job import StageContext, StageOutcome
from raptor.lab.pipeline.plan import Action, Planner, Step, refuse_replacing
from raptor.lab.pipeline.records import SHOWN, RecordWriter, StageRecord, relevant_settings
from raptor.runs.folder import locked

DOCUMENT = "pipeline.yaml"
HEADER = "# Written by raptor run: the pipeline that was run here last.\n"

_ANNOUNCED = {"skip": "{}", "anew": "runs anew: {}", "resume": "goes on where it was interrupted", "run": "begins"}

Progress = Callable[[Stage], contextlib.AbstractContextManager["Callable[..., None] | None"]]
"""Shows how a stage goes on while its context is open, by the function that it gives, which is called as the job calls
its own: see `train_direct`, `pre_train`, `evaluate` and so on."""


@dataclasses.dataclass(frozen=True)
class StageSummary:
    """What was done about a stage."""

    name: str
    job: str
    action: Action
    finished: bool  # False where it was asked to stop
    wall_clock_s: float  # of this session
    result: str  # in a few words
    product: Path  # the folder or the file that it made


@dataclasses.dataclass(frozen=True)
class PipelineSummary:
    """What was done."""

    output: Path
    finished: bool  # False where it was asked to stop
    stages: tuple[StageSummary, ...]


def run_pipeline(
    pipeline: Pipeline | PathLike,
    output: PathLike | None = None,
    overwrite: bool = False,
    only: str | None = None,
    until: str | None = None,
    progress: Progress | None = None,
    announce: Callable[[str], None] | None = None,
) -> PipelineSummary:
    """Run the stages of a pipeline, each in a folder of its name.

    A stage whose settings and inputs are what they were when it finished is not run again; one that was interrupted
    goes on. A training whose settings or inputs have changed is replaced only if `overwrite` says so.

    Args:
        pipeline: of `load_pipeline`, or a file or preset for it.
        output: folder of everything; by default what the pipeline says.
        overwrite: replace trainings that were made from something else.
        only: run no other stage than this one, on what the others have left.
        until: run only this stage and what it needs.
        progress: see `Progress`.
        announce: called with a line about what happens to each stage.

    Raises:
        UserError: see `load_pipeline` and `make_plan`; or a training would be replaced, a device is missing, a stage
            cannot do its work. Stages that have finished stay as they are.
    """
    if not isinstance(pipeline, Pipeline):
        pipeline = load_pipeline(Path(pipeline) if not isinstance(pipeline, str) else pipeline)
    folder = output_of(pipeline, output)
    planner = Planner(pipeline, folder)
    steps = planner.plan(only, until)
    if not overwrite:
        refuse_replacing(steps)
    for step in steps:
        if step.action != "skip":
            _find_device(step.stage)
    with explained(folder):
        folder.mkdir(parents=True, exist_ok=True)
    with locked(folder):
        _keep_document(pipeline, folder)
        show, say = progress or (lambda stage: contextlib.nullcontext()), announce or (lambda line: None)
        session, done = _Session(planner, overwrite, show, say), []
        for step in steps:
            done.append(session.take(step))
            if not done[-1].finished:
                break
    return PipelineSummary(folder, all(stage.finished for stage in done), tuple(done))


def output_of(pipeline: Pipeline, output: PathLike | None = None) -> Path:
    """The folder of a pipeline: the given one, or what the pipeline says; an error where that is none."""
    chosen = pipeline.output if output is None else output
    if chosen is None:
        raise UserError(f"{pipeline.source} says no output folder: give --output DIR")
    folder = Path(chosen).expanduser()
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file: choose another output folder")
    return folder


@dataclasses.dataclass(frozen=True)
class _Session:
    """One session of a pipeline."""

    planner: Planner
    overwrite: bool
    progress: Progress
    announce: Callable[[str], None]

    def take(self, step: Step) -> StageSummary:
        """Do what there is to do about a stage, now that all that it reads is there."""
        stage, begun = step.stage, time.perf_counter()
        if any(given.content is None for given in step.inputs):
            step = self.planner.examine(stage)
        self.announce(f"{stage.name}: {_ANNOUNCED[step.action].format(step.why)}")
        outcome = StageOutcome(True, step.before.result if step.before is not None else "")
        if step.action != "skip":
            if not self.overwrite:
                refuse_replacing([step])
            outcome = self._run(step)
            self.announce(f"{stage.name}: {outcome.sentence if outcome.finished else 'stopped'}")
        seconds, product = time.perf_counter() - begun, self.planner.product(stage)
        return StageSummary(
            stage.name, stage.job.NAME, step.action, outcome.finished, seconds, outcome.sentence, product
        )

    def _run(self, step: Step) -> StageOutcome:
        stage = step.stage
        record = StageRecord("begun", stage.job.NAME, relevant_settings(stage.job), step.inputs, step.fingerprint)
        writer = RecordWriter(step.folder, record, step.replaces)
        with self.progress(stage) as show:

            def note(*news: Any) -> None:
                writer.begin()
                if show is not None:
                    show(*news)

            try:
                outcome = stage.job.run(self._context(step, note))
                if outcome.finished:
                    writer.finish(self.planner.note(stage, step.fingerprint), outcome.sentence)
            except UserError as error:
                raise UserError(f"{stage.name}: {error}") from error
            finally:
                writer.begin()
        return outcome

    def _context(self, step: Step, note: Callable[..., None]) -> StageContext:
        stage, pipeline = step.stage, self.planner.pipeline
        sources: dict[str, tuple[str | Path, ...]] = {}
        for given in stage.inputs:
            source = self.planner.product(pipeline[given.name]) if given.is_stage else given.name
            sources[given.key] = (*sources.get(given.key, ()), source)
        names = column_names([given.name for given in stage.inputs if given.key == SHOWN], pipeline.names)
        return StageContext(
            folder=step.folder,
            sources=sources,
            policies=dict(zip(names.values(), sources.get(SHOWN, ()), strict=True)),
            overwrite=step.action == "anew",
            progress=note,
            announce=lambda line: self.announce(f"{stage.name}: {line}"),
        )


def column_names(policies: Sequence[str], stages: Sequence[str]) -> dict[str, str]:
    """Short names that distinguish policies, by what names them: that of the stage, or of the file."""
    short = {policy: policy if policy in stages else Path(policy).name or policy for policy in policies}
    taken = list(short.values())
    return {policy: name if policy in stages or taken.count(name) == 1 else policy for policy, name in short.items()}


def _find_device(stage: Stage) -> None:
    for keys in (stage.job, getattr(stage.job, "settings", None)):
        if (device := getattr(keys, "device", None)) is not None:
            try:
                find_device(device)
            except UserError as error:
                raise UserError(f"{stage.name}: {error}") from error


def _keep_document(pipeline: Pipeline, folder: Path) -> None:
    """Write down what was run, unless a file of the user stands there."""
    path = folder / DOCUMENT
    if not path.exists() or path.read_text(encoding="utf-8", errors="replace").startswith(HEADER):
        write_atomically(path, HEADER + dump_yaml(pipeline.document))
