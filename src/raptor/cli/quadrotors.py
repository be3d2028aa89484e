"""`raptor platforms`, `raptor sample` and `raptor describe`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from raptor.cli.common import argument, option, say
from raptor.cli.progress import PATIENCE_S, cell, counted, counting, plain_table
from raptor.core.errors import UserError, printable

if TYPE_CHECKING:
    from raptor.quadrotor import Quadrotors

MOST_ROWS = 20  # of a table of vehicles


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
    sources: Annotated[list[str], argument("FILE|NAME|FOLDER", "Descriptions, JSON files, platforms, folders.")],
    output: Annotated[
        Path | None, option("--output -o FILE.json", "Write the full parameters; a folder of several.")
    ] = None,
) -> None:
    """Show what characterises a quadrotor beside what policies were trained on; of a description, every estimate.

    A description needs the mass alone; examples/my_quadrotor.yaml shows what else it takes.

    ```
    raptor describe my_quadrotor.yaml -o my_quadrotor.json
    raptor describe racer.yaml crazyflie quadrotors/
    ```

    In Python: `raptor.load_quadrotors("my_quadrotor.yaml")`.
    """
    from raptor.core.atomic import write_atomically
    from raptor.quadrotor import load_quadrotors
    from raptor.quadrotor.parameters import format_document

    quadrotors, console = load_quadrotors(sources), Console()
    console.print(beside_training(quadrotors))
    if 1 < len(quadrotors) <= MOST_ROWS:
        console.print(table_of(quadrotors))
    for name, document in zip(quadrotors.names or (), quadrotors.documents or (), strict=False):
        if document.get("estimates"):
            of = "" if len(quadrotors) == 1 else f" of {name}"
            say("\n  ".join([f"Estimated{of}, because the description leaves it out:", *document["estimates"]]))
        if len(quadrotors) == 1 and (uncertain := document.get("uncertainty")):
            ranges = (f"{field.replace('_', ' ')} {100 * part:.2g} %" for field, part in uncertain.items())
            say(f"Uncertain by: {', '.join(ranges)}")
    if output is None:
        return
    if len(quadrotors) == 1:
        write_atomically(output, f"{format_document(quadrotors.to_dicts()[0])}\n")
    else:
        quadrotors.save(output)
    say(f"wrote {output}")


def beside_training(quadrotors: Quadrotors) -> Table:
    """Each characteristic beside the range of the training distribution; what lies outside is marked."""
    from raptor.quadrotor.validation import characteristics

    num = len(quadrotors)
    name = escape(printable((quadrotors.names or ("quadrotor",))[0])) if num == 1 else counted(num, "quadrotor")
    numbers = ("value",) if num == 1 else ("lowest", "median", "highest")
    table = plain_table(name, *numbers, "in training", "", right=True)
    table.columns[-1].justify = "left"
    for key, trait in characteristics(quadrotors).items():
        low, high = trait.trained
        values = trait.values.double()
        if key == "disturbance_to_weight" and not values.any():
            continue
        outside = (values < low) | (values > high)
        found = [values.nanquantile(share).item() for share in ((0.5,) if num == 1 else (0.0, 0.5, 1.0))]
        slip = f"; {trait.slip(found[0])}" if num == 1 and trait.slip(found[0]) else ""
        mark = f"outside{slip}" if num == 1 else f"{int(outside.sum())} outside"
        row = [f"{number:.4g}" for number in found]
        table.add_row(trait.title, *row, f"{low:g} to {high:g}", mark if outside.any() else "")
    return table


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
