"""Updates per second of soft actor-critic, beside stable-baselines3 in the same run and the arithmetic limit.

    python benchmarks/sac.py [--threads 1] [--device cpu] [--repeats 5] [--stacked 16] [--capacity 1000000]

What is compared is measured in turns, so that the load of the machine falls on all alike. The arithmetic limit is what
the matrix products of an update alone would allow at the speed that products of the critics' size reach in the same
run. stable-baselines3 updates its actor at every update, as it cannot do otherwise; here it is every second one, as in
rl-tools, so its limit is lower. A whole loop collects, stores, draws and updates, with a full replay and critics 256.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import time
from collections.abc import Callable, Mapping
from statistics import median
from typing import Any, NamedTuple

import torch
from replay import ACTION_DIM, OBSERVATION_DIM, full_replay
from rich.console import Console
from rich.table import Table

from raptor import sample_quadrotors
from raptor.config import load_config
from raptor.core.compilation import compiler_problem
from raptor.rl.curriculum import Curriculum
from raptor.rl.replay import Batch, ReplayConfig
from raptor.rl.sac import SAC, SACConfig
from raptor.tasks import Task
from raptor.training.teachers.config import PreTrainConfig
from raptor.training.teachers.sac import SACTeachers

NUM_UPDATES = 100
"""Updates between two looks at the clock."""

NUM_BLOCKS = 10
"""Blocks of the whole loop between two looks at the clock."""

NUM_SEEN = 1000
"""Transitions in the replay of stable-baselines3."""


class Work(NamedTuple):
    """Something to be timed."""

    call: Callable[[], object]
    num_updates: int  # of all agents, by one call
    flops: int = 0  # of the products of one update of one agent


def update_flops(config: SACConfig) -> int:
    """Operations of the matrix products that one update of one agent cannot do without, in FLOP."""
    actor = _products((OBSERVATION_DIM, *config.actor_widths, 2 * ACTION_DIM))
    critic = _products((OBSERVATION_DIM + ACTION_DIM, *config.critic_widths, 1))
    # Forward; the gradient of the weights; that of what goes in, which the first layer needs for the action at most.
    from_inputs = OBSERVATION_DIM * config.critic_widths[0]
    from_actions = ACTION_DIM * config.critic_widths[0]
    target = actor + 2 * critic
    critics = 2 * (critic + critic + critic - from_inputs - from_actions)
    through_critics = 2 * (critic + critic - from_inputs)
    actors = actor + actor + actor - OBSERVATION_DIM * config.actor_widths[0]
    products = target + critics + (through_critics + actors) / config.actor_interval
    return round(2 * config.batch_size * products)


def _products(widths: tuple[int, ...]) -> int:
    """Multiplications of one forward pass of one sample."""
    return sum(fan_in * out for fan_in, out in itertools.pairwise(widths))


def agents(config: SACConfig, num: int, device: torch.device) -> Work:
    """Updates of stacked agents from a batch that stays the same."""
    generator = torch.Generator(device).manual_seed(0)
    learner = SAC(config, num, OBSERVATION_DIM, ACTION_DIM, generator=generator)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(num, config.batch_size, *shape, generator=generator, device=device)

    batch = Batch(
        observation=draw(OBSERVATION_DIM),
        action=torch.tanh(draw(ACTION_DIM)),
        reward=draw(),
        next_observation=draw(OBSERVATION_DIM),
        discount=torch.full_like(draw(), config.gamma),
        weight=torch.ones_like(draw()),
    )
    calls = max(config.actor_interval, NUM_UPDATES // num)

    def call() -> None:
        for _ in range(calls):
            learner.update(batch)

    return Work(call, calls * num, update_flops(config))


def peer(config: SACConfig, device: torch.device) -> Work | None:
    """Updates of stable-baselines3 with the same networks and batches; None where it is not installed."""
    try:
        import gymnasium
        import numpy as np
        import stable_baselines3
    except ImportError:
        return None

    class NoiseEnv(gymnasium.Env[Any, Any]):
        """Noise to learn from."""

        observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (OBSERVATION_DIM,), np.float32)
        action_space = gymnasium.spaces.Box(-1.0, 1.0, (ACTION_DIM,), np.float32)

        def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict]:
            super().reset(seed=seed)
            return self._observation(), {}

        def step(self, action: Any) -> tuple[Any, float, bool, bool, dict]:
            return self._observation(), 0.0, False, False, {}

        def _observation(self) -> Any:
            return self.np_random.standard_normal(OBSERVATION_DIM).astype(np.float32)

    model = stable_baselines3.SAC(
        "MlpPolicy",
        NoiseEnv(),
        batch_size=config.batch_size,
        policy_kwargs={"net_arch": {"pi": list(config.actor_widths), "qf": list(config.critic_widths)}},
        train_freq=NUM_SEEN,
        learning_starts=2 * NUM_SEEN,
        device=device,
        seed=0,
    )
    model.learn(NUM_SEEN)
    every_time = dataclasses.replace(config, actor_interval=1)
    return Work(
        lambda: model.train(gradient_steps=NUM_UPDATES, batch_size=config.batch_size),
        NUM_UPDATES,
        update_flops(every_time),
    )


def loop(replay: ReplayConfig, device: torch.device) -> Work:
    """The whole loop of one teacher, one update for each step, with a full replay."""
    config = dataclasses.replace(load_config(PreTrainConfig, "paper").sac, start_steps=0, replay=replay)
    quadrotors, task = sample_quadrotors(1, seed=0, device=device).component_major(), Task()
    curriculum = Curriculum(PreTrainConfig().curriculum_in_use(), task, len(quadrotors), device)
    learner = SACTeachers(config, task, quadrotors, curriculum, seed=0)
    learner.replay = full_replay(replay, len(quadrotors), device)

    def blocks() -> None:
        end = learner.step_count + NUM_BLOCKS
        while learner.step_count < end:
            learner.update()

    return Work(blocks, NUM_BLOCKS * config.block_steps, update_flops(config))


def critic_product(config: SACConfig, device: torch.device) -> Work:
    """The largest product of the critics, as one agent's twins compute it."""
    width = config.critic_widths[0]
    generator = torch.Generator(device).manual_seed(0)
    a = torch.randn(2, config.batch_size, width, generator=generator, device=device)
    b = torch.randn(2, width, width, generator=generator, device=device)

    def call() -> None:
        for _ in range(NUM_UPDATES):
            torch.bmm(a, b)

    return Work(call, NUM_UPDATES, 2 * 2 * config.batch_size * width * width)


