"""`raptor run`."""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from raptor.cli import options
from raptor.cli.jobs import announcer, going_on_with, leave, say
from raptor.cli.options import argument, option, overrides

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from raptor.lab.pipeline import PipelineSummary, Stage, Step

DONE = {"skip": "unchanged", "run": "run", "resume": "continued", "anew": "run anew"}
PLANNED = {"skip": "nothing", "run": "run", "resume": "go on", "anew": "run anew", "wait": "wait and see"}


def run(
    pipeline: Annotated[str, argument("PIPELINE", "YAML file, or a preset: small, full, paper.")],
    changes: Annotated[
        list[str] | None,
        argument("KEY=VALUE", "Over the file's: evaluation.num_quadrotors=512 teachers.settings.apg.num_updates=100"),
    ] = None,
    output: Annotated[
        Path | None, option("--output -o", "DIR", "Folder of all stages; by default that in the file.")
    ] = None,
    seed: options.Seed = None,
    device: options.Device = None,
    only: Annotated[str | None, option("--only", "STAGE", "Only this stage, on earlier results of others.")] = None,
    until: Annotated[str | None, option("--until", "STAGE", "Only this stage and what it needs.")] = None,
    dry_run: Annotated[bool, option("--dry-run", None, "Print the plan, with reasons; run nothing.")] = False,
    overwrite: Annotated[bool, option("--overwrite", None, "Replace trainings whose settings changed.")] = False,
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
    again = _command(pipeline, given, folder, only, until)

    def progress(stage: Stage) -> contextlib.AbstractContextManager[Any]:
        return _stage_progress(stage, console)

    with going_on_with(again):
        summary = run_pipeline(loaded, folder, overwrite, only, until, progress, announcer(console))
    if not summary.finished:
        leave(f"stopped in {summary.stages[-1].name}", again)
    _show(summary)


def _stage_progress(stage: Stage, console: Console) -> contextlib.AbstractContextManager[Any]:
    """What the command of the job shows."""
    from raptor.cli import progress

    if stage.job.NAME == "sample":
        return progress.counting(console, "writing", progress.PATIENCE_S)
    if stage.job.NAME == "pre-train":
        return progress.pre_training_progress(console, stage.job.settings.compile)  # type: ignore[attr-defined]
    if stage.job.NAME in ("evaluate", "report"):
        return progress.counting(console)
    return progress.job_progress(console) if stage.job.TRAINS else contextlib.nullcontext()


def _show(summary: PipelineSummary) -> None:
    """The figures that are new, what was done, and where the report is."""
    from raptor.cli.progress import cell, duration, plain_table, wide_console
    from raptor.evaluation import Evaluation

    console = wide_console()
    for stage in summary.stages:
        if stage.job == "evaluate" and stage.action != "skip":
            console.print(Evaluation.load(stage.product).table(details=False))
    table = plain_table("stage", "", "time", "result")
    for stage in summary.stages:
        time = duration(stage.wall_clock_s) if stage.action != "skip" else ""
        table.add_row(stage.name, DONE[stage.action], time, cell(stage.result if stage.job != "report" else ""))
    console.print(table)
    for stage in summary.stages:
        if stage.job in ("report", "export"):
            say(f"{stage.name}: {stage.product}")


def _plan_table(steps: Sequence[Step]) -> Table:
    from raptor.cli.progress import cell, plain_table

    table = plain_table("stage", "job", "to do", "why")
    for step in steps:
        why = f"{step.why}; needs --overwrite" if step.replaces else step.why
        table.add_row(step.stage.name, step.stage.job.NAME, PLANNED[step.action], cell(why))
    return table


def _command(pipeline: str, given: Sequence[str], output: Path, only: str | None, until: str | None) -> str:
    """The command line that goes on."""
    words = ["raptor", "run", pipeline, *given, "--output", str(output)]
    words += [*(["--only", only] if only else []), *(["--until", until] if until else [])]
    return shlex.join(words)
