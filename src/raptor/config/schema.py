"""What the types of settings mean."""

from __future__ import annotations

import dataclasses
import json
import types
import typing
from typing import Any

_WORDS = {int: "a whole number", float: "a number", bool: "true or false", str: "text", types.NoneType: "null"}
_UNIONS = (typing.Union, types.UnionType)


def groups_in(annotation: Any) -> list[type]:
    """The dataclasses that a field of this type can hold."""
    if isinstance(annotation, type) and dataclasses.is_dataclass(annotation):
        return [annotation]
    if typing.get_origin(annotation) in _UNIONS:
        return [group for option in typing.get_args(annotation) for group in groups_in(option)]
    return []


def group_of_entries(annotation: Any) -> type | None:
    """The dataclass of which a field of this type holds a list, if it does."""
    if typing.get_origin(annotation) is not tuple or typing.get_args(annotation)[-1] is not Ellipsis:
        return None
    groups = groups_in(typing.get_args(annotation)[0])
    return groups[0] if groups else None


def describe(annotation: Any) -> str:
    """A type in words: `a number`, `[a number, a number]`, `one of euler, rk4`."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if groups_in(annotation) == [annotation]:
        return "a group of settings"
    if origin is typing.Literal:
        return f"one of {', '.join(map(str, arguments))}"
    if origin in _UNIONS:
        return " or ".join(describe(option) for option in arguments)
    if origin is tuple and arguments[-1] is not Ellipsis:
        return f"[{', '.join(map(describe, arguments))}]"
    if origin in (tuple, list):
        return f"a list, each entry {describe(arguments[0])}"
    return _WORDS.get(annotation, str(annotation))


def show(value: Any) -> str:
    """A value as one would write it in YAML, on one line."""
    return json.dumps(value, ensure_ascii=False, default=str)