def rates(work: Mapping[str, Work], device: torch.device, repeats: int) -> dict[str, list[float]]:
    """Updates per second of each, one number per repeat; measured in turns."""

    def once(what: Work) -> float:
        start = time.perf_counter()
        what.call()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return what.num_updates / (time.perf_counter() - start)

    for what in work.values():
        once(what)  # compiles
    measured: dict[str, list[float]] = {name: [] for name in work}
    for _ in range(repeats):
        for name, what in work.items():
            measured[name].append(once(what))
    return measured


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--stacked", type=int, default=16, help="teachers that are updated together")
    parser.add_argument("--capacity", type=int, default=1_000_000, help="of the replay")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    device, console, stacked = torch.device(arguments.device), Console(), arguments.stacked
    wide, narrow = SACConfig(), SACConfig(critic_widths=(64, 64))
    other = peer(wide, device)
    work = {"product": critic_product(wide, device)}
    work |= {} if other is None else {"SB3, critics 256": other}
    for config in (wide, narrow):
        name = f"critics {config.critic_widths[0]}"
        work |= {name: agents(config, 1, device), f"{name}, {stacked} stacked": agents(config, stacked, device)}
    for kind in ("uniform", "prioritised"):
        work[f"whole loop, {kind}"] = loop(ReplayConfig(kind, arguments.capacity), device)
    measured = rates(work, device, arguments.repeats)
    speed = median(measured["product"]) * work["product"].flops
    table = Table(
        title=f"updates of soft actor-critic, actor 64-64, batch {wide.batch_size}, {device}, "
        f"{arguments.threads} thread(s)"
    )
    table.add_column("", no_wrap=True)
    for column in ("updates/s", "best", "MFLOP", "limit", "share"):
        table.add_column(column, justify="right")
    for name, what in work.items():
        if name == "product":
            continue
        rate, best, limit = median(measured[name]), max(measured[name]), speed / what.flops
        table.add_row(
            name, f"{rate:,.0f}", f"{best:,.0f}", f"{what.flops / 1e6:.1f}", f"{limit:,.0f}", f"{rate / limit:.0%}"
        )
    console.print(table)
    console.print(
        f"torch.bmm of (2, {wide.batch_size}, 256) and (2, 256, 256): {speed / 1e9:,.0f} GFLOP/s; limit = that / FLOP. "
        "The rate of stacked agents counts the update of each.",
        soft_wrap=True,
    )
    if other is None:
        missing = "stable-baselines3 is not installed, so it is left out: pip install 'raptor-python[sb3]'"
        console.print(missing, markup=False, soft_wrap=True)
    else:
        ratio = median(measured["critics 256"]) / median(measured["SB3, critics 256"])
        console.print(f"one agent here over stable-baselines3, whose actor is updated every time: {ratio:.2f}")
    if compiler_problem():
        console.print(f"no compiler: {compiler_problem()}")


if __name__ == "__main__":
    main()
