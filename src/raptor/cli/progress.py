"""Live progress of a training job; a few lines without a terminal."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskProgressColumn, TextColumn
from rich.progress import Progress as Bars

if TYPE_CHECKING:
    from raptor.runs.progress import Progress, ProgressFunction
    from raptor.training.teachers.job import PreTrainProgress

COMPILING = "compiling the simulator and its gradient, half a minute the first time"
LINES = 10
"""How many lines a run without validations prints."""

QUIET_S = 300.0
"""Longest silence without a terminal."""


@contextlib.contextmanager
def training_progress(console: Console) -> Iterator[ProgressFunction]:
    """Show how a job goes on, until the block ends."""
    if not console.is_terminal:
        yield _Lines(console)
        return
    columns = (
        TextColumn("[bold]{task.description}"),
        BarColumn(bar_width=None),
        MofNCompleteColumn(),
        TextColumn("{task.fields[facts]}"),
    )
    with Bars(*columns, console=console, expand=True) as bars:
        task = bars.add_task("starting", total=None, facts="")

        def show(progress: Progress) -> None:
            compiling = progress.stage == "compiling"
            bars.update(
                task,
                description=progress.stage,
                completed=progress.step,
                total=progress.num_steps,
                facts=COMPILING if compiling else facts(progress),
            )

        yield show


@contextlib.contextmanager
def pre_training_progress(console: Console, compiling: bool = True) -> Iterator[Callable[[PreTrainProgress], None]]:
    """Show how a population is trained, until the block ends; `compiling` says whether something will be."""
    if not console.is_terminal:
        yield _PopulationLines(console, compiling)
        return
    columns = (
        TextColumn("[bold]{task.description}"),
        BarColumn(bar_width=None),
        TextColumn("{task.completed:.1f}/{task.total}"),
        TextColumn("{task.fields[facts]}"),
    )
    with Bars(*columns, console=console, expand=True) as bars:
        task = bars.add_task("starting", total=None, facts="")
        beginning = ("compiling", COMPILING) if compiling else ("starting", "")

        def show(progress: PreTrainProgress) -> None:
            again = f" (attempt {progress.attempt})" if progress.attempt > 1 else ""
            description, shown = (f"teachers{again}", population_facts(progress)) if progress.done else beginning
            bars.update(
                task, description=description, completed=progress.done, total=progress.num_teachers, facts=shown
            )

        yield show


@contextlib.contextmanager
def evaluation_progress(console: Console) -> Iterator[Callable[[str, int, int], None]]:
    """Show what an evaluation flies, until the block ends; nothing without a terminal."""
    if not console.is_terminal:
        yield lambda what, done, total: None
        return
    columns = (TextColumn("[bold]{task.description}"), BarColumn(bar_width=None), TaskProgressColumn())
    with Bars(*columns, console=console, expand=True, transient=True) as bars:
        task = bars.add_task("compiling", total=None)
        yield lambda what, done, total: bars.update(task, description=what, completed=done, total=total)


def wide_console() -> Console:
    """The standard output; wide enough for a table where it is no terminal."""
    console = Console()
    return console if console.is_terminal else Console(width=160)


def facts(progress: Progress) -> str:
    """Rates, loss, validation return and time left, on one line."""
    parts = []
    if progress.rate:
        parts.append(f"{progress.rate:.3g} {progress.unit}s/s")
        if math.isfinite(progress.env_steps_per_s):
            parts.append(f"{quantity(progress.env_steps_per_s)} env-steps/s")
    if "loss" in progress.values:
        parts.append(f"loss {progress.values['loss']:.3g}")
    if progress.validation:
        parts.append(f"return {progress.validation['mean_return']:.1f}")
    if progress.best_return is not None:
        parts.append(f"best {progress.best_return:.1f}")
    if math.isfinite(progress.remaining_s):
        parts.append(f"{duration(progress.remaining_s)} left")
    return " · ".join(parts)


def population_facts(progress: PreTrainProgress) -> str:
    """Rate, validation return and time left, on one line."""
    parts = [f"{quantity(progress.env_steps_per_s)} env-steps/s"]
    if progress.mean_return is not None:
        parts.append(f"return {progress.mean_return:.1f}")
    if math.isfinite(progress.remaining_s):
        parts.append(f"{duration(progress.remaining_s)} left")
    return " · ".join(parts)


def quantity(value: float) -> str:
    """A large number for people: 1.9 M."""
    for size, letter in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if value >= size:
            return f"{value / size:.3g}{letter}"
    return f"{value:.3g}"


def duration(seconds: float) -> str:
    """A duration for people: 3 min 05 s."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    hours, minutes = divmod(whole // 60, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {whole % 60:02d} s"


class _Lines:
    """One line per validation, or per tenth of a run that is not validated."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.shown = -1
        self.validated: object = None

    def __call__(self, progress: Progress) -> None:
        if progress.stage == "compiling":
            self.console.print(COMPILING, highlight=False)
        if progress.stage in ("compiling", "validating") or progress.step == 0:
            return
        share = progress.step * LINES // max(progress.num_steps, 1)
        new = progress.validation != self.validated if progress.validation else share != self.shown
        if not new:
            return
        self.shown, self.validated = share, progress.validation
        text = f"{progress.unit} {progress.step} of {progress.num_steps}  {facts(progress)}"
        self.console.print(text.rstrip(), highlight=False, soft_wrap=True)


class _PopulationLines:
    """One line per tenth of a population, and every few minutes."""

    def __init__(self, console: Console, compiling: bool) -> None:
        self.console, self.compiling = console, compiling
        self.shown, self.shown_at = (1, 0), 0.0

    def __call__(self, progress: PreTrainProgress) -> None:
        if self.compiling:
            self.console.print(COMPILING, highlight=False)
            self.compiling = False
        share = int(progress.done * LINES / max(progress.num_teachers, 1))
        waited = progress.elapsed_s - self.shown_at > QUIET_S
        if progress.done == 0 or ((progress.attempt, share) == self.shown and not waited):
            return
        self.shown, self.shown_at = (progress.attempt, share), progress.elapsed_s
        again = f" (attempt {progress.attempt})" if progress.attempt > 1 else ""
        text = f"teachers {progress.done:.1f} of {progress.num_teachers}{again}  {population_facts(progress)}"
        self.console.print(text, highlight=False, soft_wrap=True)
