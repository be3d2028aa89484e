"""A thousand teachers on one GPU: what fits, how fast they learn, and how long that takes to the end.

    python benchmarks/teachers_gpu.py [--device cuda] [--num-teachers 1000] [--memory-gib 139] [--rounds 2] [--full]

Without CUDA it prints the memory plan for a GPU of so many GiB, and measures nothing; `--device cpu --num-teachers 4`
measures on the processor. Times of whole trainings are projected from a few rounds after the first ones, which compile,
and leave out validations; `--full` really runs the training through the simulator's gradient.
"""

from __future__ import annotations

import argparse
import dataclasses
import tempfile
import time

import torch
from rich.console import Console

from raptor import sample_quadrotors
from raptor.config import load_config
from raptor.core.errors import UserError
from raptor.rl.curriculum import Curriculum
from raptor.training.memory import FRACTION_OF_FREE
from raptor.training.teachers.config import PreTrainConfig
from raptor.training.teachers.gradient import APGTeachers
from raptor.training.teachers.job import pre_train
from raptor.training.teachers.learner import TeacherLearner
from raptor.training.teachers.sac import SACTeachers
from raptor.training.teachers.shard import Plan, make_plan

CAPACITY_STEP = 50_000
"""Capacities of the replay are tried in such steps."""

WARM_UP_ROUNDS = 2
"""Rounds in which things are compiled, before any is timed."""

SEED = 0


def plan_of(config: PreTrainConfig, num_teachers: int) -> Plan:
    """How so many teachers are cut into shards."""
    return make_plan(config, [f"{i:04d}" for i in range(num_teachers)], 1)


def with_capacity(config: PreTrainConfig, capacity: int, precision: str) -> PreTrainConfig:
    """The settings with another replay."""
    replay = dataclasses.replace(config.sac.replay, capacity=capacity, precision=precision)
    return dataclasses.replace(config, sac=dataclasses.replace(config.sac, replay=replay))


def largest_capacity(config: PreTrainConfig, num_teachers: int, precision: str) -> tuple[PreTrainConfig, Plan] | None:
    """The largest replay with which all teachers are one shard, or None where none is small enough."""
    for capacity in range(config.sac.replay.capacity, 0, -CAPACITY_STEP):
        smaller = with_capacity(config, capacity, precision)
        try:
            cut = plan_of(smaller, num_teachers)
        except UserError:  # not even one teacher fits
            continue
        if cut.num_shards == 1:
            return smaller, cut
    return None


def print_plans(config: PreTrainConfig, num_teachers: int, console: Console) -> PreTrainConfig:
    """Say what fits; returns the settings of soft actor-critic with which all teachers are one shard."""
    sac = dataclasses.replace(config, algorithm="sac")
    chosen = None
    for algorithm in ("apg", "sac"):
        asked = dataclasses.replace(config, algorithm=algorithm)
        console.print(f"{algorithm}, as it is: {plan_of(asked, num_teachers).describe()}", soft_wrap=True)
    for precision in ("float32", "float16"):
        found = largest_capacity(sac, num_teachers, precision)
        setting = f"sac.replay.precision={precision}"
        if found is None:
            console.print(f"sac, {setting}: no replay lets {num_teachers} teachers fit as one shard")
            continue
        smaller, cut = found
        capacity = smaller.sac.replay.capacity
        console.print(f"sac, {setting} sac.replay.capacity={capacity}: {cut.describe()}", soft_wrap=True)
        chosen = chosen or smaller
    return chosen or sac


def learner_of(config: PreTrainConfig, num_teachers: int) -> TeacherLearner:
    """Teachers of the first vehicles, before anything was learnt."""
    quadrotors = sample_quadrotors(num_teachers, seed=SEED, device=config.device).component_major()
    curriculum = Curriculum(config.curriculum_in_use(), config.task, num_teachers, quadrotors.device)
    if config.algorithm == "apg":
        return APGTeachers(config.apg, config.task, quadrotors, curriculum, SEED)
    settings = dataclasses.replace(config.sac, start_steps=0)
    learner = SACTeachers(settings, config.task, quadrotors, curriculum, SEED)
    # As if the replay were full, so that what is drawn lies as far apart as it will.
    storage, slots = learner.replay.storage, learner.replay.sizes.slots
    storage.following.copy_((torch.arange(storage.following.shape[1], device=quadrotors.device) + 1) % slots)
    storage.filled.fill_(slots - 1)
    storage.cursor.fill_(slots - 1)
    return learner


