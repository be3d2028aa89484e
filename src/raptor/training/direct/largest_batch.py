"""The largest batch that fits: tried on a GPU, by the plan of the memory elsewhere."""

from __future__ import annotations

import dataclasses
import gc
from collections.abc import Callable
from typing import TypeVar

import torch

from raptor.core.distributed import DryRunWorld, Parts, World
from raptor.core.errors import UserError
from raptor.nn.teachers import TeacherPopulation
from raptor.training.direct.config import GradientConfig
from raptor.training.direct.learner import DirectConfig, DirectLearner, GradientLearner
from raptor.training.distillation.config import PostTrainConfig
from raptor.training.distillation.fine_tuning import FineTuner
from raptor.training.distillation.learner import first_student
from raptor.training.distillation.post_training_memory import budget_of_each, bytes_of_segment, fine_tuning_fits
from raptor.training.teachers.memory import BASE_BYTES

C = TypeVar("C", bound=GradientConfig)

STEP = 64
"""Batches are multiples of so many vehicles for each part."""

MOST = 2**22
"""Vehicles beyond which nothing is sought."""

SHARE_OF_GPU = 0.9
"""What a trial may take of a GPU. Trials run uncompiled; the rest is left to the compiler and to validation."""

SHARE_OF_BUDGET = 0.9
"""What fine-tuning may take of the memory that is planned with, so that it finds room also where a little less is free
when the run is resumed."""

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
    rehearsal = DryRunWorld(world.rank, world.size)
    if torch.device(device).type == "cuda":

        def fits(num: int) -> bool:
            sized = of_batch(config, num)
            return _all_fly(lambda: DirectLearner(sized, 0, device, False, rehearsal), device, world)

    else:
        budget = budget_of_each(None, device, world)

        def fits(num: int) -> bool:
            return BASE_BYTES + bytes_of_segment(of_batch(config, num), config.hidden_dim, world.size) <= budget

    return largest(fits, smallest(config, world))


def largest_fine_tuning(config: PostTrainConfig, teachers: TeacherPopulation, world: World) -> int:
    """The `fine_tune.batch_size` of `raptor post-train`; that of the settings plays no part.

    It is within the plan of the memory also on a GPU.

    Args:
        config: the other settings.
        teachers: those that take part.
        world: the processes that share the batch; all of them come to the same answer.
    """
    device, rehearsal = config.device, DryRunWorld(world.rank, world.size)
    policy, guides = first_student(config.student, 0), teachers if config.num_epochs else None
    budget = SHARE_OF_BUDGET * budget_of_each(config.memory_gib, device, world)

    def fits(num: int) -> bool:
        sized = with_batch(config, num)
        if not fine_tuning_fits(sized, teachers.widths, budget, world.size):
            return False
        if torch.device(device).type != "cuda":
            return True
        return _all_fly(lambda: FineTuner(sized.tuning, policy, guides, 0, device, False, rehearsal), device, world)

    return largest(fits, smallest(config.fine_tune, world))


def smallest(config: GradientConfig, world: World) -> int:
    """The least batch that is tried; all others are multiples of it."""
    return STEP * Parts(world, config.accumulation).num


def with_batch(config: PostTrainConfig, num: int) -> PostTrainConfig:
    """The settings with a batch of that size in fine-tuning, whatever a curriculum says to it."""
    return dataclasses.replace(config, fine_tune=of_batch(config.fine_tune, num))


def of_batch(config: C, num: int) -> C:
    """The settings with a batch of that size, whatever a curriculum says to it."""
    plain = dataclasses.replace(config.curriculum, enabled=False)
    return dataclasses.replace(config, batch_size=num, curriculum=plain)


def _all_fly(begun: Callable[[], GradientLearner], device: str, world: World) -> bool:
    """Whether a learner has room on the GPU of each process."""
    return not world.any_rank(not _flies(begun, device))


def _flies(begun: Callable[[], GradientLearner], device: str) -> bool:
    """Whether a learner has room on the GPU; nothing is left of it there."""
    _, total = torch.cuda.mem_get_info(device)
    torch.cuda.reset_peak_memory_stats(device)
    try:
        _learn(begun)
        fits = torch.cuda.max_memory_reserved(device) <= SHARE_OF_GPU * total
    except torch.OutOfMemoryError:
        fits = False
    gc.collect()
    torch.cuda.empty_cache()
    return fits


def _learn(begun: Callable[[], GradientLearner]) -> None:
    """Two updates, the second of which has the state of the optimiser."""
    learner = begun()
    for _ in range(2):
        learner.update()
