"""Summarise runs of `raptor pre-train`, and put what the docs show into docs/experiments and docs/images.

    python benchmarks/teachers.py runs/teachers [--beside runs/gradient-4 runs/sac-4] [--write]

The first run is a whole population: what is printed are the last tests of its teachers, 100 episodes each, that nothing
was chosen by. The runs beside it are of a few vehicles each, the same in all of them; their learning curves are drawn
on one axis of training time per teacher. With --write, the summary goes to docs/experiments/teachers.json and the
pictures to docs/images.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import torch
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from raptor import TeacherPopulation, load_teachers
from raptor.core.atomic import write_atomically
from raptor.core.plotting import COLOURS, INK, STYLE, grid, to_png
from raptor.training.teachers.plots import plot_teachers

ROOT = Path(__file__).parents[1]
QUANTILES = (0.0, 0.01, 0.1, 0.5, 0.9, 1.0)
MILESTONES = (20_000, 50_000, 100_000, 200_000, 500_000, 1_000_000)
"""Steps of each teacher at which curves are read off."""


def summarise(run: Path, teachers: TeacherPopulation) -> dict[str, Any]:
    """The figures of a population."""
    document = json.loads((run / "summary.json").read_text(encoding="utf-8"))
    returns = torch.tensor([record["return"] for record in teachers.records], dtype=torch.float64)
    terminated = [record["termination_rate"] for record in teachers.records]
    offsets = torch.tensor([record["position_offset"] for record in teachers.records], dtype=torch.float64)
    attempts = [record["attempts"] for record in teachers.records]
    seconds = document["training_s"]
    half = 1.96 * float(returns.std()) / len(returns) ** 0.5
    return {
        "teachers": len(teachers),
        "solved": sum(bool(record["solved"]) for record in teachers.records),
        "unsolved": list(document["unsolved"]),
        "return": {
            "mean": float(returns.mean()),
            "low": float(returns.mean()) - half,
            "high": float(returns.mean()) + half,
            "quantiles": {f"{share:g}": float(returns.quantile(share)) for share in QUANTILES},
        },
        "termination_rate": sum(terminated) / len(terminated),
        "position_offset_m": float(torch.linalg.vector_norm(offsets, dim=1).mean()),
        "trained_again": sum(attempt > 1 for attempt in attempts),
        "env_steps": document["env_steps"],
        "training_s": sum(seconds.values()),
        "shards": len(seconds),
        "episodes_begun_anew": document["diverged"],
        "updates_left_out": document["skipped"],
        "host": document["host"],
    }


def table_of(summary: dict[str, Any]) -> Table:
    """The summary for people."""
    table = Table(show_header=False, box=None)
    estimate = summary["return"]
    rows = {
        "teachers": f"{summary['teachers']}, {summary['solved']} solved",
        "not solved": ", ".join(summary["unsolved"]) or "none",
        "mean return": f"{estimate['mean']:.1f} [{estimate['low']:.1f}, {estimate['high']:.1f}]",
        "quantiles": ", ".join(f"{float(share):.0%} {value:.0f}" for share, value in estimate["quantiles"].items()),
        "terminated": f"{summary['termination_rate']:.2%}",
        "position offset": f"{summary['position_offset_m']:.3f} m",
        "trained again": f"{summary['trained_again']} teachers",
        "env-steps": f"{summary['env_steps']:.3g}",
        "time of all shards": f"{summary['training_s'] / 60:.1f} min, {summary['shards']} shards",
        "contained": f"{summary['episodes_begun_anew']} episodes begun anew, {summary['updates_left_out']} updates",
    }
    for name, text in rows.items():
        table.add_row(name, text)
    return table


def curves_of(run: Path) -> tuple[str, dict[str, list[tuple[float, float, float]]]]:
    """The algorithm of a run, and for each vehicle: seconds of training per teacher, steps, return."""
    records = load_teachers(run).records
    curves: dict[str, list[tuple[float, float, float]]] = {}
    for shard in json.loads((run / "curves.json").read_text(encoding="utf-8")):
        for place, teacher in enumerate(shard["teachers"]):
            curves[records[teacher]["name"]] = [
                (point["elapsed_s"] / len(shard["teachers"]), point["env_steps"], point["returns"][place])
                for point in shard["points"]
                if point["returns"][place] is not None
            ]
    return records[0]["algorithm"], curves


def milestones(curves: dict[str, list[tuple[float, float, float]]]) -> Table:
    """Return of each vehicle after so many steps, and at its best."""
    table = Table(title="soft actor-critic, preset paper: return after so many steps")
    table.add_column("vehicle")
    for steps in MILESTONES:
        table.add_column(f"{steps:,}", justify="right")
    table.add_column("best", justify="right")
    for name, points in curves.items():
        at = {steps: value for _, steps, value in points}
        cells = [f"{at[steps]:.1f}" if steps in at else "" for steps in MILESTONES]
        table.add_row(name, *cells, f"{max(value for _, _, value in points):.1f}")
    return table


def picture(runs: list[tuple[str, dict[str, list[tuple[float, float, float]]]]]) -> Figure:
    """Validation return over training time per teacher, a panel for each vehicle."""
    names = list(runs[0][1])
    with matplotlib.rc_context(STYLE):
        figure, axes = grid(1, len(names), (3.1 * len(names), 3.4), sharey=True)
        for axis, name in zip(axes[0], names, strict=True):
            for (algorithm, curves), colour in zip(runs, COLOURS, strict=False):
                points = np.array(curves[name])
                label = {"apg": "gradient", "sac": "soft actor-critic"}[algorithm]
                axis.plot(points[:, 0], points[:, 2], color=colour, lw=1.6, label=label)
            axis.set_xscale("log")
            axis.set_title(name)
            axis.set_xlabel("training time per teacher (s)")
            axis.axhline(750, color=INK, lw=0.6, ls=":")
        axes[0, 0].set_ylabel("validation return (at most 750)")
        axes[0, 0].legend(frameon=False, loc="lower right", labelcolor="linecolor")
    return figure


def main() -> None:
    """Print, and write on request."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--beside", type=Path, nargs="*", default=[], help="runs of the same few vehicles")
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args()
    console, images = Console(width=120), ROOT / "docs" / "images"
    teachers = load_teachers(arguments.run)
    summary = summarise(arguments.run, teachers)
    console.print(table_of(summary))
    beside = [curves_of(run) for run in arguments.beside]
    names = list(beside[0][1]) if beside else []  # the first run says what the vehicles are called in all of them
    beside = [(algorithm, dict(zip(names, curves.values(), strict=True))) for algorithm, curves in beside]
    for algorithm, curves in beside:
        if algorithm == "sac":
            console.print(milestones(curves))
    if not arguments.write:
        return
    summary["beside"] = dict(beside)
    text = json.dumps(summary, indent=1)
    write_atomically(ROOT / "docs" / "experiments" / "teachers.json", f"{text}\n")
    write_atomically(images / "teachers.png", to_png(plot_teachers(teachers)))
    if beside:
        write_atomically(images / "teachers_curves.png", to_png(picture(beside)))


if __name__ == "__main__":
    main()
