"""`raptor run`."""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from raptor.cli import options
from raptor.cli.options import overrides
from raptor.cli.train import INTERRUPTED

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from raptor.lab.pipeline import PipelineSummary, Stage, Step

DONE = {"skip": "unchanged", "run": "run", "resume": "gone on with", "anew": "run anew"}
PLANNED = {"skip": "nothing", "run": "run", "resume": "go on", "anew": "run anew", "wait": "wait and see"}


def run(
    pipeline: Annotated[str, typer.Argument(metavar="PIPELINE", help="YAML file, or a preset: small, full, paper.")],
    changes: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="KEY=VALUE",
            help="Over those of the file: evaluation.num_quadrotors=512 teachers.settings.apg.num_updates=100",
            show_default=False,
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="DIR", help="Folder of all stages; by default that in the file."),
    ] = None,
    seed: options.Seed = None,
    device: options.Device = None,
    only: Annotated[
        str | None,
        typer.Option("--only", metavar="STAGE", help="Only this stage, on the earlier results of the others."),
    ] = None,
    until: Annotated[
        str | None, typer.Option("--until", metavar="STAGE", help="Only this stage and what it needs.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan, with reasons; run nothing.")] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace trainings whose settings or inputs have changed.")
    ] = False,
) -> None:
    """Run a chain of jobs: sample, pre-train, post-train, train-direct, evaluate, export, report.

    Each stage has a folder of its name in DIR, which the other commands take. Finished stages that have not changed are
    skipped. Ctrl-C stops, and the same command goes on, also after a kill.

    ```
    raptor run small -o runs/small
    raptor run full -o runs/full --dry-run                          # the plan, with reasons
    raptor run full -o runs/full --until teachers
    raptor run mine.yaml student.settings.num_epochs=50 --overwrite
    raptor evaluate runs/full/student                               # a stage's folder is that of any run
    ```

    The format of a file is in docs/reference/pipeline.md.
    """
    from rich.console import Console

    from raptor.cli.progress import wide_console
    from raptor.lab.pipeline import load_pipeline, make_plan, output_of, run_pipeline

    given = overrides(changes, seed, device)
    loaded = load_pipeline(pipeline, given)
    folder = output_of(loaded, output)
    if dry_run:
        wide_console().print(_plan_table(make_plan(loaded, folder, only, until)))
        return
    console = Console(stderr=True)
    how = f"go on with: {_command(pipeline, given, folder, only, until)}"

    def announce(line: str) -> None:
        console.print(line, highlight=False, markup=False, soft_wrap=True)

    def progress(stage: Stage) -> contextlib.AbstractContextManager[Any]:
        return _stage_progress(stage, console)

    try:
        summary = run_pipeline(loaded, folder, overwrite, only, until, progress, announce)
    except KeyboardInterrupt:
        typer.echo(f"interrupted; {how}", err=True)
        raise typer.Exit(INTERRUPTED) from None
    if not summary.finished:
        typer.echo(f"stopped in {summary.stages[-1].name}; {how}", err=True)
        raise typer.Exit(INTERRUPTED)
    _show(summary)


def _stage_progress(stage: Stage, console: Console) -> contextlib.AbstractContextManager[Any]:
    """What the command of the job shows."""
    from raptor.cli import progress
    from raptor.cli.quadrotors import writing_progress

    if stage.job.NAME == "sample":
        return writing_progress(console)
    if stage.job.NAME == "pre-train":
        return progress.pre_training_progress(console, stage.job.settings.compile)  # type: ignore[attr-defined]
    if stage.job.NAME in ("post-train", "train-direct"):
        return progress.training_progress(console)
    if stage.job.NAME in ("evaluate", "report"):
        return progress.evaluation_progress(console)
    return contextlib.nullcontext()


def _show(summary: PipelineSummary) -> None:
    """The figures that are new, what was done, and where the report is."""
    from raptor.cli.progress import duration, wide_console
    from raptor.evaluation import Evaluation

    console = wide_console()
    for stage in summary.stages:
        if stage.job == "evaluate" and stage.action != "skip":
            console.print(Evaluation.load(stage.product).table(details=False))
    table = _table("stage", "", "time", "result")
    for stage in summary.stages:
        time = duration(stage.wall_clock_s) if stage.action != "skip" else ""
        table.add_row(stage.name, DONE[stage.action], time, stage.result if stage.job != "report" else "")
    console.print(table)
    for stage in summary.stages:
        if stage.job in ("report", "export"):
            typer.echo(f"{stage.name}: {stage.product}")


def _plan_table(steps: Sequence[Step]) -> Table:
    table = _table("stage", "job", "to do", "why")
    for step in steps:
        why = f"{step.why}; needs --overwrite" if step.replaces else step.why
        table.add_row(step.stage.name, step.stage.job.NAME, PLANNED[step.action], why)
    return table


def _table(*columns: str) -> Table:
    from rich.table import Table

    table = Table(box=None, padding=(0, 2, 0, 0))
    for column in columns:
        table.add_column(column)
    return table


def _command(pipeline: str, given: Sequence[str], output: Path, only: str | None, until: str | None) -> str:
    """The command line that goes on."""
    words = ["raptor", "run", pipeline, *given, "--output", str(output)]
    words += [*(["--only", only] if only else []), *(["--until", until] if until else [])]
    return shlex.join(words)
