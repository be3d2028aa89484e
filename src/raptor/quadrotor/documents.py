"""Vehicles as documents in l2f's JSON schema, both ways, at full precision."""

from __future__ import annotations

import copy
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from raptor.core.errors import UserError
from raptor.quadrotor.parameters import SHAPES, Quadrotors
from raptor.quadrotor.schema import DEFAULT_GROUPS, JSON_PATHS, PAIR_KEYS, TEMPLATE
from raptor.quadrotor.validation import validate


def from_dicts(
    documents: Iterable[Mapping[str, Any]],
    dtype: torch.dtype = torch.float32,
    device: torch.device | str | None = None,
    names: Sequence[str] | None = None,
    sources: Sequence[str | os.PathLike[str]] | None = None,
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
