"""How much memory a job may take, and how much it will: measured on a small one, and scaled."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from typing import Any

import torch
from torch.utils import _pytree as pytree

from raptor.core.distributed import DryRunWorld, Parts, World
from raptor.core.errors import UserError
from raptor.environments.episode import draw_noise
from raptor.rl.flight import RolloutState
from raptor.training.direct.learner import GradientLearner

GIB = 2**30
BASE_BYTES = 0.6 * GIB
"""Of a process that does nothing yet: the libraries and the compiler."""

FRACTION_OF_FREE = 0.7
"""What may be taken of the free memory where nothing is said."""

MULTIPLE, MOST_VEHICLES = 64, 2**22
"""The largest batch is a multiple of so many vehicles for each part, and at most so large."""

FRACTION_OF_BUDGET = 0.9
"""What the largest batch takes of it, so that the run can be resumed where a little less is free."""

SAMPLE_VEHICLES = 8
"""Vehicles of the small learner that is measured."""


def budget_bytes(memory_gib: float | None, device: str) -> float:
    """What may be taken, in bytes: what is given, or most of what is free on the device."""
    return memory_gib * GIB if memory_gib is not None else FRACTION_OF_FREE * _free(device)


def budget_of_each(memory_gib: float | None, device: str, world: World) -> float:
    """What each process may take: together the memory of a machine, or each that of a GPU of its own.

    All come to the same answer, that of the one with the least.
    """
    least = min(world.all_gather(budget_bytes(memory_gib, device)))
    return least / world.size if torch.device(device).type == "cpu" else least


def refuse_too_large(what: str, used: float, budget: float, remedy: str) -> None:
    """Raise where what is planned does not fit.

    Raises:
        UserError: says what takes how much, and the remedy.
    """
    if used > budget:
        raise UserError(
            f"{what} {used / GIB:.3g} GiB, which does not fit into {budget / GIB:.3g} GiB: {remedy}, or raise "
            "memory_gib"
        )


def nbytes(tree: Any) -> int:
    """Memory of all tensors in a nesting, in bytes."""
    return sum(leaf.nbytes for leaf in pytree.tree_leaves(tree) if isinstance(leaf, torch.Tensor))


def segment_bytes(learner: GradientLearner, vehicles: int, parts: int = 1) -> float:
    """What a segment of that many vehicles takes, each step of which is kept for the backward pass.

    Args:
        learner: a small one with the same settings, whose tensors are measured.
        vehicles: of the batch.
        parts: that are computed one after another, or by other processes.
    """
    config, num = learner.config, learner.config.batch_size
    step = nbytes(RolloutState.begin(learner.episode, learner.memory)) + 12 * num  # and cost, reward, termination
    noise = nbytes(draw_noise(config.task, learner.quadrotors.mass, learner.generator))
    standing = 4 * nbytes((learner.quadrotors, learner.episode))
    drawn = config.segment_steps * noise if parts > 1 else 0  # for the whole batch, beside that of the part
    return vehicles / num * (config.segment_steps * (step + noise) / parts + drawn + standing)


def largest_batch(
    learner: Callable[[int, World], GradientLearner],
    device: str,
    world: World,
    accumulation: int = 1,
    memory_gib: float | None = None,
    extra: Callable[[int], float] = lambda vehicles: 0.0,
) -> int:
    """The largest batch that fits.

    On a GPU the peak of two updates of two small batches is measured; elsewhere the tensors of a small learner are.

    Args:
        learner: makes one with a batch of that size, in such a world.
        device: where it is trained.
        world: the processes that share the batch; all of them come to the same answer.
        accumulation: parts of each process's share.
        memory_gib: that may be taken; most of what is free by default.
        extra: bytes that a batch of that size takes besides.

    Raises:
        UserError: not even the smallest batch fits.
    """
    budget, parts = FRACTION_OF_BUDGET * budget_of_each(memory_gib, device, world), world.size * accumulation
    smallest, alone = MULTIPLE * parts, DryRunWorld(world.rank, world.size)
    sizes = smallest, 4 * smallest
    if torch.device(device).type == "cuda":
        peaks = [max(world.all_gather(_peak(functools.partial(learner, size, alone), device))) for size in sizes]
    else:
        small = learner(max(SAMPLE_VEHICLES, Parts(alone, accumulation).num), alone)
        peaks = [BASE_BYTES + segment_bytes(small, size, parts) for size in sizes]
    low, high = (peak + extra(size) for peak, size in zip(peaks, sizes, strict=True))
    if low > budget:
        raise UserError(
            f"not even a batch of {smallest} vehicles fits into memory: lower segment_steps or raise accumulation"
        )
    num = smallest + int((budget - low) / (high - low) * (sizes[1] - sizes[0]))
    return min(num, MOST_VEHICLES) // smallest * smallest


def _peak(begin: Callable[[], GradientLearner], device: str) -> float:
    """Most memory that two updates of a learner take on a GPU, the second with the state of the optimiser, in bytes."""
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    learner = begin()
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
