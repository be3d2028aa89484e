"""Policies in another simulator: MuJoCo at 1 kHz, with drag, beside our own physics on the same episodes.

    python benchmarks/in_mujoco.py [--starts 4] [--drag 0.1 0.3] [--output FILE.json] [POLICY ...]

Each of the nine named quadrotors hovers and follows figure eights, with what it observes on time and 20 ms late. Prints
RMSE of the vehicles that are not lost and the share of those that are, with 95 % intervals over starts, and writes
the figures as JSON, by default to runs/mujoco.json; benchmarks/results.py takes rows of its table from
docs/experiments/mujoco.json. Policies are given by name, run or file; the packaged ones take about ten minutes on one
core.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
from collections.abc import Mapping
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from rich.text import Text

from raptor.cli.progress import counting, wide_console
from raptor.core.atomic import write_atomically
from raptor.evaluation import Estimate, Evaluation, Policy
from raptor.evaluation.evaluator import evaluate_conditions
from raptor.evaluation.results import better, cell, column_names
from raptor.evaluation.suites import FIGURE_EIGHT_INTERVALS, IMPAIRMENTS, Condition, conditions, figure_eight
from raptor.formats import load_policy
from raptor.formats.policy_files import POLICY_NAMES
from raptor.interop.mujoco import TIME_STEP, MujocoSimulator
from raptor.quadrotor import PLATFORMS, load_platforms

KEPT = Path(__file__).parents[1] / "docs" / "experiments" / "mujoco.json"
METRICS = ("return", "terminated", "position_rmse", "action_change")  # that are kept
LATE = "20ms-late"
FLOWN = {"hover": ("platforms", "hover")} | {
    f"{interval:g} s figure eight": ("figure-eight", f"{interval:g}s") for interval in FIGURE_EIGHT_INTERVALS
}
FIGURES = {
    f"{what}{', 20 ms late' if late else ''}: {label}": (suite, name + late, metric)
    for late in ("", f"-{LATE}")
    for what, (suite, name) in FLOWN.items()
    for label, metric in (("RMSE (m)", "position_rmse"), ("lost (%)", "terminated"))
}
"""Suite, condition and metric of each row of the table, by its heading."""


def planned(starts: int, seed: int) -> dict[str, list[Condition]]:
    """Hover and figure eights, each on time and late; position errors are of vehicles that are not lost."""
    (hover,) = conditions("platforms", 8 * starts, 1, seed, torch.device("cpu"))
    eights = [figure_eight(interval, starts, seed, load_platforms()) for interval in FIGURE_EIGHT_INTERVALS]
    eights = [dataclasses.replace(condition, survivors_only=True) for condition in eights]
    suites = {"platforms": [dataclasses.replace(hover, name="hover")], "figure-eight": eights}
    return {suite: [*group, *map(seen_late, group)] for suite, group in suites.items()}


def seen_late(condition: Condition) -> Condition:
    """The same where all but the previous action is observed late."""
    starts = dataclasses.replace(condition.starts, sensing=IMPAIRMENTS[LATE])
    return dataclasses.replace(condition, name=f"{condition.name}-{LATE}", starts=starts)


def figure(estimates: Mapping[str, Estimate], condition: str, metric: str) -> str:
    """Value and interval; where platforms are lost altogether, the mean of the others and their number."""
    whole = estimates[f"{condition}/{metric}"]
    each = [estimates[f"{condition}/{name}/{metric}"].value for name in PLATFORMS]
    kept = [value for value in each if not math.isnan(value)]
    if kept and len(kept) < len(each):
        return f"{sum(kept) / len(kept):.3f} of {len(kept)}"
    return cell(whole, metric)


def table(theirs: Evaluation, ours: Evaluation) -> Table:
    """RMSE and share lost in MuJoCo, and in our own physics; bold is better than the first beyond both intervals."""
    shown = Table("in MuJoCo (in our own physics)", *theirs.policies)
    for heading, (suite, condition, metric) in FIGURES.items():
        first, texts = next(iter(theirs.policies.values()))[suite][f"{condition}/{metric}"], []
        for there, here in zip(theirs.policies.values(), ours.policies.values(), strict=True):
            own = figure(here[suite], condition, metric).partition(" ")[0]
            wins = better(there[suite][f"{condition}/{metric}"], first, metric)
            texts.append(Text(f"{figure(there[suite], condition, metric)} ({own})", style="bold" if wins else ""))
        shown.add_row(heading, *texts)
    return shown


def fly(policies: Mapping[str, Policy], starts: int, seed: int, drag: tuple[float, float] | None) -> Evaluation:
    """Every figure of the policies in MuJoCo, or without drag in our own physics."""
    simulate = None if drag is None else MujocoSimulator(drag=drag, seed=seed)
    with counting(Console(stderr=True)) as progress:
        results, how = evaluate_conditions(policies, planned(starts, seed), seed, progress, False, simulate)
    told = {"simulator": "raptor"} if drag is None else {"simulator": "mujoco", "drag": drag, "time_step_s": TIME_STEP}
    return Evaluation(results, {"starts": starts, "seed": seed, **told, **how})


def keep(evaluation: Evaluation, path: Path) -> None:
    """Write the figures that tables show, to five digits: a file for the repository."""
    document = evaluation.to_dict()

    def short(metric: str, estimate: dict[str, float | None]) -> dict[str, float | None] | None:
        if metric.split("/")[-1] not in METRICS:
            return None
        return {key: None if value is None else float(f"{value:.5g}") for key, value in estimate.items()}

    for suites in document["policies"].values():
        for suite, metrics in suites.items():
            suites[suite] = {key: kept for key, value in metrics.items() if (kept := short(key, value)) is not None}
    write_atomically(path, json.dumps(document, separators=(",", ":"), allow_nan=False) + "\n")


def main() -> None:
    """Fly, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("policies", nargs="*", default=list(POLICY_NAMES))
    parser.add_argument("--starts", type=int, default=4, help="of each vehicle")
    parser.add_argument("--drag", type=float, nargs=2, default=(0.1, 0.3), metavar=("LOW", "HIGH"), help="1/s")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=Path("runs/mujoco.json"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    names = column_names(arguments.policies)
    policies: dict[str, Policy] = {name: load_policy(source) for source, name in names.items()}
    theirs = fly(policies, arguments.starts, arguments.seed, tuple(arguments.drag))
    keep(theirs, arguments.output)
    ours = fly(policies, arguments.starts, arguments.seed, None)
    wide_console().print(table(theirs, ours))


if __name__ == "__main__":
    main()
