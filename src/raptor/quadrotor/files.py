"""Vehicles in l2f's JSON schema, both ways, at full precision."""

from __future__ import annotations

import copy
import json
import math
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from raptor.errors import UserError
from raptor.quadrotor.parameters import SHAPES, Quadrotors
from raptor.quadrotor.schema import DEFAULT_GROUPS, JSON_PATHS, PAIR_KEYS, TEMPLATE
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


def from_dicts(
    documents: Iterable[Mapping[str, Any]],
    dtype: torch.dtype = torch.float32,
    device: torch.device | str | None = None,
    names: Sequence[str] | None = None,
    sources: Sequence[PathLike] | None = None,
) -> Quadrotors:
    """Build a population from documents in l2f's schema.

    The group `dynamics` is enough; another group that is there must be complete. Unknown keys are kept.

    Args:
        documents: one for each vehicle; left untouched.
        dtype: of the tensors; the documents keep every digit for writing.
        device: of the tensors.
        names: one for each vehicle.
        sources: the file of each vehicle, for error messages.

    Raises:
        UserError: names the JSON path, the file and the value.
    """
    given = list(documents)
    if not given:
        raise UserError("no quadrotors were given: at least one document is needed")
    complete = [
        _complete(document, f" (vehicle {i})" if sources is None else f" ({os.fspath(sources[i])})")
        for i, document in enumerate(given)
    ]
    exact = Quadrotors(
        **{field: torch.tensor([_get(d, field) for d in complete], dtype=torch.float64) for field in SHAPES},
        names=None if names is None else tuple(names),
        documents=tuple(complete),
    )
    valid = validate(exact, sources)
    if valid is not exact:  # the inertia of some was rebuilt
        for document, rebuilt in zip(complete, valid.inertia.tolist(), strict=True):
            _set(document, "inertia", rebuilt)
    return _cast(valid, dtype).to(device)


def to_dicts(quadrotors: Quadrotors) -> list[dict[str, Any]]:
    """One complete document in l2f's schema for each vehicle.

    A number that is still the one read from a vehicle's document is written as it stood there, digit for digit, also
    where the tensors are of lower precision. `hovering_throttle_relative` is computed from the thrust curve.
    """
    tensors = {field: tensor.detach().cpu() for field, tensor in quadrotors.tensors().items()}
    documents = []
    for i in range(len(quadrotors)):
        read_from = None if quadrotors.documents is None else quadrotors.documents[i]
        document = copy.deepcopy(TEMPLATE if read_from is None else dict(read_from))
        for field, tensor in tensors.items():
            _set(document, field, _numbers(tensor[i], None if read_from is None else _get(read_from, field)))
        documents.append(document)
    if documents:
        exact = {field: torch.tensor([_get(d, field) for d in documents], dtype=torch.float64) for field in SHAPES}
        for document, hover in zip(
            documents, Quadrotors(**exact, names=None, documents=None).hover_throttle.tolist(), strict=True
        ):
            document["dynamics"]["hovering_throttle_relative"] = hover
    return documents


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
        for path, document in zip(paths, documents, strict=True):
            _write_atomically(path, format_document(document) + "\n")
    except OSError as error:
        raise UserError(f"cannot write quadrotors to {target}: {error.strerror}") from error
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


def _cast(quadrotors: Quadrotors, dtype: torch.dtype) -> Quadrotors:
    cast = quadrotors.to(dtype=dtype)
    for field, tensor in cast.tensors().items():
        exact = getattr(quadrotors, field)
        lost = ~torch.isfinite(tensor) | ((tensor == 0) & (exact != 0))
        if lost.any():
            raise UserError(
                f"{field} holds {exact[lost][0].item()!r}, which {dtype} cannot: read with dtype=torch.float64"
            )
    return cast


def _complete(document: Any, where: str) -> dict[str, Any]:
    """A copy with the groups that are missing filled in, every key and shape checked."""
    if not isinstance(document, Mapping):
        raise UserError(f"a quadrotor must be a JSON object with the group dynamics, got {_shown(document)}{where}")
    complete: dict[str, Any] = _plain(document)
    for group, default in DEFAULT_GROUPS.items():
        if group not in complete:
            complete[group] = copy.deepcopy(default)
    _check(complete, TEMPLATE, "", where)
    if complete["trajectory"]["MIXTURE_N"] != 2:
        raise UserError(f"trajectory.MIXTURE_N must be 2, got {complete['trajectory']['MIXTURE_N']}{where}")
    return complete


