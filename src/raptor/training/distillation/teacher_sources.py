"""Teachers to learn from: reading them from folders and files, with the vehicles that they were trained on."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from raptor.core.atomic import PathLike
from raptor.core.errors import UserError
from raptor.formats.expert_files import folder_of, load_expert
from raptor.formats.teacher_files import load_teachers
from raptor.nn.activations import RELU_TANH
from raptor.nn.stacked_mlp import Layer
from raptor.nn.teachers import TeacherPopulation
from raptor.quadrotor import PLATFORMS, Quadrotors, load_quadrotors
from raptor.quadrotor.parameters import NUM_ROTORS
from raptor.tasks.observation import TEACHER_DIM


@dataclasses.dataclass(frozen=True)
class TeacherFile:
    """One teacher, in whatever file `raptor.load_expert` reads."""

    path: PathLike
    quadrotor: PathLike | None = None  # a platform or a JSON file; a folder of teachers knows the vehicles of its own
    activation: str | None = None  # between the layers, where the file does not say
    normalizer: PathLike | None = None  # VecNormalize of stable-baselines3; no layer can clip, so its clip is left out

    def document(self) -> dict[str, str | None]:
        """For JSON; paths are absolute."""
        vehicle = None if self.quadrotor is None else os.fspath(self.quadrotor)
        if vehicle is not None and vehicle not in PLATFORMS:
            vehicle = _absolute(vehicle)
        document = {"path": _absolute(self.path), "quadrotor": vehicle, "activation": self.activation}
        return document if self.normalizer is None else document | {"normalizer": _absolute(self.normalizer)}


OneSource = PathLike | TeacherFile
TeacherSource = TeacherPopulation | OneSource | Sequence[OneSource]
"""Teachers: a population, a folder of `raptor pre-train`, a third-party file, or several of the last two."""


class TeacherNote(NamedTuple):
    """What a run notes of its teachers, so that it can be resumed without giving them again."""

    source: list[Any] | None  # see `document_of_sources`
    fingerprint: str
    records: list[Any]  # of each teacher, with the figures of its test

    @classmethod
    def read(cls, path: Path) -> TeacherNote | None:
        """The note in a file; None where the run was stopped before.

        Raises:
            UserError: it is damaged.
        """
        if not path.exists():
            return None
        try:
            document = json.loads(path.read_text(encoding="utf-8"))
            return cls(*(document[name] for name in cls._fields))
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise UserError(f"{path} cannot be read: start anew with --overwrite") from error


def teacher_files(
    paths: Sequence[PathLike],
    quadrotors: Sequence[PathLike],
    activation: str | None = None,
    normalizer: PathLike | None = None,
) -> list[TeacherFile]:
    """A `TeacherFile` for each path.

    Args:
        paths: of the networks.
        quadrotors: the vehicle of each, one for all, or none.
        activation: of all.
        normalizer: of all.

    Raises:
        UserError: there are other than no, one or as many vehicles as networks.
    """
    if not paths and (quadrotors or activation or normalizer):
        raise UserError("--quadrotor and --teacher-* are of a teacher: give its file with --teacher")
    if len(quadrotors) not in (0, 1, len(paths)):
        raise UserError(
            f"--quadrotor must be given once for all, or once for each of the {len(paths)} teachers, got "
            f"{len(quadrotors)}"
        )
    vehicles: list[PathLike | None] = [*quadrotors] or [None]
    vehicles = vehicles * len(paths) if len(vehicles) == 1 else vehicles
    return [TeacherFile(path, vehicle, activation, normalizer) for path, vehicle in zip(paths, vehicles, strict=True)]


def read_teachers(source: TeacherSource) -> tuple[TeacherPopulation, list[str]]:
    """Teachers with their vehicles, from one source or from several; in single precision, like every student.

    Returns:
        The teachers, and the architecture of each source, in words.

    Raises:
        UserError: a source holds none, they come without vehicles, or observe or do other than a teacher does.
    """
    lines: list[str] = []
    if isinstance(source, TeacherPopulation):
        teachers = source
    else:
        found = [read_source(one) for one in _several(source)]
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


def read_source(source: OneSource) -> tuple[TeacherPopulation, str]:
    """The teachers of a folder, or the one of a file, with their vehicles; and their architecture, in words.

    Raises:
        UserError: it cannot be read, or is of another architecture, or does not say which vehicle it was trained on.
    """
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
        raise UserError(
            f"the vehicle of the teacher {source.path} is not known: give the one that it was trained on, "
            f"--quadrotor with one of {', '.join(PLATFORMS)}, or with a JSON file"
        )
    name = os.fspath(source.quadrotor)
    record = {"name": Path(source.path).stem, "quadrotor": name, "algorithm": expert.source}
    return TeacherPopulation.of([expert], _vehicle(name), [record]), expert.description


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


def document_of_sources(teachers: TeacherSource | None) -> list[str | dict[str, str | None]] | None:
    """The folders and files that teachers are read from, for JSON; None where they are no files."""
    if teachers is None or isinstance(teachers, TeacherPopulation):
        return None
    return [one.document() if isinstance(one, TeacherFile) else _absolute(one) for one in _several(teachers)]


def documented(source: str | dict[str, Any]) -> OneSource:
    """The source that an entry of `document_of_sources` describes."""
    return source if isinstance(source, str) else TeacherFile(**source)


def _several(source: OneSource | Sequence[OneSource]) -> list[OneSource]:
    return [source] if isinstance(source, (str, os.PathLike, TeacherFile)) else list(source)


def _vehicle(name: str) -> Quadrotors:
    vehicle = load_quadrotors(name)
    if len(vehicle) != 1:
        raise UserError(f"{name} holds {len(vehicle)} quadrotors: a teacher flies one, give its file")
    return vehicle


def _absolute(path: PathLike) -> str:
    return str(Path(path).expanduser().resolve())
