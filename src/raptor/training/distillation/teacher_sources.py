"""Third-party teachers: a file with the network, and the vehicle that it was trained on."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from raptor.core.atomic import PathLike
from raptor.core.errors import UserError
from raptor.formats.expert_files.load import folder_of, load_expert
from raptor.formats.teacher_files import load_teachers
from raptor.nn.teachers import TeacherPopulation
from raptor.quadrotor import PLATFORMS, Quadrotors, load_platform


@dataclasses.dataclass(frozen=True)
class TeacherFile:
    """One teacher, in whatever file `raptor.load_expert` reads."""

    path: PathLike
    quadrotor: PathLike | None = None  # a platform or a JSON file; a folder of teachers knows the vehicles of its own
    activation: str | None = None  # between the layers, where the file does not say
    normalizer: PathLike | None = (
        None  # VecNormalize of stable-baselines3; its clip, which no layer can do, is left out
    )

    def document(self) -> dict[str, str | None]:
        """For JSON; paths are absolute."""
        vehicle = None if self.quadrotor is None else os.fspath(self.quadrotor)
        if vehicle is not None and vehicle not in PLATFORMS:
            vehicle = _absolute(vehicle)
        document = {"path": _absolute(self.path), "quadrotor": vehicle, "activation": self.activation}
        return document if self.normalizer is None else document | {"normalizer": _absolute(self.normalizer)}


TeacherSource = TeacherPopulation | PathLike | TeacherFile | Sequence[PathLike | TeacherFile]
"""Teachers: a population, a folder of `raptor pre-train`, a third-party file, or several of the last two."""


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


def several(source: PathLike | TeacherFile | Sequence[PathLike | TeacherFile]) -> list[PathLike | TeacherFile]:
    """One or several, as a list."""
    return [source] if isinstance(source, (str, os.PathLike, TeacherFile)) else list(source)


def read_source(source: PathLike | TeacherFile) -> tuple[TeacherPopulation, str]:
    """The teachers of a folder, or the one of a file, with their vehicles; and their architecture, in words.

    Raises:
        UserError: it cannot be read, or is of another architecture, or its vehicle is not known.
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
    vehicle = _vehicle(source.quadrotor)
    record = {"name": Path(source.path).stem, "quadrotor": os.fspath(source.quadrotor), "algorithm": expert.source}
    return TeacherPopulation.of([expert], vehicle, [record]), expert.description


def document_of_sources(teachers: TeacherSource | None) -> list[str | dict[str, str | None]] | None:
    """The folders and files that teachers are read from, for JSON; None where they are no files."""
    if teachers is None or isinstance(teachers, TeacherPopulation):
        return None
    return [one.document() if isinstance(one, TeacherFile) else _absolute(one) for one in several(teachers)]


def documented(source: str | dict[str, Any]) -> PathLike | TeacherFile:
    """The source that `TeacherFile.document` describes, or a folder."""
    return source if isinstance(source, str) else TeacherFile(**source)


def _vehicle(name: PathLike) -> Quadrotors:
    if os.fspath(name) in PLATFORMS:
        return load_platform(os.fspath(name))
    path = Path(name).expanduser()
    if not path.exists():
        raise UserError(
            f"there is no quadrotor {os.fspath(name)!r}: give one of {', '.join(PLATFORMS)}, or a JSON file"
        )
    vehicle = Quadrotors.from_json(path)
    if len(vehicle) != 1:
        raise UserError(f"{path} holds {len(vehicle)} quadrotors: a teacher flies one, give its file")
    return vehicle


def _absolute(path: PathLike) -> str:
    return str(Path(path).expanduser().resolve())
