"""Teachers to learn from: read from folders and files with their vehicles, tested, and selected by their test."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from raptor.core.atomic import PathLike
from raptor.core.distributed import ALONE, World
from raptor.core.errors import UserError
from raptor.core.yaml_files import to_plain
from raptor.formats.expert_files import folder_of, load_expert
from raptor.formats.teacher_files import load_teachers
from raptor.nn.activations import RELU_TANH
from raptor.nn.stacked_mlp import Layer
from raptor.nn.teachers import TeacherPopulation
from raptor.quadrotor import PLATFORMS, Quadrotors, load_quadrotors
from raptor.quadrotor.parameters import NUM_ROTORS
from raptor.rl.teacher_test import TeacherTest
from raptor.runs.progress import Progress, ProgressFunction
from raptor.tasks.observation import TEACHER_DIM
from raptor.tasks.task import Task
from raptor.training.distillation.config import PostTrainConfig

TEACHERS_AT_ONCE = 64
NUM_NAMED = 10
TEST_TASK, TEST_SEED = Task(), 20_000_000
"""The episodes that teachers are tested in: RAPTOR's, whatever the student is to fly."""


@dataclasses.dataclass(frozen=True)
class TeacherFile:
    """One teacher, in whatever file `raptor.load_expert` reads."""

    path: PathLike
    quadrotor: PathLike | None = None  # as for load_quadrotors; a folder of teachers knows its own
    activation: str | None = None  # between the layers, where the file does not say
    normalizer: PathLike | None = None  # VecNormalize of stable-baselines3; no layer can clip, so its clip is left out

    def document(self) -> dict[str, str | None]:
        """For JSON; paths are absolute."""
        vehicle = self.quadrotor and os.fspath(self.quadrotor)
        vehicle = vehicle if vehicle in (None, *PLATFORMS) else _absolute(vehicle)
        document = {"path": _absolute(self.path), "quadrotor": vehicle, "activation": self.activation}
        return document if self.normalizer is None else document | {"normalizer": _absolute(self.normalizer)}


Paths = Sequence[PathLike]
OneSource = PathLike | TeacherFile
TeacherSource = TeacherPopulation | OneSource | Sequence[OneSource]
"""Teachers: a population, a folder of `raptor pre-train`, a third-party file, or several of the last two."""


class TeacherNote(NamedTuple):
    """What a run notes of its teachers, so that it can be resumed without giving them again."""

    source: list[Any] | None  # the folders and files that they are read from; None where they are no files
    fingerprint: str
    records: list[Any]  # of each teacher, with the figures of its test

    @classmethod
    def read(cls, path: Path) -> TeacherNote | None:
        """The note in a file; None where the run was stopped before."""
        try:
            document = json.loads(path.read_text(encoding="utf-8"))
            return cls(*(document[name] for name in cls._fields))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise UserError(f"{path} cannot be read: start anew with --overwrite") from error

    @classmethod
    def of(cls, source: TeacherSource | None, teachers: TeacherPopulation) -> TeacherNote:
        """The note of teachers that were read from a source."""
        several = None if source is None or isinstance(source, TeacherPopulation) else _several(source)
        documents = [one.document() if isinstance(one, TeacherFile) else _absolute(one) for one in several or ()]
        records = [to_plain(record, f"records[{i}]") for i, record in enumerate(teachers.records)]
        return cls(None if several is None else documents, fingerprint(teachers), records)

    def sources(self, run: Path) -> list[OneSource]:
        """What to read the teachers of a run from again."""
        if self.source is None:
            raise UserError(f"the run in {run} began with teachers of no folder: give the same ones to resume it")
        return [source if isinstance(source, str) else TeacherFile(**source) for source in self.source]

    def restore(self, teachers: TeacherPopulation, run: Path) -> TeacherPopulation:
        """The teachers with the figures of their test; refuses others than those that the run began with."""
        if self.fingerprint != fingerprint(teachers):
            raise UserError(f"the run in {run} learns from other teachers: resume it without giving any")
        return dataclasses.replace(teachers, records=tuple(self.records))


