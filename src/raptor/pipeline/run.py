"""Running a pipeline: stage after stage, each as far as it has not been done."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import yaml

from raptor.atomic import PathLike, write_atomically
from raptor.devices import find_device
from raptor.errors import UserError
from raptor.pipeline.document import load_pipeline
from raptor.pipeline.graph import Pipeline, Stage
from raptor.pipeline.marks import Marks
from raptor.pipeline.plan import Action, Planner, Step, choose, make_plan, refuse_replacing
from raptor.pipeline.stages import column_names
from raptor.pipeline.work import Outcome, Work, settings_of

DOCUMENT = "pipeline.yaml"
HEADER = "# Written by raptor run: the pipeline that was run here last.\n"

Progress = Callable[[Stage], contextlib.AbstractContextManager["Callable[..., None] | None"]]
"""Shows how a stage goes on while its context is open, by the function that it gives, which is called as the job calls
its own: see `train_direct`, `pre_train`, `evaluate` and so on."""


@dataclasses.dataclass(frozen=True)
class StageSummary:
    """What was done about a stage."""

    name: str
    job: str
    action: Action
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
    steps = make_plan(pipeline, folder, only, until)
    if not overwrite:
        refuse_replacing(steps)
    for step in steps:
        if step.action != "skip":
            _find_device(step.stage)
    with _locked(folder):
        _keep_document(pipeline, folder)
        runner = _Runner(pipeline, folder, choose(pipeline, only, until), overwrite, progress, announce)
        return runner.run()


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


class _Runner:
    """One session of a pipeline."""

    def __init__(
        self,
        pipeline: Pipeline,
        output: Path,
        chosen: frozenset[str],
        overwrite: bool,
        progress: Progress | None,
        announce: Callable[[str], None] | None,
    ) -> None:
        self.pipeline, self.chosen, self.overwrite = pipeline, chosen, overwrite
        self.planner = Planner(pipeline, output)
        self.output = output
        self.progress = progress or (lambda stage: contextlib.nullcontext())
        self.announce = announce or (lambda line: None)

    def run(self) -> PipelineSummary:
        done: list[StageSummary] = []
        finished = True
        for stage in self.pipeline.stages:
            if stage.name not in self.chosen:
                continue
            step = self.planner.examine(stage)
            self.announce(f"{stage.name}: {_in_words(step)}")
            seconds, result = 0.0, step.before.result if step.before is not None else ""
            if step.action != "skip":
                if not self.overwrite:
                    refuse_replacing([step])
                begun = time.perf_counter()
                finished, result = self._carry_out(step)
                seconds = time.perf_counter() - begun
                self.announce(f"{stage.name}: {result if finished else 'stopped'}")
            product = self.planner.product(stage)
            done.append(StageSummary(stage.name, stage.job.name, step.action, seconds, result, product))
            if not finished:
                break
        return PipelineSummary(self.output, finished, tuple(done))

    def _carry_out(self, step: Step) -> Outcome:
        stage, job = step.stage, step.stage.job
        marks = Marks(step)
        with self.progress(stage) as show, marks.kept():

            def note(*news: Any) -> None:
                marks.note()
                if show is not None:
                    show(*news)

            try:
                outcome = job.run(self._work(step, note))
            except UserError as error:
                raise UserError(f"{stage.name}: {error}") from error
            if outcome.finished:
                marks.finished(self.planner.note(stage, step.recipe), outcome.sentence)
        return outcome

    def _work(self, step: Step, note: Callable[..., None]) -> Work:
        stage = step.stage
        sources: dict[str, tuple[str | Path, ...]] = {}
        columns: dict[str | Path, str] = {}
        names = column_names([given.name for given in stage.inputs if given.key == "policies"], self.pipeline.names)
        for given in stage.inputs:
            source = self.planner.product(self.pipeline[given.name]) if given.is_stage else given.name
            sources[given.key] = (*sources.get(given.key, ()), source)
            if given.key == "policies":
                columns[source] = names[given.name]
        return Work(
            folder=step.folder,
            keys=stage.keys,
            sources=sources,
            columns=columns,
            settings={other.name: settings_of(other.keys) for other in self.pipeline.stages},
            overwrite=step.action == "anew",
            progress=note,
            announce=lambda line: self.announce(f"{stage.name}: {line}"),
        )


def _in_words(step: Step) -> str:
    if step.action == "skip":
        return step.why
    if step.action == "anew":
        return f"runs anew: {step.why}"
    return "goes on where it was interrupted" if step.action == "resume" else "begins"


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


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Keep other pipelines out of the folder."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot write {folder}: {error.strerror}") from error
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(
                f"another pipeline is at work in {folder}: wait for it, or choose another output folder"
            ) from None
        yield
    finally:
        os.close(descriptor)
