"""How much memory a job may take, and how much it will: measured on a small one, and scaled."""

from __future__ import annotations

import dataclasses
import math
import os
from typing import Any

import torch
from torch.utils import _pytree as pytree

from raptor.core.distributed import ALONE, DryRunWorld, World
from raptor.core.errors import UserError
from raptor.environments.episode import draw_noise
from raptor.formats.checkpoint import StudentPolicy
from raptor.rl.segment import RolloutState
from raptor.tasks.task import Task
from raptor.training.direct.blocks import VEHICLES
from raptor.training.direct.config import GradientConfig
from raptor.training.direct.learner import GradientLearner

GIB = 2**30
BASE_BYTES = 0.6 * GIB  # of a process that does nothing yet: the libraries and the compiler
FRACTION_OF_FREE = 0.7  # that may be taken where nothing is said
FRACTION_OF_BUDGET = 0.9  # that the largest batch takes, so that the run can be resumed where a little less is free
MULTIPLE, MOST_VEHICLES = 64, 2**22  # the largest batch is a multiple for each process, and at most so large
SAMPLE_VEHICLES = 8  # of the small learner that is measured


def budget_bytes(memory_gib: float | None, device: str) -> float:
    """What may be taken, in bytes: what is given, or most of what is free on the device."""
    return memory_gib * GIB if memory_gib is not None else FRACTION_OF_FREE * _free(device)


def budget_of_each(memory_gib: float | None, device: str, world: World) -> float:
    """What each process may take, the same for all: a part of the machine's memory, or the least of their GPUs'."""
    least = min(world.all_gather(budget_bytes(memory_gib, device)))
    return least / world.size if torch.device(device).type == "cpu" else least


def refuse_too_large(what: str, used: float, budget: float, remedy: str) -> None:
    """Raise a UserError that says what takes how much, and the remedy, where it does not fit."""
    if used > budget:
        needs = f"{what} {used / GIB:.3g} GiB, which does not fit into {budget / GIB:.3g} GiB"
        raise UserError(f"{needs}: {remedy}, or raise memory_gib")


def nbytes(tree: Any) -> int:
    """Memory of all tensors in a nesting, in bytes."""
    return sum(leaf.nbytes for leaf in pytree.tree_leaves(tree) if isinstance(leaf, torch.Tensor))


def step_bytes(task: Task, learner: Any, memory: Any = ()) -> int:
    """What a learner keeps of a step for the backward pass: where it began, its noise, cost, reward and termination."""
    noise = draw_noise(task, learner.quadrotors.mass, learner.generator)
    return nbytes((RolloutState.begin(learner.episode, memory).moving, noise)) + 12 * learner.quadrotors.mass.numel()


def batch_bytes(
    config: GradientConfig, policy: StudentPolicy, num: int, world: World = ALONE, labels: float = 0.0
) -> float:
    """What a batch of `num` vehicles takes in a process; a small batch of these settings and this policy is measured.

    `labels` are bytes of each vehicle that is flown, along its segment, that come on top.
    """
    each, flown = _vehicle_bytes(config, policy)
    return num * each + min(num / world.size, _most_flown(config, "cpu")) * (flown + labels)


def _vehicle_bytes(config: GradientConfig, policy: StudentPolicy) -> tuple[float, float]:
    """What each vehicle of a batch takes, and what comes on top while it is flown along its segment."""
    small = _trial(config, policy, SAMPLE_VEHICLES, "cpu", ALONE)
    vehicle, step = 4 * nbytes((small.quadrotors, small.episode)), step_bytes(config.task, small, small.memory)
    return vehicle / SAMPLE_VEHICLES, config.segment_steps * step / SAMPLE_VEHICLES


def _most_flown(config: GradientConfig, device: str) -> float:
    """Most vehicles that are flown together."""
    return config.block_size or (VEHICLES["cpu"] if torch.device(device).type == "cpu" else math.inf)


def largest_batch(
    config: GradientConfig,
    policy: StudentPolicy,
    device: str,
    world: World = ALONE,
    memory_gib: float | None = None,
    besides: float = 0.0,
    labels: float = 0.0,
) -> int:
    """The largest batch that fits on a device, if any; all processes come to the same one, and the policy is used up.

    On a GPU the peak of two updates of two small batches is measured; elsewhere the tensors of a small batch are.
    `besides` are bytes that come on top, `labels` those of each vehicle that is flown.
    """
    smallest, most = MULTIPLE * world.size, _most_flown(config, device)
    if torch.device(device).type == "cuda":
        low = smallest if math.isinf(most) else max(smallest, int(most) * world.size)
        used = [max(world.all_gather(_peak(config, policy, num, device, world))) for num in (low, 4 * low)]
        each = (used[1] - used[0]) / (3 * low)
        fixed, flown = used[0] - each * low, 0.0
    else:
        fixed = BASE_BYTES
        each, flown = _vehicle_bytes(config, policy)
    room = FRACTION_OF_BUDGET * budget_of_each(memory_gib, device, world) - fixed - besides
    num = room / (each + (flown + labels) / world.size)
    if num > most * world.size:
        num = max(most * world.size, (room - most * (flown + labels)) / each)
    if num < smallest:
        what = f"not even a batch of {smallest} vehicles fits into memory"
        raise UserError(f"{what}: lower segment_steps or block_size")
    return int(min(num, MOST_VEHICLES)) // smallest * smallest


def _trial(config: GradientConfig, policy: StudentPolicy, num: int, device: str, world: World) -> GradientLearner:
    """A learner of this process's part of a batch, by itself."""
    curriculum = dataclasses.replace(config.curriculum, enabled=False)
    sized = dataclasses.replace(config, batch_size=num, curriculum=curriculum)
    return GradientLearner(sized, policy, 0, device, False, DryRunWorld(world.rank, world.size))


def _peak(config: GradientConfig, policy: StudentPolicy, num: int, device: str, world: World) -> float:
    """Most memory that two updates take on a GPU, the second with the state of the optimiser, in bytes."""
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    learner = _trial(config, policy, num, device, world)
    for _ in range(2):
        learner.update()
    return float(torch.cuda.max_memory_reserved(device))


def _free(device: str) -> float:
    """Free memory of a device, in bytes."""
    if torch.device(device).type == "cuda":
        return float(torch.cuda.mem_get_info(device)[0])
    try:
        with open("/proc/meminfo", encoding="utf-8") as file:
            fields = dict(line.split(":", 1) for line in file)
        return 1024.0 * float(fields["MemAvailable"].split()[0])
    except (OSError, KeyError):
        return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
