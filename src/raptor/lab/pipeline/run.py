"""Running a pipeline: stage after stage, each as far as it has not been done."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import yaml

from raptor.core.atomic import PathLike, write_atomically
from raptor.core.devices import find_device
from raptor.core.errors import UserError
from raptor.lab.pipeline.document import load_pipeline
from raptor.lab.pipeline.graph import Pipeline, Stage
from raptor.lab.pipeline.plan import Action, Planner, Step, refuse_replacing
from raptor.lab.pipeline.stages import column_names
from raptor.lab.pipeline.stamps import SHOWN, Mark, Stamp, material
from raptor.lab.pipeline.work import Outcome, Work
from raptor.runs.folder import explained, locked

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
        announce: told in a line what happens to each stage.

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
        return _Session(pipeline, planner, overwrite, show, say).run(steps)


def output_of(pipeline: Pipeline, output: PathLike | None = None) -> Path:
    """The folder of a pipeline: the given one, or what the pipeline says.

    Raises:
        UserError: neither says anything, or it is a file.
    """
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

    pipeline: Pipeline
    planner: Planner
    overwrite: bool
    progress: Progress
    announce: Callable[[str], None]

    def run(self, steps: Sequence[Step]) -> PipelineSummary:
        done: list[StageSummary] = []
        for step in steps:
            done.append(self._take(step))
            if not done[-1].finished:
                break
        return PipelineSummary(self.planner.output, all(stage.finished for stage in done), tuple(done))

    def _take(self, step: Step) -> StageSummary:
        """Do what there is to do about a stage, now that all that it reads is there."""
        stage, begun = step.stage, time.perf_counter()
        if any(given.content is None for given in step.inputs):
            step = self.planner.examine(stage)
        self.announce(f"{stage.name}: {_ANNOUNCED[step.action].format(step.why)}")
        outcome = Outcome(True, step.before.result if step.before is not None else "")
        if step.action != "skip":
            if not self.overwrite:
                refuse_replacing([step])
            outcome = self._carry_out(step)
            self.announce(f"{stage.name}: {outcome.sentence if outcome.finished else 'stopped'}")
        seconds, product = time.perf_counter() - begun, self.planner.product(stage)
        return StageSummary(
            stage.name, stage.job.name, step.action, outcome.finished, seconds, outcome.sentence, product
        )

    def _carry_out(self, step: Step) -> Outcome:
        stage, settings = step.stage, material(step.stage)
        mark = Mark(step.folder, Stamp("begun", stage.job.name, settings, step.inputs, step.recipe), step.replaces)
        with self.progress(stage) as show:

            def note(*news: Any) -> None:
                mark.set()
                if show is not None:
                    show(*news)

            try:
                outcome = stage.job.run(self._work(step, note))
                if outcome.finished:
                    mark.finish(self.planner.note(stage, step.recipe), outcome.sentence)
            except UserError as error:
                raise UserError(f"{stage.name}: {error}") from error
            finally:
                mark.set()
        return outcome

    def _work(self, step: Step, note: Callable[..., None]) -> Work:
        stage = step.stage
        sources: dict[str, tuple[str | Path, ...]] = {}
        for given in stage.inputs:
            source = self.planner.product(self.pipeline[given.name]) if given.is_stage else given.name
            sources[given.key] = (*sources.get(given.key, ()), source)
        names = column_names([given.name for given in stage.inputs if given.key == SHOWN], self.pipeline.names)
        return Work(
            folder=step.folder,
            keys=stage.keys,
            sources=sources,
            policies=dict(zip(names.values(), sources.get(SHOWN, ()), strict=True)),
            overwrite=step.action == "anew",
            progress=note,
            announce=lambda line: self.announce(f"{stage.name}: {line}"),
        )


def _find_device(stage: Stage) -> None:
    for told in (stage.keys, getattr(stage.keys, "settings", None)):
        if (device := getattr(told, "device", None)) is not None:
            try:
                find_device(device)
            except UserError as error:
                raise UserError(f"{stage.name}: {error}") from error


def _keep_document(pipeline: Pipeline, folder: Path) -> None:
    """Write down what was run, unless a file of someone else stands there."""
    path = folder / DOCUMENT
    if path.exists() and not path.read_text(encoding="utf-8", errors="replace").startswith(HEADER):
        return
    text = yaml.safe_dump(dict(pipeline.document), sort_keys=False, allow_unicode=True, width=120)
    write_atomically(path, HEADER + text)