def teacher_files(
    paths: Paths, quadrotors: Paths, activation: str | None = None, normalizer: PathLike | None = None
) -> list[TeacherFile]:
    """A `TeacherFile` for each path; the vehicle of each is given, one for all, or none."""
    if not paths and (quadrotors or activation or normalizer):
        raise UserError("--quadrotor and --teacher-* are of a teacher: give its file with --teacher")
    if len(quadrotors) not in (0, 1, len(paths)):
        once = f"once for all, or once for each of the {len(paths)} teachers"
        raise UserError(f"--quadrotor must be given {once}, got {len(quadrotors)}")
    vehicles = quadrotors if len(quadrotors) > 1 else [*quadrotors, None][:1] * len(paths)
    return [TeacherFile(path, vehicle, activation, normalizer) for path, vehicle in zip(paths, vehicles, strict=True)]


def read_teachers(source: TeacherSource) -> tuple[TeacherPopulation, list[str]]:
    """Teachers with their vehicles, in single precision, like every student; and the architecture of each source."""
    if isinstance(source, TeacherPopulation):
        teachers, lines = source, []
    else:
        found = [read_source(one) for one in _several(source)]
        teachers = found[0][0] if len(found) == 1 else TeacherPopulation.concatenate(part for part, _ in found)
        lines = [architecture for _, architecture in found]
    if teachers.quadrotors is None:
        raise UserError("the teachers come without their quadrotors: a student flies the vehicle of each teacher")
    if (teachers.observation_dim, teachers.action_dim) != (TEACHER_DIM, NUM_ROTORS):
        these = f"these map {teachers.observation_dim} to {teachers.action_dim}"
        raise UserError(f"a teacher maps {TEACHER_DIM} numbers to {NUM_ROTORS}, {these}")
    if {teachers.dtype, teachers.quadrotors.mass.dtype} == {torch.float32}:
        return teachers, lines
    layers = tuple(Layer(*(tensor.float() for tensor in layer)) for layer in teachers.layers)
    vehicles = teachers.quadrotors.to(dtype=torch.float32)
    return dataclasses.replace(teachers, layers=layers, quadrotors=vehicles), lines


def read_source(source: OneSource) -> tuple[TeacherPopulation, str]:
    """The teachers of a folder, or the one of a file, with their vehicles; and their architecture, in words."""
    if not isinstance(source, TeacherFile):
        teachers = load_teachers(source)
        return teachers, teachers.expert(0, f"{len(teachers)} teachers in {source}").description
    expert = load_expert(source.path, source.activation, source.normalizer)
    if source.normalizer is not None and expert.normalizer is not None:
        expert = dataclasses.replace(expert, normalizer=dataclasses.replace(expert.normalizer, clip=None))
    folder, index = folder_of(source.path)
    if folder is not None and source.quadrotor is None:
        teachers = load_teachers(folder)[index or 0]
        if teachers.quadrotors is not None:
            return teachers, expert.description
    if source.quadrotor is None:
        remedy = f"--quadrotor with one of {', '.join(PLATFORMS)}, or with a JSON file or a description"
        unknown = f"the vehicle of the teacher {source.path} is not known"
        raise UserError(f"{unknown}: give the one that it was trained on, {remedy}")
    name, vehicle = os.fspath(source.quadrotor), load_quadrotors(os.fspath(source.quadrotor))
    if len(vehicle) != 1:
        raise UserError(f"{name} holds {len(vehicle)} quadrotors: a teacher flies one, give its file")
    record = {"name": Path(source.path).stem, "quadrotor": name, "algorithm": expert.source}
    return TeacherPopulation.of([expert], vehicle, [record]), expert.description


