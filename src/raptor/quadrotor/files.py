"""JSON files of vehicles, one each, in l2f's schema."""

from __future__ import annotations

import json
import os
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from raptor.core.atomic import PathLike, checked_path, write_atomically
from raptor.core.errors import UserError
from raptor.quadrotor.documents import to_dicts
from raptor.quadrotor.validation import validate
from raptor.quadrotor.vehicles import Vehicles

PORTION = 50  # files between two reports of progress


def find(paths: PathLike | Sequence[PathLike]) -> list[Path]:
    """The files that are meant by a file, a list of files, or a folder of `*.json`."""
    if not isinstance(paths, (str, os.PathLike)):
        files = [checked_path(path, "the quadrotor file") for path in paths]
        if not files:
            raise UserError("no quadrotor files were given: name a JSON file, several, or a folder of them")
        return files
    path = checked_path(paths, "the quadrotor file")
    if not path.is_dir():
        return [path]
    files = sorted(path.glob("*.json"), key=_natural_order)
    if not files:
        hint = "; its descriptions become such files by raptor describe" if any(path.glob("*.y*ml")) else ""
        raise UserError(f"{path} holds no *.json files: name a folder that does, or a file{hint}")
    return files


def load(file: Path) -> Any:
    """The content of a JSON file."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"), object_pairs_hook=_without_duplicates)
    except OSError as error:
        raise UserError(f"cannot read the quadrotor file {file}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:  # not JSON, or not text
        if file.suffix.lower() in (".yaml", ".yml"):
            raise _described(file) from error
        raise UserError(f"{file} is not valid JSON: {error}") from error
    if isinstance(content, dict) and "mass" in content and "dynamics" not in content:
        raise _described(file)
    return content


def _described(file: Path) -> UserError:
    output = file.with_suffix(".json") if file.suffix != ".json" else file.with_name(f"{file.stem}_full.json")
    command = shlex.join(("raptor", "describe", str(file), "-o", str(output)))
    return UserError(f"{file} is a description of a quadrotor, not its full parameters; make them: {command}")


def save(
    vehicles: Vehicles,
    folder: PathLike,
    overwrite: bool = False,
    numbered: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> list[Path]:
    """Write one file for each vehicle; see `Quadrotors.save`."""
    target, num = Path(folder), len(vehicles)
    if num == 0:
        raise UserError(f"there are no quadrotors to write to {target}: give at least one")
    validate(vehicles)
    if target.exists() and not target.is_dir():
        raise UserError(f"{target} is a file, but the quadrotors need a folder: choose another name")
    if not overwrite and target.is_dir() and any(target.glob("*.json")):
        raise UserError(f"{target} already holds JSON files: choose another folder, or overwrite")
    try:
        target.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot write quadrotors to {target}: {error.strerror}") from error
    stems = None if numbered else _names(vehicles)
    paths = [target / f"{stem}.json" for stem in stems or (f"{i:04d}" for i in range(num))]
    for begin in range(0, num, PORTION):
        part = slice(begin, begin + PORTION)
        for path, document in zip(paths[part], to_dicts(vehicles[part]), strict=True):
            write_atomically(path, format_document(document) + "\n")
        if progress is not None:
            progress(min(begin + PORTION, num), num)
    if numbered:
        for path in set(target.glob("*.json")) - set(paths):
            if re.fullmatch(r"[0-9]{4,}", path.stem):
                path.unlink(missing_ok=True)
    return paths


def format_document(document: Mapping[str, Any], indent: str = "") -> str:
    """JSON text with one key on a line and arrays of numbers kept on theirs."""
    inner = indent + "  "
    lines = []
    for key, value in document.items():
        if isinstance(value, Mapping) and value:
            text = format_document(value, inner)
        elif isinstance(value, list) and value and isinstance(value[0], list):
            rows = f",\n{inner}  ".join(json.dumps(row, allow_nan=False) for row in value)
            text = f"[\n{inner}  {rows}\n{inner}]"
        else:
            text = json.dumps(value, allow_nan=False)
        lines.append(f"{inner}{json.dumps(key)}: {text}")
    return "{\n" + ",\n".join(lines) + f"\n{indent}}}"


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"the key {next(key for key in keys if keys.count(key) > 1)} comes twice")
    return content


def _natural_order(path: Path) -> list[Any]:
    return [int(part) if i % 2 else part for i, part in enumerate(re.split(r"([0-9]+)", path.name))]


def _names(vehicles: Vehicles) -> tuple[str, ...] | None:
    """The names of the vehicles where all of them serve as names of files."""
    names = vehicles.names or ()
    usable = all(re.fullmatch(r"[^/\\:*?\"<>|\x00-\x1f.][^/\\:*?\"<>|\x00-\x1f]*", name) for name in names)
    return names if usable and len({name.casefold() for name in names}) == len(names) else None
