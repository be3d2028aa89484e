"""Env-steps per second of training through the simulator, and of imitation, on 1, 2, ... GPUs of this machine.

    python benchmarks/several_gpus.py                         # 1, 2, 4, ... up to all GPUs
    python benchmarks/several_gpus.py --device cpu --most 2   # processes of one thread each, over gloo

Each row is a run of its own under torchrun with the same batch for all, so that the ratio to one process is what more
of them save of the time of the same training.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from raptor.core.distributed import World, process_group
from raptor.nn.stacked_mlp import initial_layers
from raptor.nn.teachers import TeacherPopulation
from raptor.quadrotor import sample_quadrotors
from raptor.tasks.task import Task
from raptor.training.direct.config import TrainDirectConfig
from raptor.training.direct.job import first_policy, make_learner
from raptor.training.distillation.config import PostTrainConfig
from raptor.training.distillation.learner import Distiller, first_student
from raptor.training.distillation.sources import SimulatorSource

Rates = dict[str, float]


def wait(device: str) -> None:
    """Let the device finish."""
    if device == "cuda":
        torch.cuda.synchronize()


def direct_rate(arguments: argparse.Namespace, world: World) -> float:
    """Env-steps per second of whole updates; the median."""
    config = TrainDirectConfig(
        batch_size=arguments.batch_size, validation_interval=0, device=arguments.device, compile=arguments.compile
    )
    learner = make_learner(config, first_policy(config), world)
    learner.update()
    times = []
    for _ in range(arguments.updates):
        wait(arguments.device)
        start = time.perf_counter()
        learner.update()
        wait(arguments.device)
        times.append(time.perf_counter() - start)
    return config.batch_size * config.segment_steps / sorted(times)[len(times) // 2]


def imitation_rate(arguments: argparse.Namespace, world: World) -> float:
    """Env-steps per second that are flown, and learned from once, in an epoch; the second one."""
    config = PostTrainConfig(
        device=arguments.device,
        compile=arguments.compile,
        on_policy=True,
        num_epochs=2,
        epoch_teacher_forcing=0,
        batch_size=arguments.sequences,
        task=Task(episode_steps=arguments.episode_steps),
    )
    num = arguments.teachers
    layers = initial_layers(num, (26, 64, 64, 4), torch.Generator().manual_seed(0))
    teachers = TeacherPopulation(layers, sample_quadrotors(num, seed=0))
    distiller = Distiller(config, first_student(config.student, 0), SimulatorSource(config, teachers, world))
    distiller.update()
    wait(arguments.device)
    start = time.perf_counter()
    distiller.update()
    wait(arguments.device)
    return num * config.num_episodes * arguments.episode_steps / (time.perf_counter() - start)


def measure(arguments: argparse.Namespace) -> None:
    """One process of a run; the first one writes what was found."""
    with process_group(arguments.device) as world:
        rates = {"train-direct": direct_rate(arguments, world), "imitation": imitation_rate(arguments, world)}
        if world.is_main_process:
            Path(arguments.measure).write_text(json.dumps(rates))


def run(num: int, given: list[str]) -> Rates:
    """Measure with so many processes."""
    with tempfile.TemporaryDirectory() as folder:
        found = Path(folder) / "rates.json"
        starter = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={num}"]
        command = [*(starter if num > 1 else [sys.executable]), __file__, *given, "--measure", str(found)]
        subprocess.run(command, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
        rates: Rates = json.loads(found.read_text())
        return rates


def counts(most: int) -> list[int]:
    """1, 2, 4, ... and the most."""
    return sorted({most, *(2**i for i in range(most.bit_length()) if 2**i <= most)})


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--most", type=int, help="processes; by default as many as there are GPUs, or 2 on a cpu")
    parser.add_argument("--batch-size", type=int, default=16384, help="vehicles of train-direct flown at once")
    parser.add_argument("--teachers", type=int, default=1024)
    parser.add_argument("--sequences", type=int, default=2048, help="of a batch of imitation")
    parser.add_argument("--episode-steps", type=int, default=500)
    parser.add_argument("--updates", type=int, default=9)
    parser.add_argument("--no-compile", dest="compile", action="store_false")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        measure(arguments)
        return
    console, num_gpus = Console(), torch.cuda.device_count()
    most = arguments.most or (num_gpus if arguments.device == "cuda" else 2)
    if arguments.device == "cuda" and num_gpus < max(1, most):
        there = "no GPU" if num_gpus == 0 else f"{num_gpus} GPU{'s' * (num_gpus > 1)}"
        console.print(f"this machine has {there}: take fewer, or processes instead with --device cpu --most 2")
        return
    rows = {num: run(num, sys.argv[1:]) for num in counts(most)}
    table = Table(
        title=f"{arguments.device}, batches of {arguments.batch_size} vehicles, {arguments.sequences} sequences"
    )
    table.add_column("processes", justify="right")
    for name in rows[1]:
        table.add_column(f"{name}: env-steps/s", justify="right")
        table.add_column("ratio to one", justify="right")
    for num, rates in rows.items():
        cells = [f"{rate:,.0f} {rate / rows[1][name]:.2f}".split() for name, rate in rates.items()]
        table.add_row(f"{num}", *(cell for pair in cells for cell in pair))
    console.print(table)


if __name__ == "__main__":
    main()
