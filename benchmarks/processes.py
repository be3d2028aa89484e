"""Training with processes=auto and in one process, on a quiet machine and beside a program that keeps a core busy.

    python benchmarks/processes.py [--seconds 5] [--rounds 5] [--batch 1024] [--threads 2]

Each round measures all of them in turn, and speeds are compared within a round. The neighbour begins in the middle of
a run; in the last rows it is there before the other processes begin. With --threads, also in one process of so many
threads.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import torch
from rich.console import Console
from rich.table import Table

from raptor.core.pool import Pool, num_processes
from raptor.training.direct.config import TrainDirectConfig
from raptor.training.direct.job import first_policy, make_learner
from raptor.training.direct.learner import GradientLearner


@contextlib.contextmanager
def neighbour() -> Iterator[None]:
    """Another program that keeps one core busy."""
    process = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        yield
    finally:
        process.kill()
        process.wait()


def learner(batch: int, pool: Pool | None = None) -> GradientLearner:
    """One that has compiled what it needs."""
    config = TrainDirectConfig(batch_size=batch, validation_interval=0)
    made = make_learner(config, first_policy(config), pool=pool)
    made.update()
    return made


def speed(one: GradientLearner, seconds: float, threads: int = 1) -> float:
    """Updates per second over some seconds, the first one included."""
    torch.set_num_threads(threads)
    begun, num = time.perf_counter(), 0
    while time.perf_counter() - begun < seconds:
        one.update()
        num += 1
    torch.set_num_threads(1)
    return num / (time.perf_counter() - begun)


def wait_for(pool: Pool, one: GradientLearner) -> None:
    """Update until all other processes take part."""
    while len(pool._ready) < len(pool._helpers):
        one.update()
    for _ in range(20):
        one.update()


def measure(batch: int, rounds: int, seconds: float, threads: int) -> dict[str, list[float]]:
    """Speeds by what is measured, one for each round."""
    found: dict[str, list[float]] = {}
    torch.set_num_threads(threads)
    threaded = learner(batch) if threads > 1 else None
    torch.set_num_threads(1)
    alone = learner(batch)

    def note(name: str, value: float) -> None:
        found.setdefault(name, []).append(value)

    def note_all(where: str, each: Callable[[GradientLearner], float]) -> None:
        note(f"one process, {where}", each(alone))
        note(f"processes=auto, {where}", each(shared))
        if threaded is not None:
            note(f"{threads} threads, {where}", speed(threaded, seconds, threads))

    with Pool(num_processes("auto")) as pool:
        shared = learner(batch, pool)
        wait_for(pool, shared)
        for _ in range(rounds):
            note_all("quiet", lambda one: speed(one, seconds))
            with neighbour():
                note_all("beside a neighbour", lambda one: speed(one, seconds))
    for _ in range(rounds):
        note("one process, quiet again", speed(alone, seconds))
        with neighbour(), Pool(num_processes("auto")) as late:
            note("processes=auto, begun beside it", speed(learner(batch, late), seconds))
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch", type=int, default=1024)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    found = measure(arguments.batch, arguments.rounds, arguments.seconds, arguments.threads)
    table = Table(title=f"{arguments.batch} quadrotors, {num_processes('auto')} processes")
    for column in ("", "updates/s", "of one process, quiet", "lowest", "highest"):
        table.add_column(column, justify="left" if not column else "right")
    for name, speeds in found.items():
        free = found["one process, quiet again" if "again" in name or "begun" in name else "one process, quiet"]
        ratios = [speed / alone for speed, alone in zip(speeds, free, strict=True)]
        numbers = (statistics.median(speeds), statistics.median(ratios), min(ratios), max(ratios))
        table.add_row(name, *(f"{number:.2f}" for number in numbers))
    Console().print(table)


if __name__ == "__main__":
    main()
