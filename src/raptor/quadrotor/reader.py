"""The one reader of vehicles: platforms by name, full parameters, descriptions, and folders of these files."""

from __future__ import annotations

import collections
import itertools
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from raptor.core.atomic import PathLike, checked_path
from raptor.core.errors import UserError
from raptor.quadrotor.description import from_description
from raptor.quadrotor.files import YAML, is_description, natural_order, read_content
from raptor.quadrotor.parameters import PLATFORMS, Quadrotors, load_platform
from raptor.quadrotor.population import SUMMARY, refuse_broken

OTHERS = (SUMMARY, "stage.yaml")  # files beside vehicles that are none: of a population, and of a stage of a pipeline

OneSource = PathLike | Mapping[str, Any] | Quadrotors
Source = OneSource | Sequence[OneSource]


def load_quadrotors(source: Source, *others: str) -> Quadrotors:
    """Read the vehicles of a source, or of a sequence of them one after another, as one population.

    A source is the name of a platform; a JSON or YAML file of full parameters or of a description; a folder of such
    files, in natural order; the content of a description; or vehicles, which are handed back. Errors about an unknown
    name say that `others` could be given, too.
    """
    if isinstance(source, Quadrotors):
        return source
    if isinstance(source, Mapping):
        return from_description(source)[0]
    if not isinstance(source, (str, os.PathLike)):
        parts = [load_quadrotors(one, *others) for one in source]
        if not parts:
            raise UserError("no quadrotors were given: name a platform, a file or a folder")
        return parts[0] if len(parts) == 1 else Quadrotors.concatenate(parts)
    if source in PLATFORMS:
        return load_platform(os.fspath(source))
    path = checked_path(source, "the quadrotor file")
    if not path.exists():
        names = ", ".join((*PLATFORMS, *others))
        missing = f"there is no quadrotor {os.fspath(source)!r}"
        raise UserError(f"{missing}: give one of {names}, a JSON file, a YAML description, or a folder of these")
    files = vehicle_files(path) if path.is_dir() else [path]
    try:
        return _read(files)
    except UserError:
        if path.is_dir():
            refuse_broken(path, files, lambda file: _read([file]))
        raise


def vehicle_files(folder: Path) -> list[Path]:
    """The JSON and YAML files of a folder, in natural order (2.json, 10.yaml), without `OTHERS`."""
    files = [file for file in folder.iterdir() if file.suffix.lower() in (".json", *YAML) and file.name[0] != "."]
    files = sorted((file for file in files if file.name not in OTHERS), key=natural_order)
    if not files:
        raise UserError(f"{folder} holds no vehicles, neither *.json nor *.yaml: name a folder that does, or a file")
    stems = collections.Counter(file.stem for file in files)
    if (twice := stems.most_common(1)[0])[1] > 1:
        raise UserError(f"{folder} holds {twice[0]} as JSON and as YAML: keep one of them, or name the file")
    return files


def _read(files: Sequence[Path]) -> Quadrotors:
    """The vehicles of files; full parameters that follow each other are read at once."""
    contents = [(file, read_content(file)) for file in files]
    parts: list[Quadrotors] = []
    for described, group in itertools.groupby(contents, lambda pair: _is_described(*pair)):
        some = dict(group)
        if described:
            parts += [from_description(file)[0] for file in some]
        else:
            parts.append(Quadrotors.from_dicts(some.values(), names=[file.stem for file in some], sources=list(some)))
    return parts[0] if len(parts) == 1 else Quadrotors.concatenate(parts)


def _is_described(file: Path, content: Any) -> bool:
    is_full = isinstance(content, Mapping) and "dynamics" in content
    return not is_full and (file.suffix.lower() in YAML or is_description(content))
