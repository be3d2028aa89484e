"""Vehicles as documents in l2f's JSON schema, both ways, at full precision."""

from __future__ import annotations

import copy
import dataclasses
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from raptor.core.atomic import PathLike
from raptor.core.errors import UserError
from raptor.quadrotor.schema import DEFAULT_GROUPS, FIELDS, TEMPLATE, get, put
from raptor.quadrotor.validation import validate
from raptor.quadrotor.vehicles import V, Vehicles


def from_dicts(
    cls: type[V],
    documents: Iterable[Mapping[str, Any]],
    dtype: torch.dtype = torch.float32,
    names: Sequence[str] | None = None,
    sources: Sequence[PathLike] | None = None,
) -> V:
    """Build vehicles of a class from documents; see `Quadrotors.from_dicts`."""
    given = list(documents)
    if not given:
        raise UserError("no quadrotors were given: at least one document is needed")
    where = [f"vehicle {i}" if sources is None else os.fspath(sources[i]) for i in range(len(given))]
    complete = [_complete(document, f" ({place})") for document, place in zip(given, where, strict=True)]
    exact = cls(**_tensors(complete), names=None if names is None else tuple(names), documents=tuple(complete))
    valid = validate(exact, sources)
    if valid is not exact:  # the inertia of some was rebuilt
        for document, rebuilt in zip(complete, valid.inertia.tolist(), strict=True):
            put(document, "inertia", rebuilt)
    return _cast(valid, dtype)


def to_dicts(vehicles: Vehicles) -> list[dict[str, Any]]:
    """One complete document for each vehicle; see `Quadrotors.to_dicts`."""
    tensors = {field: tensor.detach().cpu() for field, tensor in vehicles.tensors().items()}
    read = vehicles.documents or [None] * len(vehicles)
    documents = [copy.deepcopy(TEMPLATE if document is None else dict(document)) for document in read]
    for i, document in enumerate(documents):
        for field, tensor in tensors.items():
            put(document, field, _numbers(tensor[i], None if read[i] is None else get(read[i], field)))
    if documents:
        hover_throttle = dataclasses.replace(vehicles, **_tensors(documents)).hover_throttle
        for document, hover in zip(documents, hover_throttle.tolist(), strict=True):
            document["dynamics"]["hovering_throttle_relative"] = hover
    return documents


def _tensors(documents: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return {field: torch.tensor([get(d, field) for d in documents], dtype=torch.float64) for field in FIELDS}


def _cast(vehicles: V, dtype: torch.dtype) -> V:
    cast = vehicles.to(dtype=dtype)
    for field, tensor in cast.tensors().items():
        exact = getattr(vehicles, field)
        lost = ~torch.isfinite(tensor) | ((tensor == 0) & (exact != 0))
        if lost.any():
            number = exact[lost][0].item()
            raise UserError(f"{field} holds {number!r}, which {dtype} cannot: read with dtype=torch.float64")
    return cast


def _complete(document: Any, where: str) -> dict[str, Any]:
    """A copy with the groups that are missing filled in, every key and shape checked."""
    if not isinstance(document, Mapping):
        raise UserError(f"a quadrotor must be a JSON object with the group dynamics, got {shown(document)}{where}")
    complete: dict[str, Any] = {**copy.deepcopy(DEFAULT_GROUPS), **plain(document)}
    ordered = {key: complete[key] for key in (*document, *complete)}
    _check(ordered, TEMPLATE, "", where)
    if ordered["trajectory"]["MIXTURE_N"] != 2:
        raise UserError(f"trajectory.MIXTURE_N must be 2, got {ordered['trajectory']['MIXTURE_N']}{where}")
    return ordered


def plain(value: Any) -> Any:
    """A deep copy in the types of JSON: tuples, arrays and tensors become lists."""
    if isinstance(value, Mapping):
        return {key: plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(inner) for inner in value]
    return value.tolist() if isinstance(value, (np.ndarray, np.generic, Tensor)) else value


def _check(value: Any, template: Any, path: str, where: str) -> None:
    if isinstance(template, Mapping):
        if not isinstance(value, Mapping):
            raise UserError(f"{path} must be an object with keys {', '.join(template)}, got {shown(value)}{where}")
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
            raise UserError(f"{path} must be an array of shape {wanted}, got {shape}: {shown(value)}{where}")
        for i, (entry, inner) in enumerate(zip(value, template, strict=True)):
            _check(entry, inner, f"{path}[{i}]", where)
    elif isinstance(template, bool):
        if not isinstance(value, bool):
            raise UserError(f"{path} must be true or false, got {shown(value)}{where}")
    elif not is_finite_number(value):
        raise UserError(f"{path} must be a finite number, got {shown(value)}{where}")


def is_finite_number(value: Any) -> bool:
    """Whether a value read from a file is a number that a double can hold."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:
        return False


def shown(value: Any) -> str:
    """A value in an error message, not longer than a line."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _shape(value: Any) -> tuple[int, ...] | None:
    """Shape of nested lists; None where they are ragged."""
    if not isinstance(value, list):
        return ()
    shapes = {_shape(entry) for entry in value} or {()}
    inner = shapes.pop()
    return None if shapes or inner is None else (len(value), *inner)


def _numbers(tensor: Tensor, read: Any) -> Any:
    """The numbers of a tensor as Python floats, each as it was read where the tensor still holds that number."""
    if tensor.dtype == torch.float32:  # the shortest decimals that read back as the same float32
        numbers = tensor.numpy().astype(str).astype(np.float64)
    else:
        numbers = tensor.to(torch.float64).numpy()
    if read is None:
        return numbers.tolist()
    exact = torch.tensor(read, dtype=torch.float64)
    same = (exact.to(tensor.dtype) == tensor) | (exact.to(torch.float32) == tensor)
    return np.where(same.numpy(), np.asarray(read, dtype=object), numbers.astype(object)).tolist()
