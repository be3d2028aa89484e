"""Live progress of any job: a bar on a terminal, a few lines without one; numbers and tables for people."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from raptor.core.errors import printable

if TYPE_CHECKING:
    from raptor.runs.progress import Progress, ProgressFunction

LINES, QUIET_S = 10, 300.0  # of a job without validations where there is no terminal, and its longest silence
BRISK_S, STEADY_S = 5.0, 30.0  # between two lines of what is evaluated, another or the same, where is no terminal
PATIENCE_S = 2.0  # how long files are written before a bar is shown


@contextlib.contextmanager
def job_progress(console: Console, lines: bool = True, patience_s: float = 0.0) -> Iterator[ProgressFunction]:
    """Show how far a job is, until the block ends; its bar only after so long, and lines only where they are wanted."""
    from rich.progress import BarColumn, SpinnerColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bars

    if not console.is_terminal:
        yield _lines(console) if lines else lambda progress: None
        return
    alive = SpinnerColumn(), TextColumn("[bold]{task.description}")  # also while something is compiled
    columns = (*alive, BarColumn(bar_width=None), TextColumn("{task.fields[facts]}"), TimeElapsedColumn())
    bars, begun = Bars(*columns, console=console, expand=True, transient=not lines), time.perf_counter()
    task = bars.add_task("starting", total=None, facts="")

    def show(progress: Progress) -> None:
        if time.perf_counter() - begun >= patience_s:
            bars.start()
        now = f"{progress.step:.5g}/{progress.num_steps}  {facts(progress)}"
        stage = printable(progress.stage)
        bars.update(task, description=stage, completed=progress.step, total=progress.num_steps, facts=now)

    try:
        if not patience_s:
            bars.start()
        yield show
    finally:
        if bars.live.is_started:
            bars.stop()


def _lines(console: Console) -> ProgressFunction:
    """Print one line per validation and per tenth of a job, and every few minutes."""
    shown: object = None
    shown_at, say = 0.0, announcer(console)

    def show(progress: Progress) -> None:
        nonlocal shown, shown_at
        if progress.stage in ("compiling", "validating") or not progress.step:
            return
        standing = progress.unit, progress.step * LINES // max(progress.num_steps, 1), dict(progress.validation)
        if standing != shown or progress.elapsed_s - shown_at >= QUIET_S:
            shown, shown_at = standing, progress.elapsed_s
            say(f"{progress.unit} {progress.step:.5g} of {progress.num_steps}  {facts(progress)}".rstrip())

    return show


@contextlib.contextmanager
def counting(console: Console, stage: str = "", patience_s: float = 0.0) -> Iterator[Callable[..., None]]:
    """Show how much of something is done, until the block ends; yields a function ([stage,] done, total).

    Without a terminal, only stages that the function is given are shown, and not more often than every few seconds.
    """
    from raptor.runs.progress import Progress

    shown, shown_at, say = "", -math.inf, announcer(console)

    def note(*given: Any) -> None:
        nonlocal shown, shown_at
        what, done, total = (stage, *given)[-3:]
        if console.is_terminal:
            show(Progress(what, done, total))
        elif what != stage and time.perf_counter() - shown_at >= (STEADY_S if what == shown else BRISK_S):
            shown, shown_at = what, time.perf_counter()
            say(f"{done / max(total, 1):4.0%}  {what}")

    with job_progress(console, lines=False, patience_s=patience_s) as show:
        yield note


def facts(progress: Progress) -> str:
    """Rates, loss, return and time left, as far as they are known, on one line."""
    parts = {
        f"{progress.rate:.3g} {progress.unit}s/s": progress.rate,
        f"{quantity(progress.env_steps_per_s)} env-steps/s": progress.env_steps_per_s > 0,
        f"loss {progress.values.get('loss', 0):.3g}": "loss" in progress.values,
        f"return {progress.validation.get('mean_return', 0):.1f}": progress.validation,
        f"best {progress.best_return or 0:.1f}": progress.best_return is not None,
    }
    left = [f"{duration(progress.remaining_s)} left"] if math.isfinite(progress.remaining_s) else []
    return " · ".join([*(part for part, is_known in parts.items() if is_known), *left])


def announcer(console: Console) -> Callable[[str], None]:
    """A function that prints a line as it is, control bytes escaped, above the progress."""
    return lambda line: console.print(printable(line), highlight=False, markup=False, soft_wrap=True)


def quantity(value: float) -> str:
    """A large number for people: 1.9 M."""
    for size, letter in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if value >= size:
            return f"{value / size:.3g}{letter}"
    return f"{value:.3g}"


def duration(seconds: float) -> str:
    """A duration for people: 3 min 05 s."""
    minutes, whole = divmod(round(seconds), 60)
    hours, rest = divmod(minutes, 60)
    return f"{hours} h {rest:02d} min" if hours else f"{minutes} min {whole:02d} s" if minutes else f"{whole} s"


def counted(number: int, what: str) -> str:
    """1 teacher, 2 teachers."""
    return f"{number} {what}{'' if number == 1 else 's'}"


def wide_console() -> Console:
    """The standard output; wide enough for a table where it is no terminal."""
    console = Console()
    return console if console.is_terminal else Console(width=160)


def plain_table(*columns: str, right: bool = False) -> Table:
    """A table without lines; the columns after the first are aligned to the right where `right`."""
    first, *others = columns
    aligned = [Column(column, justify="right" if right else "left") for column in others]
    return Table(first, *aligned, box=None, padding=(0, 2, 0, 0))


def cell(text: str) -> Text:
    """Text in a table as it is, control bytes escaped."""
    return Text(printable(text))
