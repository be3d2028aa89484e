"""The JSON files of vehicles: which are meant, what they hold, and their text; plain values for all readers."""

from __future__ import annotations

import json
import os
import re
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from raptor.core.atomic import PathLike, checked_path
from raptor.core.errors import UserError
from raptor.core.yaml_files import read_yaml

YAML = (".yaml", ".yml")


def find_files(paths: PathLike | Sequence[PathLike]) -> list[Path]:
    """The files that are meant by a file, a list of files, or a folder of `*.json`."""
    if not isinstance(paths, (str, os.PathLike)):
        files = [checked_path(path, "the quadrotor file") for path in paths]
        if not files:
            raise UserError("no quadrotor files were given: name a JSON file, several, or a folder of them")
        return files
    path = checked_path(paths, "the quadrotor file")
    if not path.is_dir():
        return [path]
    files = sorted(path.glob("*.json"), key=natural_order)
    if not files:
        hint = "; its descriptions become such files by raptor describe" if any(path.glob("*.y*ml")) else ""
        raise UserError(f"{path} holds no *.json files: name a folder that does, or a file{hint}")
    return files


def read_json(file: Path) -> Any:
    """The full parameters of a vehicle, as they stand in a JSON file; a description is refused."""
    content = None if file.suffix.lower() in YAML else read_content(file)
    if content is None or is_description(content):
        output = file.with_suffix(".json") if file.suffix != ".json" else file.with_name(f"{file.stem}_full.json")
        command = shlex.join(("raptor", "describe", str(file), "-o", str(output)))
        raise UserError(f"{file} is a description of a quadrotor, not its full parameters; make them: {command}")
    return content


def read_content(file: Path) -> Any:
    """What a JSON or YAML file holds."""
    if file.suffix.lower() in YAML:
        return read_yaml(file)
    try:
        return json.loads(file.read_text(encoding="utf-8"), object_pairs_hook=_without_duplicates)
    except OSError as error:
        raise UserError(f"cannot read the quadrotor file {file}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:  # not JSON, or not text
        raise UserError(f"{file} is not valid JSON: {error}") from error


def is_description(content: Any) -> bool:
    """Whether it describes a vehicle, as opposed to full parameters."""
    return isinstance(content, Mapping) and "mass" in content and "dynamics" not in content


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"the key {next(key for key in keys if keys.count(key) > 1)} comes twice")
    return content


def natural_order(path: Path) -> list[Any]:
    """Key that sorts 2.json before 10.json."""
    return [int(part) if i % 2 else part for i, part in enumerate(re.split(r"([0-9]+)", path.name))]


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


def plain(value: Any, leaf: Callable[[Any], Any] = lambda value: value) -> Any:
    """A deep copy in the types of JSON: tuples, arrays and tensors become lists; `leaf` makes the rest."""
    if isinstance(value, (np.ndarray, np.generic, Tensor)):
        value = value.tolist()
    if isinstance(value, Mapping):
        return {key: plain(inner, leaf) for key, inner in value.items()}
    return [plain(inner, leaf) for inner in value] if isinstance(value, (list, tuple)) else leaf(value)


def is_finite_number(value: Any) -> bool:
    """Whether a value read from a file is a number that a double can hold."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def shown(value: Any) -> str:
    """A value in an error message, not longer than a line."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
