"""`raptor platforms`, `raptor sample` and `raptor describe`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from rich.console import Console
from rich.table import Table

from raptor.cli.common import argument, option, say
from raptor.cli.progress import PATIENCE_S, cell, counted, counting, plain_table
from raptor.core.errors import UserError

if TYPE_CHECKING:
    from raptor.quadrotor import Quadrotors


def platforms() -> None:
    """List the nine real and simulated vehicles that the package knows by name.

    In Python: `raptor.load_platform("x500_real")`, `raptor.load_platforms()`.
    """
    from raptor.quadrotor import load_platforms

    Console().print(table_of(load_platforms()))


def sample(
    num: Annotated[int, option("--num -n N", "How many.")],
    output: Annotated[Path, option("--output -o DIR", "Folder to fill.")],
    ranges: Annotated[list[str] | None, argument("KEY=VALUE", "Ranges over the distribution's: mass=[0.5,2]")] = None,
    seed: Annotated[int, option("--seed SEED", "Of what is drawn.", True)] = 0,
    distribution: Annotated[
        str,
        option("--distribution NAME", "published (what RAPTOR's code draws), or paper (what its text says).", True),
    ] = "published",
    overwrite: Annotated[bool, option("--overwrite", "Replace the population that is there.")] = False,
) -> None:
    """Sample quadrotors and write each as a JSON file in l2f's schema, with a summary in numbers and pictures.

    The first vehicles of a larger population are those of a smaller one of the same seed.

    ```
    raptor sample -n 100 -o quadrotors
    raptor sample -n 10 -o heavy mass=[2,5] thrust_to_weight=[1.5,2]
    ```

    In Python: `raptor.sample_quadrotors(100)`, `raptor.quadrotor.population.write_population`.
    """
    from raptor.config import load_config
    from raptor.lab.pipeline.jobs import SEEDS
    from raptor.quadrotor import Distribution, named_distribution, sample_quadrotors
    from raptor.quadrotor.population import PICTURE, SUMMARY, write_population

    if not SEEDS.allows(seed):
        raise UserError(f"seed must be {SEEDS.text}, got {seed}")
    drawn_from = load_config(Distribution, None, ranges or [], default=named_distribution(distribution))
    quadrotors = sample_quadrotors(num, seed, distribution=drawn_from)
    with counting(Console(stderr=True), "writing", PATIENCE_S) as progress:
        paths = write_population(quadrotors, output, overwrite, seed, drawn_from, progress)
    files = paths[0].name if num == 1 else f"{paths[0].name} to {paths[-1].name}"
    say(f"wrote {counted(num, 'quadrotor')} to {output}: {files}, {SUMMARY}, {PICTURE}")


def describe(
    file: Annotated[Path, argument("FILE.yaml", "What you know of it.")],
    output: Annotated[Path | None, option("--output -o FILE.json", "Write the full parameters.")] = None,
) -> None:
    """Turn the description of a quadrotor into full parameters; missing values are estimated and printed.

    Only the mass is required; examples/my_quadrotor.yaml shows every key.

    ```
    raptor describe my_quadrotor.yaml -o my_quadrotor.json
    ```

    In Python: `raptor.Quadrotors.from_json("my_quadrotor.json")`.
    """
    from raptor.core.atomic import write_atomically
    from raptor.quadrotor import from_description
    from raptor.quadrotor.parameters import format_document

    quadrotor, estimates = from_description(file)
    Console().print(table_of(quadrotor))
    if estimates:
        say("\n  ".join(["Estimated, because the description leaves it out:", *map(str, estimates)]))
    if output is not None:
        write_atomically(output, f"{format_document(quadrotor.to_dicts()[0])}\n")
        say(f"wrote {output}")


def table_of(quadrotors: Quadrotors) -> Table:
    """What characterises each vehicle."""
    columns = {
        "mass (kg)": quadrotors.mass,
        "arm (m)": quadrotors.arm_length,
        "thrust-to-weight": quadrotors.thrust_to_weight,
        "torque-to-inertia (1/s²)": quadrotors.torque_to_inertia,
        "hover throttle": quadrotors.hover_throttle,
    }
    table = plain_table("name", *columns, right=True)
    for i, name in enumerate(quadrotors.names or map(str, range(len(quadrotors)))):
        table.add_row(cell(name), *(f"{values[i].item():.3g}" for values in columns.values()))
    return table
