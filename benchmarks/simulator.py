"""Simulator steps per second, eager and compiled, beside l2f in the same run where it is installed.

    python benchmarks/simulator.py [--threads 1] [--device cpu] [--sizes 64 1024 8192 65536]

Prints one row per size. Ratios to l2f's `vector8192.step` count; absolute times depend on the machine and its load.
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from collections.abc import Callable

import torch
from rich.console import Console
from rich.table import Table

from raptor import sample_quadrotors
from raptor.core.compilation import compile_flat, compiler_problem
from raptor.quadrotor import Quadrotors, State, step
from raptor.quadrotor.state import component_major

L2F_SIZE = 8192


def seconds_per_call(call: Callable[[], object], device: torch.device, at_least_s: float = 1.0) -> float:
    """Median over rounds of the mean time of a call."""

    def wait() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    for _ in range(3):
        call()
    wait()
    start = time.perf_counter()
    call()
    wait()
    num_calls = max(1, int(at_least_s / 5 / max(time.perf_counter() - start, 1e-7)))
    rounds = []
    for _ in range(5):
        start = time.perf_counter()
        for _ in range(num_calls):
            call()
        wait()
        rounds.append((time.perf_counter() - start) / num_calls)
    return sorted(rounds)[2]


def population(num: int, device: torch.device) -> tuple[Quadrotors, State, torch.Tensor]:
    """Quadrotors, hovering-speed states and actions, in the layout that kernels read fastest."""
    generator = torch.Generator(device).manual_seed(0)
    quadrotors = sample_quadrotors(num, generator=generator, device=device).component_major()
    tensor = torch.zeros(num, 17, device=device)
    tensor[:, 3] = 1
    tensor[:, 13:] = quadrotors.hover_throttle[:, None]
    action = component_major(2 * torch.rand(num, 4, generator=generator, device=device) - 1)
    return quadrotors, State.from_tensor(tensor), action


def ours(num: int, device: torch.device, compiled: bool) -> float:
    """Steps per second of our simulator."""
    quadrotors, state, action = population(num, device)
    fields = quadrotors.tensors()

    def flat(*tensors: torch.Tensor) -> list[torch.Tensor]:
        vehicles = dataclasses.replace(quadrotors, **dict(zip(fields, tensors[:-6], strict=True)))
        return list(step(vehicles, State(*tensors[-6:-1]), tensors[-1]).parts())

    parameters = list(fields.values())
    run = compile_flat(flat, [*parameters, *state.parts(), action], compiled)
    parts = list(state.parts())

    def call() -> None:
        nonlocal parts
        parts = list(run(*parameters, *parts, action))

    with torch.no_grad():
        return num / seconds_per_call(call, device)


def l2f_steps_per_second() -> float | None:
    """Steps per second of l2f's `vector8192.step` with random parameters, or None where l2f is not installed."""
    try:
        import l2f
        import numpy as np
        from l2f import vector8192 as vector
    except ImportError:
        return None
    device = l2f.Device()
    rng = vector.VectorRng()
    environment = vector.VectorEnvironment()
    parameters, states, next_states = vector.VectorParameters(), vector.VectorState(), vector.VectorState()
    vector.initialize_rng(device, rng, 0)
    vector.initialize_environment(device, environment)
    vector.sample_initial_parameters(device, environment, parameters, rng)
    vector.sample_initial_state(device, environment, parameters, states, rng)
    action = np.random.default_rng(0).uniform(-1, 1, (L2F_SIZE, 4)).astype(np.float32)

    def call() -> None:
        vector.step(device, environment, parameters, states, action, next_states, rng)
        states.assign(next_states)

    return L2F_SIZE / seconds_per_call(call, torch.device("cpu"))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--sizes", type=int, nargs="+", default=[64, 1024, 8192, 65536])
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    device = torch.device(arguments.device)
    peer = l2f_steps_per_second()
    table = Table(title=f"simulator steps/s, RK4, own parameters per vehicle, {device}, {arguments.threads} thread(s)")
    for column in ("quadrotors", "eager", "compiled", "compiled / eager", "compiled / l2f"):
        table.add_column(column, justify="right")
    for num in arguments.sizes:
        eager = ours(num, device, compiled=False)
        compiled = ours(num, device, compiled=True)
        ratio = "l2f not installed" if peer is None else f"{compiled / peer:.2f}"
        table.add_row(f"{num}", f"{eager:,.0f}", f"{compiled:,.0f}", f"{compiled / eager:.1f}", ratio)
    console = Console()
    console.print(table)
    if peer is not None:
        console.print(f"l2f vector8192.step: {peer:,.0f} steps/s")
    if compiler_problem():
        console.print(f"no compiler: {compiler_problem()}")


if __name__ == "__main__":
    main()
