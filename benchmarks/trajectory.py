"""A trajectory from a file at 4 m/s, flown by a policy that is trained on it, beside the published one and `default`.

    python benchmarks/trajectory.py [--output runs/trajectory] [--starts 4] [--plot FILE.png] [KEY=VALUE ...]

Writes the file, trains on it or goes on with a run that is there, and prints the RMSE on each named quadrotor.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from rich.console import Console

from raptor.cli.progress import counting, duration, job_progress, wide_console
from raptor.core.atomic import write_atomically
from raptor.core.plotting import to_png
from raptor.evaluation import Policy, evaluate, plots
from raptor.formats import load_policy
from raptor.training import load_run_config, train_direct

LENGTH, WIDTH, HEIGHT, SPEED, DT = 12.0, 6.0, 1.0, 4.0, 0.02  # m, m, m, m/s, s
SETTINGS = (
    *("initial_policy=default", "distrust=[0,0]", "num_updates=200", "batch_size=512", "learning_rate=1e-2"),
    "num_validation=256",
)


def write_lap(path: Path) -> None:
    """A lying figure eight at constant speed, the path cut into pieces of equal length."""
    s = np.linspace(0, 2 * np.pi, 20_001)

    def places(s: np.ndarray) -> np.ndarray:
        return np.stack([LENGTH / 2 * np.sin(s), WIDTH / 2 * np.sin(2 * s), HEIGHT / 2 * (1 - np.cos(s))], axis=1)

    far = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(places(s), axis=0), axis=1))])
    num = round(far[-1] / SPEED / DT)
    rows = places(np.interp(np.linspace(0, far[-1], num + 1), far, s))
    lines = [f"{i * DT:.2f}," + ",".join(f"{x:.6f}" for x in row) for i, row in enumerate(rows)]
    write_atomically(path, "\n".join(["t,x,y,z", *lines, ""]))


def main() -> None:
    """Train, evaluate and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("runs/trajectory"))
    parser.add_argument("--starts", type=int, default=4, help="of each vehicle")
    parser.add_argument("--plot", type=Path)
    parser.add_argument("settings", nargs="*")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    lap, run = options.output / "lap.csv", options.output / "run"
    write_lap(lap)
    followed = f"task.references.trajectory={lap}", "task.termination.about_target=true"
    config = load_run_config(run, None, [*SETTINGS, *followed, *options.settings], True)
    with job_progress(Console(stderr=True)) as progress:
        summary = train_direct(run, config, resume=True, progress=progress)
    policies: dict[str, Policy] = {name: load_policy(name) for name in ("published", "default")}
    policies["trained with it"] = load_policy(run)
    with counting(Console(stderr=True)) as progress:
        how = {"num_quadrotors": 32 * options.starts, "progress": progress, "reference": str(lap)}
        evaluation = evaluate(policies, ["reference"], **how)
    print(f"{summary.num_steps} updates in {duration(summary.wall_clock_s)}")
    wide_console().print(evaluation.table())
    if options.plot is not None:
        flown = {name: plots.record_reference(policy, str(lap)) for name, policy in policies.items()}
        write_atomically(options.plot, to_png(plots.reference(flown)))


if __name__ == "__main__":
    main()
