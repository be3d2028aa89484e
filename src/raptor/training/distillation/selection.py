"""Which teachers a student may learn from: each is tested before anything begins."""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch

from raptor.core.distributed import ALONE, World
from raptor.core.errors import UserError
from raptor.nn.activations import RELU_TANH
from raptor.nn.stacked_mlp import Layer
from raptor.nn.teachers import TeacherPopulation
from raptor.quadrotor.parameters import NUM_ROTORS
from raptor.rl.teacher_test import TeacherTest
from raptor.tasks.observation import TEACHER_DIM
from raptor.tasks.task import Task
from raptor.training.distillation.config import PostTrainConfig
from raptor.training.distillation.teacher_sources import TeacherSource, read_source, several

TEACHERS_AT_ONCE = 64
NUM_NAMED = 10
TEST_TASK, TEST_SEED = Task(), 20_000_000
"""The episodes that teachers are tested in: RAPTOR's, whatever the student is to fly."""


def read_teachers(source: TeacherSource) -> tuple[TeacherPopulation, list[str]]:
    """Teachers with their vehicles, from one source or from several; in single precision, like every student.

    Returns:
        The teachers, and the architecture of each source, in words.

    Raises:
        UserError: a source holds none, they come without vehicles, or see or do other than a teacher does.
    """
    lines: list[str] = []
    if isinstance(source, TeacherPopulation):
        teachers = source
    else:
        found = [read_source(one) for one in several(source)]
        parts, lines = [teachers for teachers, _ in found], [line for _, line in found]
        teachers = parts[0] if len(parts) == 1 else TeacherPopulation.concatenate(parts)
    if teachers.quadrotors is None:
        raise UserError("the teachers come without their quadrotors: a student flies the vehicle of each teacher")
    if (teachers.observation_dim, teachers.action_dim) != (TEACHER_DIM, NUM_ROTORS):
        raise UserError(
            f"a teacher maps {TEACHER_DIM} numbers to {NUM_ROTORS}, these map {teachers.observation_dim} to "
            f"{teachers.action_dim}"
        )
    if {teachers.dtype, teachers.quadrotors.mass.dtype} == {torch.float32}:
        return teachers, lines
    layers = tuple(Layer(*(tensor.float() for tensor in layer)) for layer in teachers.layers)
    vehicles = teachers.quadrotors.to(dtype=torch.float32)
    return dataclasses.replace(teachers, layers=layers, quadrotors=vehicles), lines


def fingerprint(teachers: TeacherPopulation) -> str:
    """The same for the same weights and vehicles."""
    assert teachers.quadrotors is not None
    digest = hashlib.sha256()
    vehicles = [getattr(teachers.quadrotors, field.name) for field in dataclasses.fields(teachers.quadrotors)]
    for tensor in (*(t for layer in teachers.layers for t in layer), *vehicles):
        if isinstance(tensor, torch.Tensor):
            digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    if teachers.activations != RELU_TANH:
        digest.update(repr(teachers.activations).encode())
    return digest.hexdigest()


def examine(
    teachers: TeacherPopulation,
    config: PostTrainConfig,
    report: Callable[[int], None] | None = None,
    world: World = ALONE,
) -> TeacherPopulation:
    """The same teachers, each with the return, termination rate and offset of a test of its own.

    Args:
        teachers: with their vehicles.
        config: of the post-training.
        report: called with how many have been tested.
        world: the processes that share the tests.
    """
    tested: dict[int, list[dict[str, Any]]] = {}  # by the first teacher
    for first in range(world.rank * TEACHERS_AT_ONCE, len(teachers), world.size * TEACHERS_AT_ONCE):
        records = tested[first] = []
        some = teachers[first : first + TEACHERS_AT_ONCE].to(config.device)
        assert some.quadrotors is not None
        test = TeacherTest(
            TEST_TASK, some.quadrotors, config.num_teacher_episodes, TEST_SEED, config.compile, some.activations
        )
        flights = test(some.layers)
        for record, returns, terminated, offset in zip(
            some.records, flights.returns.cpu(), flights.terminated.cpu(), flights.position_offset.cpu(), strict=True
        ):
            found = {
                "return": returns.mean().item(),
                "termination_rate": terminated.float().mean().item(),
                "position_offset": offset.nan_to_num(0.0).tolist(),
            }
            records.append({**record, **found})
        if report is not None:
            report(min(len(teachers), first + world.size * TEACHERS_AT_ONCE))
    together = {first: records for part in world.all_gather(tested) for first, records in part.items()}
    return dataclasses.replace(teachers, records=tuple(r for first in sorted(together) for r in together[first]))


def select(teachers: TeacherPopulation, config: PostTrainConfig) -> tuple[TeacherPopulation, list[str]]:
    """Those that are good enough by their records, and the names of those that are not.

    Raises:
        UserError: none is, or some are not and `weak_teachers` is refuse.
    """
    strong: list[int] = []
    weak: list[int] = []
    for i, record in enumerate(teachers.records):
        good = record["return"] >= config.solved_return  # not a number is not good
        (strong if good else weak).append(i)
    vehicles = teachers.quadrotors
    names = vehicles.names if vehicles is not None and vehicles.names else tuple(map(str, range(len(teachers))))
    weak_names = [f"{teachers.records[i].get('name', names[i])}" for i in weak]
    if not strong:
        returns = [record["return"] for record in teachers.records]
        best = max((value for value in returns if not math.isnan(value)), default=math.nan)
        raise UserError(
            f"none of the {len(teachers)} teachers reaches solved_return {config.solved_return:g}, the best has "
            f"{best:.1f}: train them longer, or lower solved_return"
        )
    if weak and config.weak_teachers == "refuse":
        raise UserError(
            f"{len(weak)} of {len(teachers)} teachers do not reach solved_return {config.solved_return:g}: "
            f"{shortened(weak_names)}; train them longer, lower solved_return, or set weak_teachers=drop"
        )
    return (teachers if not weak else teachers[strong]), weak_names


def shortened(names: Sequence[str]) -> str:
    """The first few names."""
    more = f" and {len(names) - NUM_NAMED} more" if len(names) > NUM_NAMED else ""
    return ", ".join(names[:NUM_NAMED]) + more
