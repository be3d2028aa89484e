"""Uniform replay, prioritised replay and 3-step returns side by side, learning with soft actor-critic.

    python benchmarks/replay_learning.py [--num-steps 64000] [--num-seeds 3] [--output runs/replay] [--write]

Each method trains the Crazyflie and two sampled vehicles, three times each from other seeds, all in one program. What
is printed and drawn is the validation return over steps: the mean over vehicles, and its 95 % interval over seeds.
What a method learnt is kept in the output folder, so that a run that was stopped goes on with the next method. With
--write, the figures go to docs/experiments/replay.json and the picture to docs/images/replay.png.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from pathlib import Path
from typing import Any

import matplotlib
import torch
from matplotlib.figure import Figure
from rich.console import Console
from rich.progress import track
from rich.table import Table

from raptor import Quadrotors, load_platform, sample_quadrotors
from raptor.core.atomic import write_atomically
from raptor.core.plotting import COLOURS, STYLE, grid, to_png
from raptor.rl.curriculum import Curriculum, CurriculumConfig, Stage
from raptor.rl.teacher_test import TeacherTest
from raptor.tasks import Task
from raptor.training.teachers.sac import SACTeachers, SACTeachersConfig
from raptor.training.teachers.shard import VALIDATION_SEED

ROOT = Path(__file__).parents[1]
METHODS: dict[str, dict[str, Any]] = {
    "uniform": {},
    "prioritised": {"kind": "prioritised"},
    "3-step": {"n_step": 3},
}
STUDENT_T = {2: 12.71, 3: 4.303, 4: 3.182, 5: 2.776}
"""Quantile 97.5 % of Student's distribution for so many seeds."""


def vehicles(num_seeds: int) -> Quadrotors:
    """The three vehicles, all of them once for each seed."""
    crazyflie = dataclasses.replace(load_platform("crazyflie"), names=None, documents=None)
    three = Quadrotors.concatenate([crazyflie, sample_quadrotors(2, seed=0)])
    return Quadrotors.concatenate([three] * num_seeds).component_major()


def learn(method: dict[str, Any], num_steps: int, num_seeds: int, num_points: int, label: str) -> dict[str, Any]:
    """Train, and validate `num_points` times; returns (points, seeds) means over vehicles."""
    quadrotors = vehicles(num_seeds)
    base = SACTeachersConfig(num_steps=num_steps)
    config = dataclasses.replace(base, replay=dataclasses.replace(base.replay, capacity=num_steps, **method))
    curriculum = Curriculum(CurriculumConfig(stages=(Stage("task"),)), Task(), len(quadrotors))
    teachers = SACTeachers(config, Task(), quadrotors, curriculum, seed=1)
    test = TeacherTest(Task(), quadrotors, 32, VALIDATION_SEED)
    every = max(1, config.num_blocks // num_points)
    steps, returns, start = [], [], time.perf_counter()
    for number in track(range(1, config.num_blocks + 1), label, console=Console(stderr=True)):
        while teachers.step_count < number:
            teachers.update()
        if number % every == 0:
            flights = test(teachers.teachers())
            steps.append(teachers.env_steps)
            returns.append(flights.returns.mean(1).view(num_seeds, -1).mean(1).tolist())
    return {"steps": steps, "returns": returns, "seconds": time.perf_counter() - start}


def interval(returns: list[list[float]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean over seeds and half of its interval, at each point."""
    table = torch.tensor(returns, dtype=torch.float64)
    num = table.shape[1]
    return table.mean(1), STUDENT_T[num] * table.std(1) / num**0.5


def picture(curves: dict[str, dict[str, Any]]) -> Figure:
    """The curves with their intervals."""
    with matplotlib.rc_context(STYLE):
        figure, axes = grid(1, 1, (7.0, 4.2))
        axis = axes[0, 0]
        for (name, curve), colour in zip(curves.items(), COLOURS, strict=False):
            mean, half = interval(curve["returns"])
            steps = torch.tensor(curve["steps"]) / 1000
            axis.plot(steps, mean, color=colour, lw=1.8, label=name)
            axis.fill_between(steps, mean - half, mean + half, color=colour, alpha=0.18, lw=0)
        axis.set_xlabel("steps of each teacher (thousands)")
        axis.set_ylabel("validation return")
        axis.legend(loc="lower right")
    return figure


def main() -> None:
    """Train with each method, print, and write on request."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--num-steps", type=int, default=64_000)
    parser.add_argument("--num-seeds", type=int, default=3, choices=STUDENT_T)
    parser.add_argument("--num-points", type=int, default=16)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output", type=Path, default=Path("runs/replay"))
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    path = ROOT / "docs" / "experiments" / "replay.json"
    curves: dict[str, dict[str, Any]] = {}
    sizes = arguments.num_steps, arguments.num_seeds, arguments.num_points
    for name, method in METHODS.items():
        kept = arguments.output / f"{name}_{'_'.join(map(str, sizes))}.json"
        if not kept.exists():
            write_atomically(kept, json.dumps(learn(method, *sizes, name)))
        curves[name] = json.loads(kept.read_text(encoding="utf-8"))
    table = Table(title=f"validation return, {arguments.num_seeds} seeds, 95 % intervals")
    table.add_column("")
    shares = (0.25, 0.5, 0.75, 1.0)
    for share in shares:
        table.add_column(f"{share * arguments.num_steps:,.0f} steps", justify="right")
    table.add_column("time (s)", justify="right")
    for name, curve in curves.items():
        mean, half = interval(curve["returns"])
        places = [max(0, round(share * len(mean)) - 1) for share in shares]
        table.add_row(name, *(f"{mean[i]:.0f} ± {half[i]:.0f}" for i in places), f"{curve['seconds']:.0f}")
    Console(width=120).print(table)
    if arguments.write:
        write_atomically(path, f"{json.dumps(curves, indent=1)}\n")
        write_atomically(ROOT / "docs" / "images" / "replay.png", to_png(picture(curves)))


if __name__ == "__main__":
    main()
