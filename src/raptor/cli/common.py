"""What several commands share: options, printing, interruptions, and the results of trainings."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import inspect
import json
import shlex
import sys
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from rich.console import Console

from raptor.cli.progress import announcer, counted, duration, job_progress, quantity
from raptor.core.errors import printable

if TYPE_CHECKING:
    from raptor.runs.job import RunSummary
    from raptor.runs.progress import ProgressFunction

INTERRUPTED = 130


def option(usage: str, help: str, show_default: bool = False, **more: Any) -> Any:
    """Declare an option by its names, followed by what is given for it if it is no switch, and what it does."""
    *names, last = usage.split()
    names, metavar = ([*names, last], None) if last.startswith("-") else (names, last)
    return typer.Option(*names, metavar=metavar, help=help, show_default=show_default, **more)


def argument(metavar: str, help: str) -> Any:
    """Declare an argument."""
    return typer.Argument(metavar=metavar, help=help, show_default=False)


POLICY = "published, default, large, agile, the folder of a run, or a .pt, .h5, .tar or .onnx file."
PICKLED = "VecNormalize of stable-baselines3 (.pkl) that the teacher was trained with; nothing in it is executed."

Settings = Annotated[
    list[str] | None,
    argument("KEY=VALUE", "Settings over the file's: learning_rate=1e-3 task.references.lissajous.interval=[4,10]"),
]
Config = Annotated[
    str | None, option("--config -c FILE", "YAML file, a run, or a preset: agile, large, paper, vehicle.")
]
PaperConfig = Annotated[str | None, option("--config -c FILE", "YAML file, a run, or the preset paper.")]
Quadrotors = Annotated[
    list[str] | None,
    option(
        "--quadrotor --quadrotors -q VEHICLE",
        "JSON file, YAML description, folder of these, or platform; several times.",
    ),
]
Seed = Annotated[int | None, option("--seed SEED", "Same as seed=SEED.")]
Device = Annotated[str | None, option("--device DEVICE", "Same as device=DEVICE: cpu, cuda, cuda:1.")]
Suites = Annotated[
    list[str] | None,
    option(
        "--suite -s SUITE",
        "paper, unseen, platforms, figure-eight, robustness, sensitivity, reference; several; else all that can be. "
        "On demand: agility, survival.",
    ),
]
NumQuadrotors = Annotated[int, option("--num-quadrotors N", "Vehicles drawn for each suite.", True, min=1)]
Reference = Annotated[
    str | None,
    option(
        "--reference FILE|NAME",
        "Trajectory to follow: CSV file, figure-eight, circle, helix, steps, hover; bounds are about it.",
    ),
]
TeacherNormalizer = Annotated[Path | None, option("--teacher-normalizer FILE", PICKLED)]
LargestBatch = Annotated[bool, option("--largest-batch", "Train with the largest batch that fits into memory.")]
Extend = Annotated[
    list[Path] | None,
    option("--extend FILE.py", "Run your own Python file, whose terms task.extra.NAME.KEY=VALUE puts to use; several."),
]
Resume = Annotated[bool, option("--resume", "Go on with the run in DIR; start it where there is none.")]
Overwrite = Annotated[bool, option("--overwrite", "Replace the run in DIR.")]


@dataclasses.dataclass(frozen=True)
class Run:
    """What a command is given that trains in the folder of a run; see `takes_options`."""

    command: str
    output: Annotated[Path, option("--output -o DIR", "Folder of the run.")]
    settings: Settings = None
    config: Config = None
    reference: Reference = None
    seed: Seed = None
    device: Device = None
    resume: Resume = False
    overwrite: Overwrite = False

    @property
    def again(self) -> str:
        """The command that goes on."""
        return f"{self.command} --output {self.output} --resume{extensions()}"

    def load(self, load: Callable[..., Any], *more: str, resume: bool = False, tasks: Sequence[str] = ("task",)) -> Any:
        """The settings of the run, read by the function of its job; --reference is of these tasks."""
        given = [*following(self.reference, tasks), *overrides(self.settings, self.seed, self.device, *more)]
        return load(self.output, self.config, given, self.resume or resume)


@dataclasses.dataclass(frozen=True)
class TeacherRun(Run):
    """The same for jobs that have one preset only."""

    config: PaperConfig = None


def takes_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command whose first parameter is a `Run` the options of that."""
    own = list(inspect.signature(command, eval_str=True).parameters.values())
    cls = own.pop(0).annotation
    hints, name = typing.get_type_hints(cls, include_extras=True), f"raptor {command.__name__.replace('_', '-')}"
    _, *fields = dataclasses.fields(cls)

    @functools.wraps(command)
    def run(**given: Any) -> None:
        command(cls(name, *(given.pop(field.name) for field in fields)), **given)

    shared = [(field.name, (hints[field.name], field.default)) for field in fields]
    special = [(parameter.name, (parameter.annotation, parameter.default)) for parameter in own]
    return with_parameters(run, dict([*shared[:2], *special, *shared[2:]]))


