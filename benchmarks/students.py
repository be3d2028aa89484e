"""Distil students with one thing changed at a time, at one small budget, and put what came of it into the docs.

    python benchmarks/students.py runs/teachers [--full runs/student] [--output runs/students] [--write]

Each student imitates for 30 epochs of 3000 flights of 160 steps, however many teachers they are shared by, and nothing
more; then it flies 2048 test vehicles of the suite `unseen`. Runs are kept in the output folder: one that was stopped
goes on, one that is done is not run again. `--full` names a whole run of `raptor post-train`, whose learning curve is
drawn beside that of the published run. With --write, the figures go to docs/experiments/students.json and the pictures
to docs/images.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import matplotlib
import torch
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from raptor import load_policy, load_teachers
from raptor.cli.progress import job_progress
from raptor.config import load_config
from raptor.core.atomic import write_atomically
from raptor.core.plotting import COLOURS, FAINT, STYLE, grid, to_png
from raptor.evaluation import evaluate
from raptor.runs import read_curve
from raptor.training import PostTrainConfig, post_train

ROOT = Path(__file__).parents[1]
BUDGET = ("num_epochs=30", "fine_tune.num_updates=0", "validation_interval=5")
FLIGHTS = 3000
NUM_TEACHERS = (16, 64, 250, 1000)
VARIANTS: dict[str, tuple[str, ...]] = {
    "GRU 4": ("student.hidden_dim=4",),
    "GRU 8": ("student.hidden_dim=8",),
    "GRU 16": (),
    "GRU 32": ("student.hidden_dim=32",),
    "GRU 64": ("student.hidden_dim=64",),
    "MLP 64": ("student=mlp", "student.hidden_dim=64"),
    "target hidden": ("target_visible=false",),
    "without offset correction": ("steady_state_position_correction=false",),
    "on-policy": ("on_policy=true",),
    "whole episodes": ("task.episode_steps=500", "sequence_length=500", "batch_size=61", "num_data_epochs=3"),
}
PUBLISHED = ((1.2, -56.0), (3.3, 319.0), (4.7, 472.0), (118.7, 618.0))
"""Minutes and mean return of the published run's log; of its training flights, the target hidden."""


def distil(teachers: Path, num_teachers: int, settings: tuple[str, ...], output: Path) -> dict[str, Any]:
    """Train one student and put it to the suite `unseen`; nothing is done twice."""
    kept = output / "unseen.json"
    if kept.exists():
        found: dict[str, Any] = json.loads(kept.read_text(encoding="utf-8"))
        return found
    config = load_config(PostTrainConfig, None, [*BUDGET, f"num_episodes={round(FLIGHTS / num_teachers)}", *settings])
    console = Console(stderr=True)
    console.print(f"{output.name}: {num_teachers} teachers {' '.join(settings)}", highlight=False)
    with job_progress(console) as progress:
        summary = post_train(output, load_teachers(teachers)[:num_teachers], config, resume=True, progress=progress)
    if not summary.finished:
        raise SystemExit(f"stopped; call it again to go on with {output}")
    policy = load_policy(output)
    metrics = evaluate({"student": policy}, ["unseen"]).policies["student"]["unseen"]
    found = {
        "teachers": num_teachers,
        "parameters": policy.num_parameters,
        "seconds": summary.wall_clock_s,
        **{name: metrics[name].to_dict() for name in ("return", "terminated", "position_rmse")},
    }
    write_atomically(kept, json.dumps(found))
    return found


def teachers_figure(results: dict[str, Any]) -> Figure:
    """Return and termination rate over the number of teachers."""
    with matplotlib.rc_context(STYLE):
        figure, axes = grid(1, 2, (8.0, 3.6))
        numbers = list(NUM_TEACHERS)
        rows = [results[f"{number} teachers"] for number in numbers]
        for axis, name, label, factor in (
            (axes[0, 0], "return", "return on unseen quadrotors (at most 750)", 1.0),
            (axes[0, 1], "terminated", "terminated (%)", 100.0),
        ):
            mean = [factor * row[name]["value"] for row in rows]
            low, high = ([factor * row[name][end] for row in rows] for end in ("low", "high"))
            axis.fill_between(numbers, low, high, color=COLOURS[0], alpha=0.2, lw=0)
            axis.plot(numbers, mean, "o-", color=COLOURS[0], lw=1.8)
            axis.set_xscale("log")
            axis.set_xticks(numbers, [str(number) for number in numbers])
            axis.minorticks_off()
            axis.set_xlabel("teachers, at equal numbers of flights")
            axis.set_ylabel(label)
            axis.set_ylim(bottom=0, top=750 if name == "return" else None)
    return figure


