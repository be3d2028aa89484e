"""The largest batch that fits: tried on a GPU, by the plan of the memory elsewhere."""

from __future__ import annotations

import dataclasses
import gc
from collections.abc import Callable
from typing import Any

import torch

from raptor.distributed import Parts, World
from raptor.errors import UserError
from raptor.nn.teachers import TeacherPopulation
from raptor.training.direct import DirectConfig, DirectLearner, GradientConfig, GradientLearner
from raptor.training.distillation import first_student
from raptor.training.fine_tuning import FineTuner
from raptor.training.memory import BASE_BYTES, budget_bytes
from raptor.training.post_training_config import PostTrainConfig
from raptor.training.post_training_memory import bytes_of_fine_tuning, bytes_of_segment

STEP = 64
"""Batches are multiples of so many vehicles for each part."""

MOST = 2**22
"""Vehicles beyond which nothing is sought."""

SHARE_OF_GPU = 0.9
"""What a trial may take of a GPU. Trials run uncompiled; the rest is left to the compiler and to validation."""

REFINEMENTS = 3


def largest(fits: Callable[[int], bool], step: int, most: int = MOST) -> int:
    """The largest multiple of `step` that fits, to an eighth: doubled as long as it fits, then halved in between.

    Raises:
        UserError: not even `step` fits.
    """
    low, high = 0, step
    while high <= most and fits(high):
        low, high = high, 2 * high
    if not low:
        raise UserError(
            f"not even a batch of {step} vehicles fits into memory: lower segment_steps or raise accumulation"
        )
    for _ in range(REFINEMENTS):
        middle = (low + high) // 2 // step * step
        if low < middle <= most:
            low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def largest_direct(config: DirectConfig, device: str, world: World) -> int:
    """The `batch_size` of `raptor train-direct`; that of the settings plays no part.

    Args:
        config: the other settings.
        device: where it is trained.
        world: the processes that share the batch; all of them come to the same answer.
    """

    def begun(num: int) -> GradientLearner:
        return DirectLearner(_of_size(config, num), device=device, compile=False)

    def needed(num: int) -> float:
        sized = _of_size(config, num)
        return BASE_BYTES + bytes_of_segment(sized, config.hidden_dim, world.size)

    return _found(config, device, None, world, begun, needed)


def largest_fine_tuning(config: PostTrainConfig, teachers: TeacherPopulation, world: World) -> int:
    """The `fine_tune.batch_size` of `raptor post-train`.

    Args:
        config: the other settings.
        teachers: those that take part.
        world: the processes that share the batch; all of them come to the same answer.
    """
    tuning, device = config.tuning, config.device
    policy = first_student(config.student, 0)

    def begun(num: int) -> GradientLearner:
        guides = teachers if config.num_epochs else None
        return FineTuner(_of_size(tuning, num), policy, guides, device=device, compile=False)

    def needed(num: int) -> float:
        sized = dataclasses.replace(config, fine_tune=_of_size(config.fine_tune, num))
        return BASE_BYTES + bytes_of_fine_tuning(sized, teachers.widths, world.size)

    return _found(tuning, device, config.memory_gib, world, begun, needed)


def _found(
    config: GradientConfig,
    device: str,
    memory_gib: float | None,
    world: World,
    begun: Callable[[int], GradientLearner],
    needed: Callable[[int], float],
) -> int:
    parts = Parts(world, config.accumulation)
    if torch.device(device).type == "cuda":
        return largest(lambda num: not world.any(not _flies(begun, num // world.size, device)), STEP * parts.num)
    budget = min(world.collect(budget_bytes(memory_gib, device))) / world.size
    return largest(lambda num: needed(num) <= budget, STEP * parts.num)


def _of_size(config: Any, num: int) -> Any:
    """The settings with a batch of that size, whatever a curriculum says to it."""
    plain = dataclasses.replace(config.curriculum, enabled=False)
    return dataclasses.replace(config, batch_size=num, curriculum=plain)


def _flies(begun: Callable[[int], GradientLearner], num: int, device: str) -> bool:
    """Whether so many vehicles fly and learn on the GPU."""
    _, total = torch.cuda.mem_get_info(device)
    torch.cuda.reset_peak_memory_stats(device)
    try:
        learner = begun(num)
        for _ in range(2):
            learner.update()
        fits = torch.cuda.max_memory_reserved(device) <= SHARE_OF_GPU * total
        del learner
    except torch.OutOfMemoryError:
        fits = False
    gc.collect()
    torch.cuda.empty_cache()
    return fits
