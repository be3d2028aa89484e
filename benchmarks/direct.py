"""Forward and backward env-steps per second of training through the simulator, beside the arithmetic limit.

    python benchmarks/direct.py [--threads 2] [--device cpu] [--sizes 256 1024 4096 16384] [--hidden 16]
    python benchmarks/direct.py --threads 1 --clean --block-size 4096 --sizes 4096 --beside ../other/src

One update flies a segment forward and differentiates it backward. The arithmetic limit is what the policy's matrix
products alone would allow at the speed that a large matrix product reaches in the same run. With `--beside`, updates
alternate with those of the package in that folder, and the ratio is that of the shortest ones: what else runs on the
machine slows down both. Segments have 200 steps, and vehicles the imperfections of the default task, unless `--clean`.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from raptor.tasks import Task
from raptor.training.direct.config import TrainDirectConfig
from raptor.training.direct.job import first_policy, make_learner


def wait(device: torch.device) -> None:
    """Let the device finish."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def matrix_flops(device: torch.device, size: int = 1536) -> float:
    """Floating-point operations per second of a square float32 matrix product; the best of five."""
    a, b = torch.rand(size, size, device=device), torch.rand(size, size, device=device)
    torch.mm(a, b)
    best = 0.0
    for _ in range(5):
        wait(device)
        start = time.perf_counter()
        torch.mm(a, b)
        wait(device)
        best = max(best, 2 * size**3 / (time.perf_counter() - start))
    return best


def policy_flops(hidden: int) -> int:
    """Operations of the policy's matrix products for one step forward and backward (twice the forward), in FLOP."""
    return 3 * 2 * (22 * hidden + 6 * hidden * hidden + 4 * hidden)


class Updates:
    """Updates of a new learner, timed one by one."""

    def __init__(self, arguments: argparse.Namespace, num: int) -> None:
        settings: dict[str, Any] = {"task": Task()} if arguments.clean else {}
        if arguments.block_size:
            settings["block_size"] = arguments.block_size
        config = TrainDirectConfig(
            batch_size=num,
            hidden_dim=arguments.hidden,
            segment_steps=200,
            validation_interval=0,
            device=arguments.device,
            **settings,
        )
        self.learner, self.env_steps = make_learner(config, first_policy(config)), num * config.segment_steps

    def seconds(self) -> float:
        """How long the next one takes; the first one compiles."""
        device = torch.device(self.learner.device)
        wait(device)
        start = time.perf_counter()
        self.learner.update()
        wait(device)
        return time.perf_counter() - start


class OtherUpdates:
    """The same with the package in another folder, in a process of its own."""

    def __init__(self, arguments: argparse.Namespace, num: int) -> None:
        settings = [
            "--device",
            arguments.device,
            "--hidden",
            f"{arguments.hidden}",
            "--threads",
            f"{arguments.threads}",
        ]
        settings += ["--clean"] * arguments.clean
        command = [sys.executable, __file__, *settings, "--sizes", f"{num}", "--serve"]
        environment = os.environ | {"PYTHONPATH": os.path.abspath(arguments.beside)}
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, env=environment, text=True)

    def seconds(self) -> float:
        """See `Updates`."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return float(self.process.stdout.readline())


def serve(arguments: argparse.Namespace) -> None:
    """Run an update for each line that comes in, and write how long it took."""
    updates = Updates(arguments, arguments.sizes[0])
    for _ in sys.stdin:
        print(updates.seconds(), flush=True)


def row(arguments: argparse.Namespace, num: int, limit: float) -> list[str]:
    """Figures of one number of vehicles, those of the table."""
    updates = Updates(arguments, num)
    first, times, others = updates.seconds(), [], []
    other = OtherUpdates(arguments, num) if arguments.beside else None
    if other is not None:
        other.seconds()
    for _ in range(arguments.updates):
        times.append(updates.seconds())
        if other is not None:
            others.append(other.seconds())
    speed = updates.env_steps / sorted(times)[len(times) // 2]
    figures = [f"{num}", f"{speed:,.0f}", f"{speed / limit:.1%}", f"{first:.1f}"]
    if other is not None:
        other.process.communicate()
        figures += [f"{updates.env_steps / min(others):,.0f}", f"{min(others) / min(times):.2f}"]
    return figures


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--sizes", type=int, nargs="+", default=[256, 1024, 4096, 16384])
    parser.add_argument("--hidden", type=int, default=16)
    parser.add_argument("--updates", type=int, default=9)
    parser.add_argument("--clean", action="store_true", help="without imperfections of sensors, motors and air")
    parser.add_argument(
        "--block-size", type=int, help="most vehicles flown together, default 512 on a CPU; not of the other"
    )
    parser.add_argument("--beside", help="folder of another version of the package, such as ../other/src")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.serve:
        serve(arguments)
        return
    device = torch.device(arguments.device)
    limit = matrix_flops(device) / policy_flops(arguments.hidden)
    table = Table(
        title=f"training through the simulator, hidden {arguments.hidden}, {device}, {arguments.threads} thread(s)"
    )
    columns = ["quadrotors", "env-steps/s", "share of the limit", "first update, compile included (s)"]
    for column in [*columns, "the other's best", "ratio to it"] if arguments.beside else columns:
        table.add_column(column, justify="right")
    for num in arguments.sizes:
        table.add_row(*row(arguments, num, limit))
    console = Console(width=120)
    console.print(table)
    console.print(
        f"arithmetic limit of the policy's products: {limit:,.0f} env-steps/s "
        f"({policy_flops(arguments.hidden) / 1e3:.1f} kFLOP each)"
    )


if __name__ == "__main__":
    main()