def _plain(value: Any) -> Any:
    """A deep copy in the types of JSON: tuples, arrays and tensors become lists."""
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(inner) for inner in value]
    return value.tolist() if isinstance(value, (np.ndarray, np.generic, Tensor)) else value


def _check(value: Any, template: Any, path: str, where: str) -> None:
    if isinstance(template, Mapping):
        if not isinstance(value, Mapping):
            raise UserError(f"{path} must be an object with keys {', '.join(template)}, got {_shown(value)}{where}")
        for key, inner in template.items():
            inner_path = f"{path}.{key}" if path else key
            if key not in value:
                group = path.split(".")[0]
                remedy = f", or leave out the whole group {group}" if group in DEFAULT_GROUPS else ""
                raise UserError(f"{inner_path} is missing{where}: add it{remedy}")
            _check(value[key], inner, inner_path, where)
    elif isinstance(template, list):
        wanted, got = np.shape(template), _shape(value)
        if got != wanted:
            shape = "ragged rows" if got is None else f"shape {got}"
            raise UserError(f"{path} must be an array of shape {wanted}, got {shape}: {_shown(value)}{where}")
        for i, (entry, inner) in enumerate(zip(value, template, strict=True)):
            _check(entry, inner, f"{path}[{i}]", where)
    elif isinstance(template, bool):
        if not isinstance(value, bool):
            raise UserError(f"{path} must be true or false, got {_shown(value)}{where}")
    elif not is_finite_number(value):
        raise UserError(f"{path} must be a finite number, got {_shown(value)}{where}")


def is_finite_number(value: Any) -> bool:
    """Whether a value read from a file is a number that a double can hold."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:
        return False


def _shape(value: Any) -> tuple[int, ...] | None:
    """Shape of nested lists; None where they are ragged."""
    if not isinstance(value, list):
        return ()
    shapes = {_shape(entry) for entry in value} or {()}
    inner = shapes.pop()
    return None if shapes or inner is None else (len(value), *inner)


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _get(document: Mapping[str, Any], field: str) -> Any:
    value: Any = document
    for key in JSON_PATHS[field]:
        value = value[key]
    return [value[key] for key in PAIR_KEYS[field]] if field in PAIR_KEYS else value


def _set(document: dict[str, Any], field: str, value: Any) -> None:
    *groups, leaf = JSON_PATHS[field]
    holder: Any = document
    for key in groups:
        holder = holder[key]
    if field in PAIR_KEYS:
        holder[leaf].update(zip(PAIR_KEYS[field], value, strict=True))
    else:
        holder[leaf] = value


def _numbers(tensor: Tensor, read: Any) -> Any:
    """The numbers of a tensor as Python floats, each as it was read where the tensor still holds that number."""
    numbers = _decimals(tensor)
    if read is None:
        return numbers
    exact = torch.tensor(read, dtype=torch.float64)
    same = (exact.to(tensor.dtype) == tensor) | (exact.to(torch.float32) == tensor)
    return _pick(same.tolist(), read, numbers)


def _pick(same: Any, read: Any, numbers: Any) -> Any:
    if isinstance(same, list):
        return [_pick(*each) for each in zip(same, read, numbers, strict=True)]
    return read if same else numbers


def _decimals(tensor: Tensor) -> Any:
    if tensor.dtype == torch.float32:  # the shortest decimals that read back as the same float32
        return tensor.numpy().astype(str).astype(np.float64).tolist()
    return tensor.to(torch.float64).tolist()


def _stems(quadrotors: Quadrotors) -> list[str]:
    names = quadrotors.names or ()
    usable = all(re.fullmatch(r"[^/\\:*?\"<>|\x00-\x1f.][^/\\:*?\"<>|\x00-\x1f]*", name) for name in names)
    if names and usable and len({name.casefold() for name in names}) == len(names):
        return list(names)
    return [f"{i:04d}" for i in range(len(quadrotors))]


def _write_atomically(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
