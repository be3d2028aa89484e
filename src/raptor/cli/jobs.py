"""What the commands that train have in common: progress, interruptions, and the results."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import typer

from raptor.core.errors import printable

if TYPE_CHECKING:
    from rich.console import Console

    from raptor.runs.job import RunSummary
    from raptor.runs.progress import ProgressFunction

INTERRUPTED = 130


def say(text: str, err: bool = False) -> None:
    """Print a line, control bytes escaped."""
    typer.echo(printable(text), err=err)


def announcer(console: Console) -> Callable[[str], None]:
    """A function that prints a line above the progress."""
    return lambda line: console.print(printable(line), highlight=False, markup=False, soft_wrap=True)


def leave(how: str, again: str) -> NoReturn:
    """End the command after a request to stop, and say how to go on."""
    say(f"{how}; go on with: {again}", err=True)
    raise typer.Exit(INTERRUPTED)


@contextlib.contextmanager
def going_on_with(again: str) -> Iterator[None]:
    """Run a block whose interruption another command makes up for."""
    try:
        yield
    except KeyboardInterrupt:
        leave("interrupted", again)


@contextlib.contextmanager
def watched(output: Path, resume: bool, again: str) -> Iterator[tuple[ProgressFunction, Callable[[str], None]]]:
    """Show how a job goes on, until the block ends; yields functions for its progress and its announcements."""
    from rich.console import Console

    from raptor.cli.progress import job_progress
    from raptor.config.files import MANIFEST

    console, before = Console(stderr=True), _written(output / MANIFEST)
    try:
        with job_progress(console) as progress:
            yield progress, announcer(console)
    except KeyboardInterrupt:
        now = _written(output / MANIFEST)
        if now is None or (now == before and not resume):
            say("interrupted before anything was written", err=True)
            raise typer.Exit(INTERRUPTED) from None
        leave("interrupted", again)


def _written(file: Path) -> int | None:
    """When a file was written; None where it is not there."""
    return file.stat().st_mtime_ns if file.exists() else None


def say_result(summary: RunSummary, again: str, more: str = "", imitated: dict[str, float] | None = None) -> None:
    """Print what came of a run; leaves the command after a request to stop."""
    from raptor.cli.progress import duration, quantity

    unit, num = summary.unit, summary.num_steps
    if not summary.finished:
        leave(f"stopped after {unit} {num} of {summary.total_steps}, with a checkpoint", again)
    speed = [f"{summary.rate:.3g} {unit}s/s"] if summary.rate else []
    if speed and summary.env_steps:
        speed.append(f"{quantity(summary.rate * summary.env_steps / max(num, 1))} env-steps/s")
    how_fast = f" ({', '.join(speed)})" if speed else ""
    say(f"trained {num} {unit}s in {duration(summary.wall_clock_s)}{how_fast}: {summary.output}{more}")
    for what, best in (("best imitation", imitated), ("best", {} if summary.best == imitated else summary.best)):
        if best:
            rate = best.get("termination_rate")
            terminated = "" if rate is None else f", {rate:.1%} terminated"
            found = f"return {best['mean_return']:.1f}{terminated}, at {unit} {best[unit]:.0f}"
            say(f"{what} by {summary.best_by}: {found}")
