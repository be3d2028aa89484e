"""Samples per second of distillation: collecting demonstrations, and training a recurrent student on sequences.

    python benchmarks/distillation.py [--threads 1] [--device cpu] [--batch-sizes 64 256 1024] [--hidden 16]
        [--teachers 1000] [--episodes 10]

What is compared is measured in turns, so that the load of the machine falls on all alike. The arithmetic limit is what
the student's matrix products alone would allow at the speed that a large matrix product reaches in the same run.
"""

from __future__ import annotations

import argparse
import itertools
import time
from collections.abc import Callable
from statistics import median

import torch
from direct import matrix_flops, policy_flops, wait
from rich.console import Console
from rich.table import Table

from raptor import sample_quadrotors
from raptor.nn import RaptorPolicy
from raptor.nn.stacked_mlp import initial_layers
from raptor.rl.demonstrations import DemonstrationFlight, Demonstrations, SimulatedDemonstrations
from raptor.rl.sequence_gradient import SequenceGradient
from raptor.tasks.reward import Termination
from raptor.tasks.task import Task

Work = Callable[[], object]

TEACHER = (26, 64, 64, 4)
RL_TOOLS_COLLECTION = 1.03e6
"""Samples/s of rl-tools' C++ collecting the same, one core, another machine."""


def drawn_sequences(steps: int, batch: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Observations, labels and resets, one episode per sequence length on average."""
    observation, label = torch.randn(steps, batch, 22, device=device), torch.randn(steps, batch, 4, device=device)
    return observation, label, torch.rand(steps, batch, device=device) < 1 / steps


def sequence_gradient(policy: RaptorPolicy, steps: int, batch: int) -> Work:
    """The gradient over packed sequences, through all their steps."""
    gradient, sequences = SequenceGradient(), drawn_sequences(steps, batch, policy.initial_hidden.device)
    return lambda: gradient(policy.tensors(), *sequences)


def torch_gradient(policy: RaptorPolicy, steps: int, batch: int) -> Work:
    """The same by torch.nn.GRU and autograd, which have no resets."""
    observation, label, _ = drawn_sequences(steps, batch, policy.initial_hidden.device)

    def work() -> object:
        actions, _ = policy.forward_sequence(observation)
        return torch.autograd.grad(torch.nn.functional.mse_loss(actions, label), policy.tensors())

    return work


def seconds(works: list[Work], device: torch.device, repeats: int) -> list[float]:
    """Median time of each piece of work, taken in turns."""
    times: list[list[float]] = [[] for _ in works]
    for number in range(repeats + 1):
        for work, taken in zip(works, times, strict=True):
            wait(device)
            start = time.perf_counter()
            work()
            wait(device)
            if number:  # the first compiles
                taken.append(time.perf_counter() - start)
    return [median(taken) for taken in times]


def sequence_table(batch_sizes: list[int], steps: int, hidden: int, device: torch.device, repeats: int) -> Table:
    """Speed of the gradient over sequences."""
    policy = RaptorPolicy(hidden_dim=hidden).to(device)
    flops = policy_flops(hidden)
    limit = matrix_flops(device) / flops
    table = Table(
        title=f"forward and backward over sequences of {steps} steps, hidden {hidden}, {device}, "
        f"{torch.get_num_threads()} thread(s)",
        caption=f"arithmetic limit: {limit:,.0f} samples/s ({flops / 1e3:.1f} kFLOP each)",
    )
    for column in ("sequences", "samples/s", "share of the limit", "torch.nn.GRU, samples/s", "ratio"):
        table.add_column(column, justify="right")
    for batch in batch_sizes:
        works = [make(policy, steps, batch) for make in (sequence_gradient, torch_gradient)]
        ours, torchs = (batch * steps / taken for taken in seconds(works, device, repeats))
        table.add_row(f"{batch}", f"{ours:,.0f}", f"{ours / limit:.0%}", f"{torchs:,.0f}", f"{ours / torchs:.1f}")
    return table


def collection_works(teachers: int, episodes: int, device: torch.device) -> dict[str, Work]:
    """Collect the demonstrations of one epoch; no episode ends before its time, so that every step counts."""
    task, generator = Task(termination=Termination(enabled=False)), torch.Generator(device).manual_seed(0)
    layers, offset = initial_layers(teachers, TEACHER, generator), torch.zeros(teachers, 3, device=device)
    quadrotors = sample_quadrotors(teachers, generator=generator, device=device)
    rollouts = SimulatedDemonstrations(DemonstrationFlight(task, episodes), quadrotors, layers, offset)
    student = RaptorPolicy().to(device).tensors()
    out = Demonstrations.empty(teachers * episodes, task.episode_steps, offset)
    return {
        "the student": lambda: rollouts.collect(student, generator, out),
        "the teachers": lambda: rollouts.collect(None, generator, out),
    }


def collection_table(teachers: int, episodes: int, device: torch.device, repeats: int) -> Table:
    """Speed of collecting demonstrations."""
    label = 2 * sum(a * b for a, b in itertools.pairwise(TEACHER))
    flops = {"the student": label + policy_flops(16) // 3, "the teachers": label}
    works, samples = collection_works(teachers, episodes, device), teachers * episodes * Task().episode_steps
    table = Table(
        title=f"collecting demonstrations: {teachers} teachers, {episodes} episodes each, RK4, {device}, "
        f"{torch.get_num_threads()} thread(s)",
        caption=f"the limit is that of the networks' products alone; rl-tools: {RL_TOOLS_COLLECTION:,.0f} samples/s",
    )
    for column in ("controller", "samples/s", "arithmetic limit, samples/s", "share of the limit"):
        table.add_column(column, justify="right")
    for who, taken in zip(works, seconds(list(works.values()), device, repeats), strict=True):
        limit = matrix_flops(device) / flops[who]
        table.add_row(who, f"{samples / taken:,.0f}", f"{limit:,.0f}", f"{samples / taken / limit:.0%}")
    return table


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[64, 256, 1024])
    parser.add_argument("--sequence-length", type=int, default=500)
    parser.add_argument("--hidden", type=int, default=16)
    parser.add_argument("--teachers", type=int, default=1000)
    parser.add_argument("--episodes", type=int, default=10)
    parser.add_argument("--repeats", type=int, default=9)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    console, device = Console(), torch.device(arguments.device)
    console.print(collection_table(arguments.teachers, arguments.episodes, device, arguments.repeats))
    console.print(
        sequence_table(arguments.batch_sizes, arguments.sequence_length, arguments.hidden, device, arguments.repeats)
    )


if __name__ == "__main__":
    main()