def fingerprint(teachers: TeacherPopulation) -> str:
    """The same for the same weights and vehicles."""
    digest, quadrotors = hashlib.sha256(), teachers.quadrotors
    vehicles = [getattr(quadrotors, field.name) for field in dataclasses.fields(Quadrotors)]
    for tensor in (*(t for layer in teachers.layers for t in layer), *vehicles):
        if isinstance(tensor, torch.Tensor):
            digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    if teachers.activations != RELU_TANH:
        digest.update(repr(teachers.activations).encode())
    return digest.hexdigest()


def examine(
    teachers: TeacherPopulation, config: PostTrainConfig, progress: ProgressFunction | None = None, world: World = ALONE
) -> TeacherPopulation:
    """The same teachers, each with the return, termination rate and offset of a test of its own.

    The processes of the world share the tests; `progress` is called after each block of teachers.
    """
    tested: dict[int, list[dict[str, Any]]] = {}  # by the first teacher
    for first in range(world.rank * TEACHERS_AT_ONCE, len(teachers), world.size * TEACHERS_AT_ONCE):
        some = teachers[first : first + TEACHERS_AT_ONCE].to(config.device)
        assert some.quadrotors is not None
        episodes = TEST_TASK, some.quadrotors, config.num_teacher_episodes, TEST_SEED
        found = TeacherTest(*episodes, config.compile, some.activations)(some.layers)
        figures = {
            "return": [returns.mean().item() for returns in found.returns.cpu()],
            "termination_rate": [terminated.float().mean().item() for terminated in found.terminated.cpu()],
            "position_offset": found.position_offset.cpu().nan_to_num(0.0).tolist(),
        }
        rows = zip(some.records, *figures.values(), strict=True)
        tested[first] = [record | dict(zip(figures, row, strict=True)) for record, *row in rows]
        if progress is not None:
            done = min(len(teachers), first + world.size * TEACHERS_AT_ONCE)
            progress(Progress("testing teachers", done, len(teachers), "teacher"))
    together = {first: records for part in world.all_gather(tested) for first, records in part.items()}
    return dataclasses.replace(teachers, records=tuple(r for first in sorted(together) for r in together[first]))


def select(teachers: TeacherPopulation, config: PostTrainConfig) -> tuple[TeacherPopulation, list[str]]:
    """Those that are good enough by their records, and the names of those that are not, where these may be dropped."""
    returns, num = [record["return"] for record in teachers.records], len(teachers)
    strong = [i for i, value in enumerate(returns) if value >= config.solved_return]  # not a number is not good
    wanted = f"solved_return {config.solved_return:g}"
    if not strong:
        best = f"{max((value for value in returns if not math.isnan(value)), default=math.nan):.1f}"
        remedy = "train them longer, or lower solved_return"
        raise UserError(f"none of the {num} teachers reaches {wanted}, the best has {best}: {remedy}")
    if len(strong) == num:
        return teachers, []
    vehicles = teachers.quadrotors
    names = vehicles.names if vehicles is not None and vehicles.names else range(num)
    weak = [f"{teachers.records[i].get('name', names[i])}" for i in range(num) if i not in strong]
    if config.weak_teachers == "refuse":
        remedy = "train them longer, lower solved_return, or set weak_teachers=drop"
        raise UserError(f"{len(weak)} of {num} teachers do not reach {wanted}: {shortened(weak)}; {remedy}")
    return teachers[strong], weak


def shortened(names: Sequence[str]) -> str:
    """The first few names."""
    more = f" and {len(names) - NUM_NAMED} more" if len(names) > NUM_NAMED else ""
    return ", ".join(names[:NUM_NAMED]) + more


def _several(source: OneSource | Sequence[OneSource]) -> list[OneSource]:
    return [source] if isinstance(source, (str, os.PathLike, TeacherFile)) else list(source)


def _absolute(path: PathLike) -> str:
    return str(Path(path).expanduser().resolve())
