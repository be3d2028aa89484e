"""Time per sample of the experience replay, drawn uniformly and by priority, a million transitions per teacher.

    python benchmarks/replay.py [--threads 1] [--device cpu] [--teachers 1] [--batch-size 128] [--n-step 1]

What is compared is measured in turns, so that the load of the machine falls on all alike. The ratio is that of what one
update of a learner needs: a prioritised sample and its new priorities, over a uniform sample.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch
from rich.console import Console
from rich.table import Table

from raptor.core.compilation import compiler_problem
from raptor.rl.replay import Experience, Replay, ReplayConfig, ReplaySizes
from raptor.rl.sum_tree import recompute

OBSERVATION_DIM, ACTION_DIM, GAMMA, EPISODE_STEPS = 26, 4, 0.99, 500


def full_replay(config: ReplayConfig, teachers: int, device: torch.device) -> Replay:
    """A replay of one environment per teacher, full of random transitions and, where it has them, priorities."""
    sizes = ReplaySizes.of(
        config,
        num_teachers=teachers,
        num_envs=1,
        observation_dim=OBSERVATION_DIM,
        action_dim=ACTION_DIM,
        episode_steps=EPISODE_STEPS,
    )
    replay = Replay(config, sizes, gamma=GAMMA, device=device)
    generator = torch.Generator(device).manual_seed(0)
    storage, slots = replay.storage, replay.sizes.slots
    for tensor in (storage.observation, storage.action, storage.reward):
        tensor.copy_(torch.randn(tensor.shape, generator=generator, device=device))
    storage.following.copy_((torch.arange(slots, device=device) + 1) % slots)
    storage.following[..., EPISODE_STEPS - 1 :: EPISODE_STEPS] = slots
    storage.filled.fill_(slots - 1)
    storage.cursor.fill_(slots - 1)
    if replay.priorities:
        drawn = torch.rand(teachers, slots - 1, generator=generator, device=device)
        replay.priorities[0][:, : slots - 1] = 1e-3 + drawn
        recompute(replay.priorities)
    return replay


def seconds_per_call(
    calls: dict[str, Callable[[], object]], device: torch.device, repeats: int
) -> dict[str, list[float]]:
    """Ascending mean times of each call, one per repeat, the calls in turns."""

    def wait() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    def mean(call: Callable[[], object], num: int) -> float:
        wait()
        start = time.perf_counter()
        for _ in range(num):
            call()
        wait()
        return (time.perf_counter() - start) / num

    for call in calls.values():
        mean(call, 20)
    num_calls = {name: max(1, int(0.002 / mean(call, 50))) for name, call in calls.items()}
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(repeats):
        for name, call in calls.items():
            times[name].append(mean(call, num_calls[name]))
    return {name: sorted(values) for name, values in times.items()}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--teachers", type=int, default=1)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--capacity", type=int, default=1_000_000)
    parser.add_argument("--n-step", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=500)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    device = torch.device(arguments.device)
    generator = torch.Generator(device).manual_seed(0)
    batch_size, size = arguments.batch_size, {"capacity": arguments.capacity, "n_step": arguments.n_step}
    uniform = full_replay(ReplayConfig("uniform", **size), arguments.teachers, device)
    prioritised = full_replay(ReplayConfig("prioritised", **size), arguments.teachers, device)
    td_error = torch.rand(arguments.teachers, batch_size, generator=generator, device=device)
    _, index = prioritised.sample(batch_size, generator)

    def sample_and_update() -> None:
        _, drawn = prioritised.sample(batch_size, generator)
        prioritised.update_priorities(drawn, td_error)

    def step(dim: int) -> torch.Tensor:
        return torch.rand(arguments.teachers, 1, dim, generator=generator, device=device)

    never = torch.zeros(arguments.teachers, 1, dtype=torch.bool, device=device)
    action, reward = step(ACTION_DIM), step(1)[..., 0]
    seen = Experience(step(OBSERVATION_DIM), action, reward, never, never, step(OBSERVATION_DIM))
    calls: dict[str, Callable[[], object]] = {
        "uniform: sample": lambda: uniform.sample(batch_size, generator),
        "prioritised: sample + update": sample_and_update,
        "prioritised: sample": lambda: prioritised.sample(batch_size, generator),
        "prioritised: update": lambda: prioritised.update_priorities(index, td_error),
        "uniform: add": lambda: uniform.add(seen),
        "prioritised: add": lambda: prioritised.add(seen),
    }
    times = seconds_per_call(calls, device, arguments.repeats)
    table = Table(
        title=f"replay: {arguments.teachers} teacher(s), batch {batch_size}, {arguments.capacity:,} transitions each, "
        f"{device}, {arguments.threads} thread(s)"
    )
    for column in ("", "least (µs)", "median (µs)", "least / uniform", "median / uniform"):
        table.add_column(column, justify="right" if column else "left")
    base = times["uniform: sample"]
    for name, values in times.items():
        least, median = values[0], values[len(values) // 2]
        table.add_row(
            name,
            f"{1e6 * least:.1f}",
            f"{1e6 * median:.1f}",
            f"{least / base[0]:.2f}",
            f"{median / base[len(base) // 2]:.2f}",
        )
    console = Console()
    console.print(table)
    console.print(f"memory: {uniform.nbytes / 2**20:.0f} MiB, by priority {prioritised.nbytes / 2**20:.0f} MiB")
    if compiler_problem():
        console.print(f"no compiler: {compiler_problem()}")


if __name__ == "__main__":
    main()
