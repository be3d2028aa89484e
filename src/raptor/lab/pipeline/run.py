"""Running a pipeline: stage after stage, each as far as it has not been done."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from raptor.core.atomic import PathLike, explained, write_atomically
from raptor.core.devices import find_device
from raptor.core.errors import UserError
from raptor.core.yaml_files import dump_yaml
from raptor.evaluation.results import column_names
from raptor.lab.pipeline import plan
from raptor.lab.pipeline.document import Pipeline, Stage, load_pipeline
from raptor.lab.pipeline.jobs import StageContext, StageOutcome
from raptor.lab.pipeline.plan import Planner, Step, entries
from raptor.runs.callbacks import Callback
from raptor.runs.folder import locked

DOCUMENT = "pipeline.yaml"
HEADER = "# Written by raptor run: the pipeline that was run here last.\n"

_ANNOUNCED = {"skip": "{}", "anew": "runs anew: {}", "resume": "goes on where it was interrupted", "run": "begins"}

Announce = Callable[[str], None]
StageDisplay = Callable[[Stage], contextlib.AbstractContextManager["Callable[..., None] | None"]]
"""Shows how a stage goes on while its context is open, by the function that it gives, which is called as the job calls
its own: see `train_direct`, `pre_train`, `evaluate` and so on."""


class StageSummary(NamedTuple):
    """What was done about a stage."""

    name: str
    job: str
    action: plan.Action
    finished: bool  # False where it was asked to stop
    wall_clock_s: float  # of this session
    result: str  # in a few words
    product: Path  # the folder or the file that it made


class PipelineSummary(NamedTuple):
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
    progress: StageDisplay | None = None,
    announce: Announce | None = None,
    callbacks: Sequence[Callback] = (),
) -> PipelineSummary:
    """Run the stages of a pipeline, or of a file or preset, each in a folder of its name in `output`.

    A stage that finished with the same settings and inputs is not run again; one that was interrupted goes on.
    Trainings that were made from something else are replaced only with `overwrite`. `only` one stage runs on what the
    others have left, `until` one runs it and what it needs. `announce` is told what happens to each stage; `callbacks`
    are called by every training, with the folder of its stage.

    Raises:
        UserError: see `load_pipeline` and `make_plan`; or a training would be replaced, a device is missing, a stage
            cannot do its work.
    """
    if not isinstance(pipeline, Pipeline):
        pipeline = load_pipeline(pipeline if isinstance(pipeline, str) else Path(pipeline))
    folder = output_of(pipeline, output)
    planner, say = Planner(pipeline, folder), announce or (lambda line: None)
    steps = planner.plan(only, until)
    if not overwrite:
        plan.refuse_replacing(steps)
    for step in steps:
        if step.action != "skip":
            with _named(step.stage):
                find_device(getattr(getattr(step.stage.job, "settings", step.stage.job), "device", "cpu"))
    with explained(folder):
        folder.mkdir(parents=True, exist_ok=True)
    done: list[StageSummary] = []
    with locked(folder):
        document = folder / DOCUMENT  # unless a file of the user stands there
        if not document.exists() or document.read_text(encoding="utf-8", errors="replace").startswith(HEADER):
            write_atomically(document, HEADER + dump_yaml(pipeline.document))
        for step in steps:
            (name, job, _), begun = step.stage, time.perf_counter()
            if any(given.content is None for given in step.record.inputs):  # now all that it reads is there
                step = planner.examine(step.stage)
            say(f"{name}: {_ANNOUNCED[step.action].format(step.why)}")
            finished, result = True, step.before.result if step.before is not None else ""
            if step.action != "skip":
                if not overwrite:
                    plan.refuse_replacing([step])
                with (progress or (lambda stage: contextlib.nullcontext()))(step.stage) as show, _named(step.stage):
                    finished, result = _run(planner, step, show or (lambda *news: None), say, callbacks)
                say(f"{name}: {result if finished else 'stopped'}")
            seconds, product = time.perf_counter() - begun, planner.product(step.stage)
            done.append(StageSummary(name, job.NAME, step.action, finished, seconds, result, product))
            if not finished:
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


def _run(
    planner: Planner, step: Step, show: Callable[..., None], say: Announce, callbacks: Sequence[Callback]
) -> StageOutcome:
    """Run a stage; where it replaces a training, the record of that stays until something there has changed."""
    name, job, inputs = step.stage
    before, is_recorded = entries(step.folder) if step.replaces else None, False
    sources: dict[str, dict[str, str | Path]] = {}
    for key in job.references():
        given = {each.name: planner.source(each) for each in inputs if each.key == key}
        names = column_names(list(given), planner.pipeline.names)
        sources[key] = {names[each]: source for each, source in given.items()}

    def note(*news: Any) -> None:
        nonlocal is_recorded
        if not is_recorded and entries(step.folder) != before:
            step.record.write(step.folder)
            is_recorded = True
        if news:
            show(*news)

    note()
    how = (step.action == "anew", note, lambda line: say(f"{name}: {line}"), callbacks)
    context = StageContext(step.folder, sources, *how)
    try:
        outcome = job.run(context)
        if outcome.finished:
            made = planner.note(step)
            record = dataclasses.replace(step.record, state="finished", content=made, result=outcome.sentence)
            record.write(step.folder)
            is_recorded = True
    finally:
        note()
    return outcome


@contextlib.contextmanager
def _named(stage: Stage) -> Iterator[None]:
    try:
        yield
    except UserError as error:
        raise UserError(f"{stage.name}: {error}") from error
