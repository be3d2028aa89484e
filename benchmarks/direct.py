"""Forward and backward env-steps per second of training through the simulator, beside the arithmetic limit.

    python benchmarks/direct.py [--threads 2] [--device cpu] [--sizes 256 1024 4096 16384] [--hidden 16]

One update flies a segment forward and differentiates it backward. The arithmetic limit is what the policy's matrix
products alone would allow at the speed that a large matrix product reaches in the same run.
"""

from __future__ import annotations

import argparse
import time

import torch
from rich.console import Console
from rich.table import Table

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


def steps_per_second(num: int, hidden: int, device: torch.device, updates: int) -> tuple[float, float]:
    """Env-steps per second of whole updates (median), and the seconds that the first update took."""
    config = TrainDirectConfig(batch_size=num, hidden_dim=hidden, validation_interval=0, device=str(device))
    learner = make_learner(config, first_policy(config))
    start = time.perf_counter()
    learner.update()
    first = time.perf_counter() - start
    times = []
    for _ in range(updates):
        wait(device)
        start = time.perf_counter()
        learner.update()
        wait(device)
        times.append(time.perf_counter() - start)
    return num * learner.config.segment_steps / sorted(times)[len(times) // 2], first


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--sizes", type=int, nargs="+", default=[256, 1024, 4096, 16384])
    parser.add_argument("--hidden", type=int, default=16)
    parser.add_argument("--updates", type=int, default=9)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    device = torch.device(arguments.device)
    limit = matrix_flops(device) / policy_flops(arguments.hidden)
    table = Table(
        title=f"training through the simulator, hidden {arguments.hidden}, {device}, {arguments.threads} thread(s)"
    )
    for column in ("quadrotors", "env-steps/s", "share of the limit", "first update, compile included (s)"):
        table.add_column(column, justify="right")
    for num in arguments.sizes:
        speed, first = steps_per_second(num, arguments.hidden, device, arguments.updates)
        table.add_row(f"{num}", f"{speed:,.0f}", f"{speed / limit:.1%}", f"{first:.1f}")
    console = Console()
    console.print(table)
    console.print(
        f"arithmetic limit of the policy's products: {limit:,.0f} env-steps/s "
        f"({policy_flops(arguments.hidden) / 1e3:.1f} kFLOP each)"
    )


if __name__ == "__main__":
    main()
