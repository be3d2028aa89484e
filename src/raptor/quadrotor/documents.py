"""Documents of one vehicle each: JSON files, and l2f's schema.

Source: l2f 2.0.18 `parameters_to_json`; reward, start and trajectory mixture are those of RAPTOR's training.
"""

from __future__ import annotations

import copy
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

TEMPLATE: dict[str, Any] = json.loads(Path(__file__).with_name("template.json").read_text(encoding="utf-8"))
"""A complete document. The numbers of the group `dynamics` are placeholders."""

DEFAULT_GROUPS: dict[str, Any] = {group: content for group, content in TEMPLATE.items() if group != "dynamics"}
"""What stands in for a group that a file leaves out."""


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


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"the key {next(key for key in keys if keys.count(key) > 1)} comes twice")
    return content


def _natural_order(path: Path) -> list[Any]:
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


def complete(document: Any, where: str) -> dict[str, Any]:
    """A copy with missing groups filled in, every key and shape checked; `where` it is from ends errors."""
    if not isinstance(document, Mapping):
        raise UserError(f"a quadrotor must be a JSON object with the group dynamics, got {shown(document)}{where}")
    filled = {**copy.deepcopy(DEFAULT_GROUPS), **plain(document)}
    ordered = {key: filled[key] for key in (*document, *filled)}
    _check(ordered, TEMPLATE, "", where)
    if ordered["trajectory"]["MIXTURE_N"] != 2:
        raise UserError(f"trajectory.MIXTURE_N must be 2, got {ordered['trajectory']['MIXTURE_N']}{where}")
    return ordered


def _check(value: Any, template: Any, path: str, where: str) -> None:
    def refuse(wanted: str, got: str) -> None:
        raise UserError(f"{path} must be {wanted}, got {got}{where}")

    if isinstance(template, Mapping):
        if not isinstance(value, Mapping):
            refuse(f"an object with keys {', '.join(template)}", shown(value))
        for key, inner in template.items():
            inner_path = f"{path}.{key}" if path else key
            if key not in value:
                group = path.split(".")[0]
                remedy = f", or leave out the whole group {group}" if group in DEFAULT_GROUPS else ""
                raise UserError(f"{inner_path} is missing{where}: add it{remedy}")
            _check(value[key], inner, inner_path, where)
    elif isinstance(template, list):
        wanted = np.shape(template)
        try:
            got = f"shape {np.shape(value)}"
        except ValueError:
            got = "ragged rows"
        if got != f"shape {wanted}":
            refuse(f"an array of shape {wanted}", f"{got}: {shown(value)}")
        for i, (entry, inner) in enumerate(zip(value, template, strict=True)):
            _check(entry, inner, f"{path}[{i}]", where)
    elif isinstance(template, bool) and not isinstance(value, bool):
        refuse("true or false", shown(value))
    elif not isinstance(template, bool) and not is_finite_number(value):
        refuse("a finite number", shown(value))


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
