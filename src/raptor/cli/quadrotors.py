"""`raptor platforms`, `raptor sample` and `raptor describe`."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from raptor.quadrotor import Quadrotors

PATIENCE_S = 2.0
"""How long a command may take before it shows how far it is."""


def platforms() -> None:
    """List the nine real and simulated vehicles that the package knows by name.

    In Python: `raptor.load_platform("x500_real")`, `raptor.load_platforms()`.
    """
    from rich.console import Console

    from raptor.quadrotor import load_platforms

    Console().print(table_of(load_platforms()))


def sample(
    num: Annotated[int, typer.Option("--num", "-n", metavar="N", help="How many.", show_default=False)],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="Folder to fill.", show_default=False)],
    ranges: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="KEY=VALUE", help="Ranges over those of the distribution: mass=[0.5,2]", show_default=False
        ),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", metavar="SEED", help="Of what is drawn.")] = 0,
    distribution: Annotated[
        str,
        typer.Option(
            "--distribution",
            metavar="NAME",
            help="published (what RAPTOR's code draws), or paper (what its text says).",
        ),
    ] = "published",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the population that is there.")] = False,
) -> None:
    """Sample quadrotors and write each as a JSON file in l2f's schema, with a summary in numbers and pictures.

    The first vehicles of a larger population are those of a smaller one of the same seed.

    ```
    raptor sample -n 100 -o quadrotors
    raptor sample -n 10 -o heavy mass=[2,5] thrust_to_weight=[1.5,2]
    ```

    In Python: `raptor.sample_quadrotors(100)`, `raptor.quadrotor.population.write_population`.
    """
    from rich.console import Console

    from raptor.config import load_config
    from raptor.core.errors import UserError
    from raptor.lab.pipeline.jobs import SEEDS
    from raptor.quadrotor import Distribution, named_distribution, sample_quadrotors
    from raptor.quadrotor.population import PICTURE, SUMMARY, write_population

    if not SEEDS.allows(seed):
        raise UserError(f"seed must be {SEEDS.text}, got {seed}")
    drawn_from = load_config(Distribution, None, ranges or [], default=named_distribution(distribution))
    quadrotors = sample_quadrotors(num, seed, distribution=drawn_from)
    with writing_progress(Console(stderr=True)) as progress:
        paths = write_population(quadrotors, output, overwrite, seed, drawn_from, progress)
    files = paths[0].name if num == 1 else f"{paths[0].name} to {paths[-1].name}"
    typer.echo(f"wrote {num} quadrotor{'s' if num > 1 else ''} to {output}: {files}, {SUMMARY}, {PICTURE}")


@contextlib.contextmanager
def writing_progress(console: Console, patience_s: float = PATIENCE_S) -> Iterator[Callable[[int, int], None]]:
    """Show how many files are written, until the block ends; only on a terminal, and only once it takes long."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    begun = time.perf_counter()
    with contextlib.ExitStack() as shown:
        columns = (TextColumn("[bold]writing"), BarColumn(bar_width=None), MofNCompleteColumn())
        bars = Progress(*columns, console=console, expand=True, transient=True)
        task = bars.add_task("writing")

        def show(done: int, total: int) -> None:
            if console.is_terminal and not bars.live.is_started and time.perf_counter() - begun >= patience_s:
                shown.enter_context(bars)
            bars.update(task, completed=done, total=total)

        yield show


def describe(
    file: Annotated[Path, typer.Argument(metavar="FILE.yaml", help="What you know of it.", show_default=False)],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE.json", help="Write the full parameters.")
    ] = None,
) -> None:
    """Turn the description of a quadrotor into full parameters; missing values are estimated and printed.

    Only the mass is required; examples/my_quadrotor.yaml shows every key.

    ```
    raptor describe my_quadrotor.yaml -o my_quadrotor.json
    ```

    In Python: `raptor.Quadrotors.from_json("my_quadrotor.json")`.
    """
    from rich.console import Console

    from raptor.core.atomic import write_atomically
    from raptor.quadrotor import from_description
    from raptor.quadrotor.files import format_document

    quadrotor, estimates = from_description(file)
    console = Console()
    console.print(table_of(quadrotor))
    if estimates:
        console.print("Estimated, because the description leaves it out:", highlight=False)
    for estimate in estimates:
        console.print(f"  {estimate}", highlight=False, markup=False, soft_wrap=True)
    if output is not None:
        write_atomically(output, f"{format_document(quadrotor.to_dicts()[0])}\n")
        typer.echo(f"wrote {output}")


def table_of(quadrotors: Quadrotors) -> Table:
    """What characterises each vehicle."""
    from rich.table import Table

    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("name")
    columns = {
        "mass": (quadrotors.mass, "kg"),
        "arm": (quadrotors.arm_length, "m"),
        "thrust-to-weight": (quadrotors.thrust_to_weight, ""),
        "torque-to-inertia": (quadrotors.torque_to_inertia, "1/s²"),
        "hover throttle": (quadrotors.hover_throttle, ""),
    }
    for name, (_, unit) in columns.items():
        table.add_column(f"{name} ({unit})" if unit else name, justify="right")
    names = quadrotors.names or tuple(map(str, range(len(quadrotors))))
    for i, name in enumerate(names):
        table.add_row(name, *(f"{values[i].item():.3g}" for values, _ in columns.values()))
    return table
