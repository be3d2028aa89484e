"""Which teachers a student may learn from: each is tested before anything begins."""

from __future__ import annotations

import dataclasses
import hashlib
import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from raptor.atomic import PathLike
from raptor.errors import UserError
from raptor.nn.stacked_mlp import Layer
from raptor.nn.teacher_files import load_teachers
from raptor.nn.teachers import TeacherPopulation
from raptor.quadrotor.parameters import NUM_ROTORS
from raptor.rl.teacher_flights import TeacherTest
from raptor.tasks.observation import TEACHER_DIM
from raptor.tasks.task import Task
from raptor.training.post_training_config import PostTrainConfig

TEACHERS_AT_ONCE = 64
NUM_NAMED = 10
TEST_TASK, TEST_SEED = Task(), 20_000_000
"""The episodes that teachers are tested in: RAPTOR's, whatever the student is to fly."""


def read_teachers(source: TeacherPopulation | PathLike | Sequence[PathLike]) -> TeacherPopulation:
    """Teachers with their vehicles, from one folder or from several; in single precision, like every student.

    Raises:
        UserError: a folder holds none, they come without vehicles, or see or do other than a teacher does.
    """
    if isinstance(source, TeacherPopulation):
        teachers = source
    else:
        folders = [source] if isinstance(source, (str, os.PathLike)) else list(source)
        parts = [load_teachers(Path(folder)) for folder in folders]
        teachers = parts[0] if len(parts) == 1 else TeacherPopulation.concatenate(parts)
    if teachers.quadrotors is None:
        raise UserError("the teachers come without their quadrotors: a student flies the vehicle of each teacher")
    if (teachers.observation_dim, teachers.action_dim) != (TEACHER_DIM, NUM_ROTORS):
        raise UserError(
            f"a teacher maps {TEACHER_DIM} numbers to {NUM_ROTORS}, these map {teachers.observation_dim} to "
            f"{teachers.action_dim}"
        )
    if {teachers.dtype, teachers.quadrotors.mass.dtype} == {torch.float32}:
        return teachers
    layers = tuple(Layer(*(tensor.float() for tensor in layer)) for layer in teachers.layers)
    return dataclasses.replace(teachers, layers=layers, quadrotors=teachers.quadrotors.to(dtype=torch.float32))


def fingerprint(teachers: TeacherPopulation) -> str:
    """The same for the same weights and vehicles."""
    assert teachers.quadrotors is not None
    digest = hashlib.sha256()
    vehicles = [getattr(teachers.quadrotors, field.name) for field in dataclasses.fields(teachers.quadrotors)]
    for tensor in (*(t for layer in teachers.layers for t in layer), *vehicles):
        if isinstance(tensor, torch.Tensor):
            digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def examine(
    teachers: TeacherPopulation, config: PostTrainConfig, report: Callable[[int], None] | None = None
) -> TeacherPopulation:
    """The same teachers, each with the return, share terminated and offset of a test of its own.

    Args:
        teachers: with their vehicles.
        config: of the post-training.
        report: told how many have been tested.
    """
    records = []
    for first in range(0, len(teachers), TEACHERS_AT_ONCE):
        some = teachers[first : first + TEACHERS_AT_ONCE].to(config.device)
        assert some.quadrotors is not None
        flights = TeacherTest(TEST_TASK, some.quadrotors, config.num_teacher_episodes, TEST_SEED, config.compile)(
            some.layers
        )
        for record, returns, terminated, offset in zip(
            some.records, flights.returns.cpu(), flights.terminated.cpu(), flights.position_offset.cpu(), strict=True
        ):
            found = {
                "return": returns.mean().item(),
                "share_terminated": terminated.float().mean().item(),
                "position_offset": offset.nan_to_num(0.0).tolist(),
            }
            records.append({**record, **found})
        if report is not None:
            report(len(records))
    return dataclasses.replace(teachers, records=tuple(records))


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
