"""Vehicles as JSON files in l2f's schema."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from raptor.core.atomic import write_atomically
from raptor.core.errors import UserError
from raptor.quadrotor.documents import from_dicts, to_dicts
from raptor.quadrotor.parameters import Quadrotors
from raptor.quadrotor.validation import validate

PathLike = str | os.PathLike[str]


def read(
    paths: PathLike | Sequence[PathLike],
    dtype: torch.dtype = torch.float32,
    device: torch.device | str | None = None,
) -> Quadrotors:
    """Read vehicles from one file, a list of files, or a folder of `*.json` (in natural order: 2.json, 10.json).

    Raises:
        UserError: names the file and the JSON path of what is missing, of the wrong shape, or impossible.
    """
    files = _files(paths)
    documents = [_load(file) for file in files]
    return from_dicts(documents, dtype, device, names=[file.stem for file in files], sources=files)


def save(quadrotors: Quadrotors, folder: PathLike, overwrite: bool = False) -> list[Path]:
    """Write one JSON file for each vehicle, named by the vehicle, or 0000.json, ... where the names do not serve.

    Everything is checked before the first file is written, and each file appears complete or not at all.

    Args:
        quadrotors: N vehicles.
        folder: created if it is not there.
        overwrite: replace files of the same names; otherwise a folder that holds JSON files is an error.

    Returns:
        The paths, in the order of the vehicles.
    """
    documents = to_dicts(validate(quadrotors))
    target = Path(folder)
    if target.exists() and not target.is_dir():
        raise UserError(f"{target} is a file, but the quadrotors need a folder: choose another name")
    if not overwrite and target.is_dir() and any(target.glob("*.json")):
        raise UserError(f"{target} already holds JSON files: choose another folder, or overwrite")
    paths = [target / f"{stem}.json" for stem in _stems(quadrotors)]
    try:
        target.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot write quadrotors to {target}: {error.strerror}") from error
    for path, document in zip(paths, documents, strict=True):
        write_atomically(path, format_document(document) + "\n")
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


def _files(paths: PathLike | Sequence[PathLike]) -> list[Path]:
    if not isinstance(paths, (str, os.PathLike)):
        files = [Path(path) for path in paths]
        if not files:
            raise UserError("no quadrotor files were given: name a JSON file, several, or a folder of them")
        return files
    path = Path(paths)
    if not path.is_dir():
        return [path]
    files = sorted(path.glob("*.json"), key=_natural_order)
    if not files:
        raise UserError(f"{path} holds no *.json files: name a folder that does, or a file")
    return files


def _natural_order(path: Path) -> list[tuple[bool, int, str]]:
    parts = re.split(r"([0-9]+)", path.name)
    return [(part.isdecimal(), int(part) if part.isdecimal() else 0, part) for part in parts]


def _load(file: Path) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"cannot read the quadrotor file {file}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:  # not JSON, or not text
        raise UserError(f"{file} is not valid JSON: {error}") from error


def _stems(quadrotors: Quadrotors) -> list[str]:
    names = quadrotors.names or ()
    usable = all(re.fullmatch(r"[^/\\:*?\"<>|\x00-\x1f.][^/\\:*?\"<>|\x00-\x1f]*", name) for name in names)
    if names and usable and len({name.casefold() for name in names}) == len(names):
        return list(names)
    return [f"{i:04d}" for i in range(len(quadrotors))]
