"""`raptor run`."""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from rich.console import Console
from rich.table import Table

from raptor.cli import common, progress
from raptor.cli.common import argument, option, say
from raptor.cli.progress import announcer, cell, duration, plain_table, wide_console

if TYPE_CHECKING:
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
    seed: common.Seed = None,
    device: common.Device = None,
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
    from raptor.lab.pipeline import load_pipeline, make_plan, output_of, run_pipeline

    given = common.overrides(changes, seed, device)
    loaded = load_pipeline(pipeline, given)
    folder = output_of(loaded, output)
    if dry_run:
        wide_console().print(_plan_table(make_plan(loaded, folder, only, until)))
        return
    console = Console(stderr=True)
    words = ["raptor", "run", pipeline, *given, "--output", str(folder)]
    words += [*(["--only", only] if only else []), *(["--until", until] if until else [])]
    again = shlex.join(words)
    with common.going_on_with(again):
        summary = run_pipeline(
            loaded, folder, overwrite, only, until, lambda stage: _stage_progress(stage, console), announcer(console)
        )
    if not summary.finished:
        common.leave(f"stopped in {summary.stages[-1].name}", again)
    _show(summary)


@contextlib.contextmanager
def _stage_progress(stage: Stage, console: Console) -> Iterator[Any]:
    """What the command of the job shows."""
    if not stage.job.TRAINS:
        quick = stage.job.NAME in ("sample", "export")
        with progress.counting(console, "writing", progress.PATIENCE_S if quick else 0.0) as count:
            yield count
        return
    with progress.job_progress(console) as show:
        is_relayed = stage.job.NAME == "pre-train"
        yield progress.teacher_progress(show, stage.job.settings.compile) if is_relayed else show  # type: ignore[attr-defined]


def _show(summary: PipelineSummary) -> None:
    """The figures that are new, what was done, and where the report is."""
    from raptor.evaluation import Evaluation

    console, table, files = wide_console(), plain_table("stage", "", "time", "result"), []
    for name, job, action, _, seconds, result, product in summary.stages:
        if job == "evaluate" and action != "skip":
            console.print(Evaluation.load(product).table(details=False))
        if job in ("report", "export"):
            files.append(f"{name}: {product}")
        time = duration(seconds) if action != "skip" else ""
        table.add_row(name, DONE[action], time, cell(result if job != "report" else ""))
    console.print(table)
    for file in files:
        say(file)


def _plan_table(steps: Sequence[Step]) -> Table:
    table = plain_table("stage", "job", "to do", "why")
    for step in steps:
        why = f"{step.why}; needs --overwrite" if step.replaces else step.why
        table.add_row(step.stage.name, step.stage.job.NAME, PLANNED[step.action], cell(why))
    return table
