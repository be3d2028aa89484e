"""Nested data of any types as the plain data that YAML, JSON and checkpoints keep."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from torch import Tensor

from raptor.core.errors import UserError

MOST_VALUES = 1_000_000
DEEPEST = 100
"""Levels of groups and lists within each other."""


def to_plain(value: Any, name: str = "it", other: Callable[[Any], Any] | None = None, allow_nan: bool = True) -> Any:
    """Deep copy of nested data as dictionaries with text as keys, lists, text, numbers, booleans and None.

    Dataclasses become dictionaries; tuples and sets lists; arrays and tensors numbers, and lists of these.

    Args:
        value: the data.
        name: what it is, for errors.
        other: what stands for a value of any other type, which is refused by default; what contains itself or is
            too deep is text then.
        allow_nan: False: None stands for NaN and infinity.

    Raises:
        UserError: names a value of another type, text that is not Unicode, and what contains itself, is deeper than
            `DEEPEST` or holds more than `MOST_VALUES` values.
    """
    count = itertools.count(1)

    def text(value: str, path: str) -> str:
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise UserError(f"{path} is not valid Unicode text: {value!a}") from error
        return value

    def copy(value: Any, path: str, above: tuple[int, ...]) -> Any:
        if next(count) > MOST_VALUES:
            raise UserError(f"{name} holds more than {MOST_VALUES} values")
        if isinstance(value, (np.generic, np.ndarray, Tensor)):
            value = value.tolist()
        if isinstance(value, str):
            return text(value, path)
        if isinstance(value, float):
            return value if allow_nan or math.isfinite(value) else None
        if value is None or isinstance(value, (bool, int)):
            return value
        if id(value) in above or len(above) == DEEPEST:
            if other is not None:
                return str(value)
            what = "contains itself" if id(value) in above else f"has more than {DEEPEST} levels"
            raise UserError(f"{name} {what}")
        above = (*above, id(value))
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            names = [field.name for field in dataclasses.fields(value)]
            return {key: copy(getattr(value, key), f"{path}.{key}", above) for key in names if hasattr(value, key)}
        if isinstance(value, Mapping):
            return {text(str(key), path): copy(inner, f"{path}.{key}", above) for key, inner in value.items()}
        if isinstance(value, (list, tuple, set, frozenset)):
            return [copy(inner, f"{path}[{i}]", above) for i, inner in enumerate(value)]
        if other is not None:
            return copy(other(value), path, above)
        kind = type(value).__name__
        raise UserError(f"{path} must be text, a number, or lists and groups of these, got {kind}: {value}")

    return copy(value, name, ())