def seconds_per_round(learner: TeacherLearner, rounds: int, device: torch.device) -> tuple[float, float]:
    """Mean time of a round after those that compile, and what those took together."""

    def seconds(num: int) -> float:
        start = time.perf_counter()
        end = learner.step_count + num
        while learner.step_count < end:
            learner.update()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter() - start

    first = seconds(WARM_UP_ROUNDS)
    return seconds(rounds) / rounds, first


def measure(config: PreTrainConfig, num_teachers: int, rounds: int, console: Console) -> None:
    """Time a few rounds of one shard, and project the whole training."""
    device = torch.device(config.device)
    cut = plan_of(config, num_teachers)
    learner = learner_of(config, cut.shard_size)
    each, first = seconds_per_round(learner, rounds, device)
    steps_per_round = learner.env_steps / learner.step_count
    rate = cut.shard_size * steps_per_round / each
    num_steps = config.apg.num_updates if config.algorithm == "apg" else config.sac.num_blocks
    total = cut.num_shards * num_steps * each
    console.print(
        f"{config.algorithm}: {rate:,.0f} env-steps/s of {cut.shard_size} teachers together, {1e3 * each:,.0f} ms a "
        f"round of {steps_per_round:,.0f} steps each ({first:.1f} s the first {WARM_UP_ROUNDS}, compiling included); "
        f"projected to {num_steps * steps_per_round / 1e6:.3g} M steps each: {total / 60:,.1f} minutes "
        f"for {num_teachers} teachers in {cut.num_shards} shard(s)",
        soft_wrap=True,
    )
    if device.type == "cuda":
        peak = torch.cuda.max_memory_allocated(device) / 2**30
        console.print(f"{config.algorithm}: at most {peak:.1f} GiB of the GPU's memory were in use")
        del learner
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)


def run_fully(config: PreTrainConfig, num_teachers: int, console: Console) -> None:
    """Train all teachers through the gradient, with all that belongs to it, and say how good they are."""
    with tempfile.TemporaryDirectory() as folder:
        summary = pre_train(folder, config=config, generate=num_teachers)
    console.print(
        f"apg, really run: {summary.num_solved} of {summary.num_teachers} teachers solved, mean return "
        f"{summary.mean_return:.1f}, worst {summary.worst_return:.1f}, {summary.termination_rate:.2%} terminated, "
        f"{summary.env_steps / 1e6:,.0f} M env-steps in {summary.wall_clock_s / 60:.1f} minutes, validations, test and "
        "further attempts included",
        soft_wrap=True,
    )


def main() -> None:
    """Plan, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--num-teachers", type=int, default=1000)
    parser.add_argument("--memory-gib", type=float, help="of the device; default: what is free, without CUDA 139")
    parser.add_argument("--rounds", type=int, default=2, help="that are timed, after those that compile")
    parser.add_argument("--full", action="store_true", help="also train through the gradient to the end")
    arguments = parser.parse_args()
    console, device, num = Console(), arguments.device, arguments.num_teachers
    there = torch.device(device).type == "cpu" or torch.cuda.is_available()
    memory = arguments.memory_gib if there else arguments.memory_gib or 139.0
    config = dataclasses.replace(
        PreTrainConfig(device=device, memory_gib=None if memory is None else FRACTION_OF_FREE * memory),
        sac=load_config(PreTrainConfig, "paper").sac,
    )
    if not there:
        console.print(
            f"CUDA is not available here, so nothing is measured; this is the plan for a GPU of {memory:g} GiB, "
            f"of which {FRACTION_OF_FREE:.0%} are taken.",
            soft_wrap=True,
        )
    sac = print_plans(config, num, console)
    if there:
        measure(config, num, arguments.rounds, console)
        measure(sac, num, arguments.rounds, console)
        if arguments.full:
            run_fully(config, num, console)


if __name__ == "__main__":
    main()