def extendable(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the option --extend."""
    own = inspect.signature(command, eval_str=True).parameters.values()
    declared = {each.name: (each.annotation, _required_or(each.default)) for each in own}

    @functools.wraps(command)
    def run(extend: list[Path] | None = None, **given: Any) -> None:
        if extend:
            from raptor.tasks.terms import extend as add

            for file in extend:
                add(file)
        command(**given)

    return with_parameters(run, {**declared, "extend": (Extend, None)})


def _required_or(default: Any) -> Any:
    return dataclasses.MISSING if default is inspect.Parameter.empty else default


def with_parameters(function: Callable[..., None], parameters: Mapping[str, tuple[Any, Any]]) -> Callable[..., None]:
    """Have a function declare parameters by name, each with its annotation and its default."""
    function.__annotations__, declared = {}, []
    for name, (annotation, default) in parameters.items():
        function.__annotations__[name] = annotation
        default = inspect.Parameter.empty if default is dataclasses.MISSING else default
        declared.append(inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation))
    function.__signature__ = inspect.Signature(declared)  # type: ignore[attr-defined]
    return function


def extensions() -> str:
    """The options that hand over again what --extend did."""
    terms = sys.modules.get("raptor.tasks.terms")
    return "".join(f" --extend {shlex.quote(str(file))}" for file in terms.extensions()) if terms else ""


def overrides(settings: list[str] | None, seed: int | None, device: str | None, *more: str) -> list[str]:
    """All settings of a command line as `key=value`."""
    named = {"seed": seed, "device": device}
    return [*(settings or []), *(f"{name}={value}" for name, value in named.items() if value is not None), *more]


def following(reference: str | None, tasks: Sequence[str]) -> list[str]:
    """The settings that --reference stands for."""
    stands_for = f"references.trajectory={json.dumps(reference)}", "termination.about_target=true"
    return [f"{task}.{setting}" for task in tasks for setting in stands_for if reference is not None]


def say(text: str, err: bool = False) -> None:
    """Print a line, control bytes escaped."""
    typer.echo(printable(text), err=err)


def leave(how: str, again: str = "") -> NoReturn:
    """End the command after a request to stop, and say how to go on."""
    say(f"{how}; go on with: {again}" if again else how, err=True)
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
    from raptor.config.files import MANIFEST

    def written() -> int | None:
        return (output / MANIFEST).stat().st_mtime_ns if (output / MANIFEST).exists() else None

    console, before = Console(stderr=True), written()
    try:
        with job_progress(console) as progress:
            yield progress, announcer(console)
    except KeyboardInterrupt:
        if written() is None or (written() == before and not resume):
            leave("interrupted before anything was written")
        leave("interrupted", again)


def after_saying(text: str, announce: Callable[[str], None], show: Callable[..., None]) -> Callable[..., None]:
    """A function for the progress of a job that announces a line at its first call, when nothing was refused."""
    lines = [text] if text else []

    def tell(*progress: Any) -> None:
        while lines:
            announce(lines.pop())
        show(*progress)

    return tell


def say_result(summary: RunSummary, again: str, more: str = "", imitated: dict[str, float] | None = None) -> None:
    """Print what came of a run; leaves the command after a request to stop."""
    unit, num, rate = summary.unit, summary.num_steps, summary.rate
    if not summary.finished:
        leave(f"stopped after {unit} {num} of {summary.total_steps}, with a checkpoint", again)
    flown = f", {quantity(rate * summary.env_steps / max(num, 1))} env-steps/s" if summary.env_steps else ""
    how_fast = f" ({rate:.3g} {unit}s/s{flown})" if rate else ""
    say(f"trained {counted(num, unit)} in {duration(summary.wall_clock_s)}{how_fast}: {summary.output}{more}")
    for what, best in (("best imitation", imitated), ("best", {} if summary.best == imitated else summary.best)):
        if best:
            terminated = (
                f", {best['termination_rate']:.1%} terminated" if best.get("termination_rate") is not None else ""
            )
            found = f"return {best['mean_return']:.1f}{terminated}, at {unit} {best[unit]:.0f}"
            say(f"{what} by {summary.best_by}: {found}")
