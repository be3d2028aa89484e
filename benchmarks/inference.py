"""Microseconds that one step of a policy takes for one vehicle, as different programs run it.

    python benchmarks/inference.py [default large ...] [--steps 20000]

Torch as the package calls it, onnxruntime, the numpy of foundation-policy, and the exported C, built by the compiler of
this machine for any machine of its kind and for this one, called in a loop in C. The shortest of nine runs, in turns.
"""

from __future__ import annotations

import argparse
import ctypes
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from raptor.export import export_policy
from raptor.export.c_source import find_compiler
from raptor.formats import OnnxPolicy, load_policy

ROUNDS = 9
LOOP = """
#include "raptor_policy.h"
void steps(raptor_memory *memory, float *observation, float *action, int num)
{
    int i;
    for (i = 0; i < num; i++) {
        raptor_step(memory, observation, action);
        observation[0] = 0.01f * action[0];
    }
}
"""


def in_c(folder: Path, flags: list[str], steps: int) -> Callable[[], int]:
    """So many steps in a loop in C."""
    compiler, library = find_compiler(), folder / f"steps{len(flags)}.so"
    assert compiler is not None, "this benchmark needs a C compiler"
    (folder / "loop.c").write_text(LOOP)
    sources = [str(folder / name) for name in ("loop.c", "raptor_policy.c")]
    command = [compiler, "-std=c99", *flags, "-shared", "-fPIC", "-o", str(library), *sources, "-lm"]
    subprocess.run(command, check=True)
    run = ctypes.CDLL(str(library)).steps
    memory, observation, action = (np.zeros(num, np.float32) for num in (64, 64, 4))

    def work() -> int:
        run(*(ctypes.c_void_p(each.ctypes.data) for each in (memory, observation, action)), ctypes.c_int(steps))
        return steps

    return work


def called(act: Callable[[], object], steps: int) -> Callable[[], int]:
    """So many calls from Python."""

    def work() -> int:
        for _ in range(steps):
            act()
        return steps

    return work


def works(name: str, steps: int, folder: Path) -> dict[str, Callable[[], int]]:
    """What is timed for a policy, by name."""
    policy, few = load_policy(name), max(1, steps // 20)
    export_policy(policy, folder / "policy.onnx")
    export_policy(policy, folder / "c", "c")
    seen, exported = torch.zeros(1, policy.observation_dim), OnnxPolicy(folder / "policy.onnx")
    found = {
        "torch": called(lambda: policy.evaluate_step(seen), few),
        "onnxruntime": called(lambda: exported.evaluate_step(seen), few),
    }
    if policy.observation_dim == 22:
        import foundation_policy

        export_policy(policy, folder / "policy.h5", "rl-tools")
        numpy_policy, row = foundation_policy.load(folder / "policy.h5"), np.zeros((1, 22), np.float32)
        numpy_policy.reset()
        found["numpy, foundation-policy"] = called(lambda: numpy_policy.evaluate_step(row), few)
    found["C, -O2"] = in_c(folder / "c", ["-O2"], steps)
    found["C, -O3 -march=native"] = in_c(folder / "c", ["-O3", "-march=native"], steps)
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("policies", nargs="*", default=["default", "large"])
    parser.add_argument("--steps", type=int, default=20000)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    table = Table(title="microseconds a step, one vehicle, one core")
    table.add_column("")
    times: dict[str, dict[str, float]] = {}
    for name in arguments.policies:
        table.add_column(name, justify="right")
        with tempfile.TemporaryDirectory() as scratch:
            timed = works(name, arguments.steps, Path(scratch))
            for _ in range(ROUNDS):
                for what, work in timed.items():
                    begun = time.perf_counter()
                    steps = work()
                    spent, row = 1e6 * (time.perf_counter() - begun) / steps, times.setdefault(what, {})
                    row[name] = min(row.get(name, float("inf")), spent)
    for what, row in times.items():
        table.add_row(what, *(f"{row[name]:.2f}" if name in row else "" for name in arguments.policies))
    Console(width=100).print(table)


if __name__ == "__main__":
    main()
