"""Data that every file format keeps: dict, list, str, bool, int, float and None."""

from __future__ import annotations

import dataclasses
import itertools
import math
import reprlib
from collections.abc import Callable, Mapping
from typing import Any

from raptor.core.atomic import PathLike
from raptor.core.errors import UserError, printable

LARGEST, DEEPEST = 100_000, 32
"""Entries in all, and groups in groups."""


def to_plain(
    value: Any,
    path: str = "it",
    from_file: PathLike | None = None,
    finite: bool = False,
    other: Callable[[Any], Any] | None = None,
) -> Any:
    """Copy a value in plain types; dataclasses become groups, and arrays, tensors, tuples and sets lists.

    Args:
        value: text, numbers, and lists and groups of these.
        path: its name in error messages.
        from_file: the file that it was read from: what needs a conversion (tensors, arrays, keys that are no text) is
            refused, and control bytes are escaped.
        finite: turn numbers that are not finite into None, as JSON wants it.
        other: gives what stands for a value of any other type; what is too deep or too much is text then.

    Raises:
        UserError: names the part that is of another type; or the value is nested in itself or too large.
    """
    count, strict, where = itertools.count(), from_file is not None, f" ({from_file})" if from_file is not None else ""

    def plain(value: Any, path: str, depth: int) -> Any:
        if depth > DEEPEST or next(count) > LARGEST:
            if other is not None:
                return reprlib.repr(value)
            raise UserError(f"{path[:60]} is nested in itself or too deeply, or has over {LARGEST} entries{where}")
        if hasattr(value, "tolist") and not strict:  # arrays and tensors, whose libraries need not be loaded here
            value = value.tolist()
        if isinstance(value, str):
            if any("\ud800" <= letter <= "\udfff" for letter in value):
                raise UserError(f"{path} holds text that is no Unicode: {value[:60]!r}{where}")
            return printable(value) if strict else value
        if isinstance(value, float):
            return value if math.isfinite(value) or not finite else None
        if value is None or (isinstance(value, int) and value.bit_length() <= 64):
            return value
        if dataclasses.is_dataclass(value) and not isinstance(value, type) and not strict:
            names = [field.name for field in dataclasses.fields(value)]
            value = {name: getattr(value, name) for name in names if hasattr(value, name)}
        if isinstance(value, Mapping):
            for key in value:
                if strict and not isinstance(key, str):
                    raise UserError(f"{path} must have keys of text, got {key!r}{where}")
            return {plain(str(key), path, depth): plain(x, f"{path}.{key}", depth + 1) for key, x in value.items()}
        if isinstance(value, (list, tuple)) or (isinstance(value, (set, frozenset)) and not strict):
            return [plain(inner, f"{path}[{i}]", depth + 1) for i, inner in enumerate(value)]
        if other is not None:
            return plain(other(value), path, depth + 1)
        got = f"{type(value).__name__}: {value}"[:80]
        raise UserError(f"{path} must be text, a number, or lists and groups of these, got {got}{where}")

    return plain(value, path, 0)
