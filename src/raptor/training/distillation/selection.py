"""Which teachers a student may learn from: each is tested before anything begins."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

from raptor.core.distributed import ALONE, World
from raptor.core.errors import UserError
from raptor.nn.teachers import TeacherPopulation
from raptor.rl.teacher_test import TeacherTest
from raptor.runs.progress import Progress, ProgressFunction
from raptor.tasks.task import Task
from raptor.training.distillation.config import PostTrainConfig

TEACHERS_AT_ONCE = 64
NUM_NAMED = 10
TEST_TASK, TEST_SEED = Task(), 20_000_000
"""The episodes that teachers are tested in: RAPTOR's, whatever the student is to fly."""


def examine(
    teachers: TeacherPopulation,
    config: PostTrainConfig,
    progress: ProgressFunction | None = None,
    world: World = ALONE,
) -> TeacherPopulation:
    """The same teachers, each with the return, termination rate and offset of a test of its own.

    Args:
        teachers: with their vehicles.
        config: of the post-training.
        progress: called after each block of teachers.
        world: the processes that share the tests.
    """
    tested: dict[int, list[dict[str, Any]]] = {}  # by the first teacher
    for first in range(world.rank * TEACHERS_AT_ONCE, len(teachers), world.size * TEACHERS_AT_ONCE):
        some = teachers[first : first + TEACHERS_AT_ONCE].to(config.device)
        assert some.quadrotors is not None
        test = TeacherTest(
            TEST_TASK, some.quadrotors, config.num_teacher_episodes, TEST_SEED, config.compile, some.activations
        )
        found = test(some.layers)
        figures = found.returns.cpu(), found.terminated.cpu(), found.position_offset.cpu()
        tested[first] = [
            {
                **record,
                "return": returns.mean().item(),
                "termination_rate": terminated.float().mean().item(),
                "position_offset": offset.nan_to_num(0.0).tolist(),
            }
            for record, returns, terminated, offset in zip(some.records, *figures, strict=True)
        ]
        if progress is not None:
            done = min(len(teachers), first + world.size * TEACHERS_AT_ONCE)
            progress(Progress("testing teachers", done, len(teachers), "teacher"))
    together = {first: records for part in world.all_gather(tested) for first, records in part.items()}
    return dataclasses.replace(teachers, records=tuple(r for first in sorted(together) for r in together[first]))


def select(teachers: TeacherPopulation, config: PostTrainConfig) -> tuple[TeacherPopulation, list[str]]:
    """Those that are good enough by their records, and the names of those that are not.

    Raises:
        UserError: none is, or some are not and `weak_teachers` is refuse.
    """
    returns = [record["return"] for record in teachers.records]
    strong = [i for i, value in enumerate(returns) if value >= config.solved_return]  # not a number is not good
    if not strong:
        best = max((value for value in returns if not math.isnan(value)), default=math.nan)
        raise UserError(
            f"none of the {len(teachers)} teachers reaches solved_return {config.solved_return:g}, the best has "
            f"{best:.1f}: train them longer, or lower solved_return"
        )
    if len(strong) == len(teachers):
        return teachers, []
    vehicles = teachers.quadrotors
    names = vehicles.names if vehicles is not None and vehicles.names else tuple(map(str, range(len(teachers))))
    weak = [f"{teachers.records[i].get('name', names[i])}" for i in sorted({*range(len(teachers))} - {*strong})]
    if config.weak_teachers == "refuse":
        raise UserError(
            f"{len(weak)} of {len(teachers)} teachers do not reach solved_return {config.solved_return:g}: "
            f"{shortened(weak)}; train them longer, lower solved_return, or set weak_teachers=drop"
        )
    return teachers[strong], weak


def shortened(names: Sequence[str]) -> str:
    """The first few names."""
    more = f" and {len(names) - NUM_NAMED} more" if len(names) > NUM_NAMED else ""
    return ", ".join(names[:NUM_NAMED]) + more
