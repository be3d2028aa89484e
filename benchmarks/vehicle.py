"""Policies for one vehicle each, beside the packaged ones on it: what `raptor train-direct --quadrotor` gives.

    python benchmarks/vehicle.py [--output runs/vehicles] [--starts 128] [racer camera_drone toy] [KEY=VALUE ...]

Trains around each description in examples/ with the preset `vehicle`, goes on with a run that is there, and prints for
each vehicle how long that took, and a table: bold is better than every packaged policy that observes the same, beyond
all intervals.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.console import Console
from rich.table import Table

from raptor.cli.progress import counting, duration, job_progress, wide_console
from raptor.evaluation import Policy, evaluate
from raptor.evaluation.results import better, cell
from raptor.formats import load_policy
from raptor.formats.policy_files import POLICY_NAMES
from raptor.quadrotor import load_quadrotors
from raptor.training import load_run_config, train_direct

EXAMPLES = Path(__file__).parents[1] / "examples"
VEHICLES = ("racer", "camera_drone", "toy")
FIGURES = {
    "hover, return": ("platforms", "return"),
    "noise, return": ("robustness", "noise/return"),
    "20 ms late, return": ("robustness", "20ms-late/return"),
    "figure eight of 6.5 s, RMSE (m)": ("figure-eight", "6.5s/position_rmse"),
    "figure eight of 5 s, RMSE (m)": ("figure-eight", "5s/position_rmse"),
}


def train(name: str, output: Path, settings: list[str]) -> str:
    """Train around a vehicle, or go on with it; gives the time that it took, in words."""
    config = load_run_config(output, None, settings, True, [str(EXAMPLES / f"{name}.yaml")])
    with job_progress(Console(stderr=True)) as progress:
        summary = train_direct(output, config, resume=True, progress=progress)
    return f"{summary.env_steps / 1e6:.3g} M env-steps in {duration(summary.wall_clock_s)}"


def compare(name: str, output: Path, starts: int, took: str) -> Table:
    """The table of a vehicle; `starts` of each figure eight, four times as many of all else."""
    packaged = {each: load_policy(each) for each in POLICY_NAMES}
    policies: dict[str, Policy] = {each: policy for each, policy in packaged.items() if not policy.layout}
    policies[name] = load_policy(output)
    suites = tuple(dict.fromkeys(suite for suite, _ in FIGURES.values()))
    with counting(Console(stderr=True)) as progress:
        found = evaluate(
            policies, suites, 32 * starts, progress=progress, quadrotors=load_quadrotors(EXAMPLES / f"{name}.yaml")
        ).policies
    table = Table("", *policies, title=f"{name}: {took}")
    for label, (suite, key) in FIGURES.items():
        estimates, metric = [found[each][suite][key] for each in policies], key.split("/")[-1]
        wins = all(better(estimates[-1], packaged, metric) for packaged in estimates[:-1])
        *others, own = (cell(estimate, metric) for estimate in estimates)
        table.add_row(label, *others, f"[bold]{own}[/bold]" if wins else own)
    return table


def main() -> None:
    """Train, evaluate and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", nargs="*", help=f"vehicles ({', '.join(VEHICLES)}) and settings (KEY=VALUE)")
    parser.add_argument("--output", type=Path, default=Path("runs/vehicles"))
    parser.add_argument("--starts", type=int, default=128)
    arguments = parser.parse_args()
    settings = [text for text in arguments.what if "=" in text]
    for name in [text for text in arguments.what if "=" not in text] or VEHICLES:
        output = arguments.output / name
        took = train(name, output, settings)
        wide_console().print(compare(name, output, arguments.starts, took))


if __name__ == "__main__":
    main()
