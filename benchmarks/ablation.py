"""What each part of the recipe of `raptor train-direct` is worth: short trainings without one of them at a time.

    python benchmarks/ablation.py [KEY=VALUE ...] [--output runs/ablation] [--num-quadrotors 1024] [--only NAME ...]

Goes on with the runs that are there. The vehicles that are flown are those of neither training nor the results.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.console import Console
from rich.table import Table

from raptor.cli.progress import counting, job_progress, wide_console
from raptor.evaluation import Policy, evaluate
from raptor.evaluation.results import cell
from raptor.formats import load_policy
from raptor.training import load_run_config, train_direct

SEED = 500
WITHOUT: dict[str, list[str]] = {
    "the recipe": [],
    "no imperfections": ["task.clean_share=1"],
    "no noise": ["task.noise_share=0"],
    "no bias, no lost samples": [
        *(f"task.sensing.{name}_bias=0" for name in ("position", "orientation", "linear_velocity", "angular_velocity")),
        "task.sensing.lost=[0,0]",
    ],
    "no delay of sensors": ["task.sensing.observation_delay=[0,0]", "task.sensing.velocity_delay=[0,0]"],
    "no delay of motors": ["task.sensing.action_delay=[0,0]"],
    "motors as modelled": ["task.motors.thrust=[1,1]", "task.motors.weakest=[1,1]", "task.motors.sag=[0,0]"],
    "no drag, no wind": ["task.air.drag=[0,0]"],
    "no limits, steps of 10 ms": [
        "task.deployment.position_limit=null",
        "task.deployment.velocity_limit=null",
        "task.deployment.dt_factor=[1,1]",
    ],
    "distrust from the first update": ["distrust=[0,0]"],
    "no cost of velocity errors": ["objective.velocity=0"],
    "no cost of tracking": ["objective.tracking=0"],
    "segments of 1 s": ["segment_steps=100", "batch_size=1024"],
    "Adam": ["optimizer=adam"],
}
FIGURES = {
    "clean": ("unseen", "return"),
    "lost (%)": ("unseen", "terminated"),
    "noise": ("robustness", "noise/return"),
    "20 ms late": ("robustness", "20ms-late/return"),
    "motors 20 ms": ("robustness", "motors-20ms-late/return"),
    "thrust 0.8": ("robustness", "thrust-0.8/return"),
    "5 s figure (m)": ("figure-eight", "5s/position_rmse"),
    "hover (m)": ("platforms", "position_rmse"),
}


def main() -> None:
    """Train, evaluate and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("runs/ablation"))
    parser.add_argument("--num-quadrotors", type=int, default=1024)
    parser.add_argument("--only", nargs="+", choices=WITHOUT, metavar="NAME", help="; ".join(WITHOUT))
    parser.add_argument("settings", nargs="*", help="of every training")
    options = parser.parse_args()
    table = Table("", *FIGURES)
    for name in options.only or WITHOUT:
        run = options.output / name.replace(" ", "-").replace(",", "")
        config = load_run_config(run, None, [*options.settings, *WITHOUT[name]], True)
        with job_progress(Console(stderr=True)) as progress:
            train_direct(run, config, resume=True, progress=progress)
        policies: dict[str, Policy] = {name: load_policy(run)}
        suites = tuple(dict.fromkeys(suite for suite, _ in FIGURES.values()))
        with counting(Console(stderr=True)) as progress:
            found = evaluate(policies, suites, options.num_quadrotors, seed=SEED, progress=progress).policies[name]
        figures = [cell(found[suite][key], key.split("/")[-1]) for suite, key in FIGURES.values()]
        table.add_row(name, *figures)
    wide_console().print(table)


if __name__ == "__main__":
    main()