def curve_figure(curve: dict[str, list[tuple[float, float]]]) -> Figure:
    """Return over minutes of a whole run, beside the published run."""
    clock = dict(curve["speed/elapsed_s"])
    with matplotlib.rc_context(STYLE):
        figure, axes = grid(1, 1, (7.0, 4.0))
        axis = axes[0, 0]
        points = curve["evaluation/mean_return"]
        tuning = {epoch for epoch, _ in curve.get("fine_tuning/loss", [])}
        imitating = [(clock[e] / 60, value) for e, value in points if e not in tuning]
        after = [(clock[e] / 60, value) for e, value in points if e in tuning]
        axis.plot(*zip(*imitating, strict=True), color=COLOURS[0], lw=1.8, label="imitation, unseen vehicles")
        if after:
            axis.plot(
                *zip(*[imitating[-1], *after], strict=True),
                color=COLOURS[2],
                lw=1.8,
                label="fine-tuning, unseen vehicles",
            )
        axis.plot(*zip(*PUBLISHED, strict=True), "s--", color=COLOURS[1], lw=1.2, label="published run, its own log")
        axis.axhline(618, color=FAINT, lw=0.8, ls=":", label="end of the published run")
        axis.set_xscale("log")
        axis.set_xticks([0.5, 1, 2, 5, 10, 20, 50, 100], ["0.5", "1", "2", "5", "10", "20", "50", "100"])
        axis.minorticks_off()
        axis.set_xlabel("minutes")
        axis.set_ylabel("mean return")
        axis.legend(loc="lower right")
    return figure


def show(results: dict[str, Any]) -> Table:
    """All students, one row each."""
    table = Table(title="imitation alone, 30 epochs of 3000 flights; suite unseen, 95 % intervals over vehicles")
    for column in ("", "teachers", "parameters", "return", "terminated (%)", "RMSE (m)", "time (s)"):
        table.add_column(column, justify="left" if not column else "right")
    for name, row in results.items():
        r, t, e = row["return"], row["terminated"], row["position_rmse"]
        table.add_row(
            name,
            str(row["teachers"]),
            str(row["parameters"]),
            f"{r['value']:.1f} [{r['low']:.1f}, {r['high']:.1f}]",
            f"{100 * t['value']:.2f} [{100 * t['low']:.2f}, {100 * t['high']:.2f}]",
            f"{e['value']:.3f}",
            f"{row['seconds']:.0f}",
        )
    return table


def main() -> None:
    """Train what is missing, print, and write on request."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("teachers", type=Path)
    parser.add_argument("--full", type=Path, help="a whole run of raptor post-train")
    parser.add_argument("--output", type=Path, default=Path("runs/students"))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only-done", action="store_true", help="train nothing, show what is there")
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    wanted = {f"{number} teachers": (number, ()) for number in NUM_TEACHERS}
    wanted |= {name: (max(NUM_TEACHERS), settings) for name, settings in VARIANTS.items()}
    results = {}
    for name, (number, settings) in wanted.items():
        same = "1000 teachers" if not settings and number == max(NUM_TEACHERS) else name
        folder = arguments.output / same.replace(" ", "-").lower()
        if arguments.only_done and not (folder / "unseen.json").exists():
            continue
        results[name] = distil(arguments.teachers, number, settings, folder)
    console = Console(width=130)
    console.print(show(results))
    document: dict[str, Any] = {"students": results}
    pictures = {}
    if all(f"{number} teachers" in results for number in NUM_TEACHERS):
        pictures["students_teachers.png"] = teachers_figure(results)
    if arguments.full:
        curve = read_curve(arguments.full)
        document["full"] = json.loads((arguments.full / "summary.json").read_text(encoding="utf-8"))
        clock = dict(curve["speed/elapsed_s"])
        document["curve"] = [[clock[e] / 60, value] for e, value in curve["evaluation/mean_return"]]
        for minutes, published in PUBLISHED:
            reached = [value for at, value in document["curve"] if at <= minutes]
            ours = f"{reached[-1]:.1f}" if reached else "none yet"
            console.print(f"after {minutes:g} minutes: {ours}, published {published:g}", highlight=False)
        pictures["students_curve.png"] = curve_figure(curve)
    if arguments.write:
        document.get("full", {}).pop("output", None)
        write_atomically(ROOT / "docs" / "experiments" / "students.json", f"{json.dumps(document, indent=1)}\n")
        for name, figure in pictures.items():
            write_atomically(ROOT / "docs" / "images" / name, to_png(figure))


if __name__ == "__main__":
    main()
