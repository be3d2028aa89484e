"""`raptor evaluate`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from raptor.cli import options
from raptor.cli.jobs import say
from raptor.cli.options import option

if TYPE_CHECKING:
    from raptor.evaluation import Evaluation, Policy

PUBLISHED = "published"


def evaluate(
    policies: options.Policies,
    suite: options.Suites = None,
    json: Annotated[Path | None, option("--json", "FILE", "Write every figure with its interval.")] = None,
    num_quadrotors: options.NumQuadrotors = 2048,
    episodes: Annotated[int, option("--episodes", "N", "Episodes of each vehicle.", True, min=1)] = 1,
    seed: Annotated[int, option("--seed", "SEED", "Of the vehicles and their episodes.", True)] = 0,
    device: Annotated[str, option("--device", "DEVICE", "cpu, cuda, cuda:1.", True)] = "cpu",
    published: Annotated[
        bool, option("--published/--no-published", None, "Evaluate the published policy too.", True)
    ] = True,
    compile: Annotated[
        bool | None,
        option("--compile/--no-compile", None, "Compile the simulator; by default where that takes less time in all."),
    ] = None,
) -> None:
    """Evaluate policies and the published one: a column each, with 95 % intervals over vehicles.

    One suite is flown within seconds; all of them take a minute or two for each policy, and half a minute more where
    the simulator has to be compiled first. The same seed gives the same figures.

    ```
    raptor evaluate default -s unseen --num-quadrotors 256     # a quick look
    raptor evaluate runs/mine
    raptor evaluate default large -s unseen -s figure-eight --json results.json
    raptor evaluate published -s paper --num-quadrotors 4096
    ```
    """
    from raptor.core.devices import find_device

    find_device(device)
    columns = load_columns([*([PUBLISHED] if published else []), *policies], device)
    if json is not None:
        check_parent(json)
    evaluation = evaluate_columns(columns, suite, num_quadrotors, episodes, seed, device, compile)
    if json is not None:
        evaluation.save(json)
        say(f"wrote {json}")


def evaluate_columns(
    columns: Mapping[str, Policy],
    suites: Sequence[str] | None,
    num_quadrotors: int,
    episodes: int,
    seed: int,
    device: str,
    compile: bool | None,
) -> Evaluation:
    """Evaluate with progress on stderr, and print the table."""
    from rich.console import Console

    from raptor.cli.progress import counting, wide_console
    from raptor.evaluation import SUITES
    from raptor.evaluation import evaluate as run

    with counting(Console(stderr=True)) as progress:
        evaluation = run(columns, suites or SUITES, num_quadrotors, episodes, seed, device, progress, compile)
    wide_console().print(evaluation.table())
    return evaluation


def load_columns(sources: Sequence[str], device: str = "cpu") -> dict[str, Policy]:
    """Load policies under short, distinct names."""
    from raptor.core.errors import printable
    from raptor.formats import load_policy

    columns: dict[str, Policy] = {}
    for source in dict.fromkeys(sources):
        short = Path(source).name or source
        alone = sum((Path(other).name or other) == short for other in dict.fromkeys(sources)) == 1
        columns[printable(short if alone else source)] = load_policy(source, device)
    return columns


def check_parent(file: Path) -> None:
    """Refuse a file that could not be written, before the work that fills it."""
    from raptor.core.errors import UserError

    if file.is_dir() or not file.parent.is_dir():
        raise UserError(f"{file} cannot be written: name a file in a folder that exists")
