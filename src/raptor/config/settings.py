"""Declaring settings: validation, error messages and the reference page read the one line of a field.

`speed: float = setting(1.0, "turns per second", positive)` in a frozen dataclass that extends `Settings`.
"""

from __future__ import annotations

import dataclasses
import json
import math
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from raptor.core.errors import UserError


class Limit(NamedTuple):
    """The values that a setting can have."""

    text: str  # completes "must be ..."
    allows: Callable[[Any], bool]

    def holds(self, value: Any) -> bool:
        """Whether a value of whatever type is one of them."""
        try:
            return self.allows(value)
        except (TypeError, ValueError):
            return False


def setting(default: Any = dataclasses.MISSING, meaning: str = "", limit: Limit | None = None, **metadata: Any) -> Any:
    """Declare one field of a `Settings` class: its default, else it is required; its meaning, with unit; its limit."""
    return dataclasses.field(default=default, metadata={"meaning": meaning, "limit": limit, **metadata})


@dataclasses.dataclass(frozen=True)
class Settings:
    """Base of all settings: a frozen dataclass that refuses values beyond their limits, all in one `UserError`.

    Lists become tuples, as does a single text where several are meant, and a plain value becomes the group that has a
    `SHORTHAND` for it. A class attribute `RENAMED` gives the new names of fields by their old ones, for errors;
    `SHORTHAND` names the field that a plain value for the group stands for; `JOB` the job whose presets are meant;
    `LENGTH` the steps of a job and the end of its learning rate, which lets a run be made longer where it is 1.
    """

    def __post_init__(self) -> None:
        problems = [problem for field in dataclasses.fields(self) if (problem := self._settle(field))]
        problems += [
            f"{name} must be {limit.text}, got {getattr(self, name)!r}"
            for name, limit in limits_of(type(self)).items()
            if not limit.holds(getattr(self, name))
        ]
        if problems:
            raise UserError("; ".join(problems))

    def _settle(self, field: dataclasses.Field[Any]) -> str:
        """Turn lists into tuples and plain values into groups; what is wrong with a value that is no group, if so."""
        value, group = getattr(self, field.name), type(field.default)
        if isinstance(value, list) or (isinstance(value, str) and isinstance(field.default, tuple)):
            object.__setattr__(self, field.name, (value,) if isinstance(value, str) else _tupled(value))
        elif issubclass(group, Settings) and not isinstance(value, Settings):
            shorthand = getattr(group, "SHORTHAND", None)
            if shorthand is None or not isinstance(value, (str, bool, int, float, type(None))):
                return f"{field.name} must be of the class {group.__name__}, got {value!r}"
            object.__setattr__(self, field.name, group(**{shorthand: value}))
        return ""


def _tupled(value: Any) -> Any:
    return tuple(map(_tupled, value)) if isinstance(value, list) else value


class NamedGroups:
    """Groups of settings by name, whose classes others know; stored as a mapping. The base of a field's type.

    `class_of(name)` is the class of a group, or raises a `UserError` that says what is lacking; `of(groups)` makes one.
    """

    @classmethod
    def class_of(cls, name: str) -> type:
        """The class of the group of this name."""
        raise NotImplementedError

    @classmethod
    def of(cls, groups: Mapping[str, Any]) -> Any:
        """All groups put together."""
        raise NotImplementedError


def limits_of(cls: type) -> dict[str, Limit]:
    """The limits of a dataclass by field; a field that is declared anew without one keeps that of its base."""
    return _facts(cls, "limit")


def meanings_of(cls: type) -> dict[str, str]:
    """The meanings of a dataclass by field."""
    return {field.name: "" for field in dataclasses.fields(cls)} | _facts(cls, "meaning")


def _facts(cls: type, key: str) -> dict[str, Any]:
    fields = [field for base in reversed(cls.__mro__) for field in getattr(base, "__dataclass_fields__", {}).values()]
    return {field.name: fact for field in fields if (fact := field.metadata.get(key))}


def at_least(low: float) -> Limit:
    """Finite and not below `low`."""
    return Limit(f"at least {low:g}", lambda x: math.isfinite(x) and x >= low)


def above(low: float) -> Limit:
    """Finite and above `low`."""
    return Limit("positive" if low == 0 else f"above {low:g}", lambda x: math.isfinite(x) and x > low)


def between(low: float, high: float) -> Limit:
    """From `low` to `high`, both included."""
    return Limit(f"between {low:g} and {high:g}", lambda x: low <= x <= high)


def one_of(*choices: str) -> Limit:
    """One of these names."""
    return Limit(f"one of {', '.join(choices)}", lambda name: name in choices)


def not_empty(what: str) -> Limit:
    """A text or a sequence with at least one `what` in it."""
    return Limit(f"at least one {what}", lambda value: len(value) > 0)


def ascending(limit: Limit) -> Limit:
    """A range (low, high), not reversed, whose ends obey `limit`."""
    return Limit(
        f"(low, high) with low <= high, each {limit.text}",
        lambda pair: len(pair) == 2 and all(map(limit.allows, pair)) and pair[0] <= pair[1],
    )


def each(limit: Limit) -> Limit:
    """A sequence whose entries, or the entries of its entries, obey `limit`."""

    def allows(value: Any) -> bool:
        return all(map(allows, value)) if isinstance(value, (tuple, list)) else limit.allows(value)

    return Limit(f"{limit.text} in every entry", allows)


def optional(limit: Limit) -> Limit:
    """None, or as `limit` says."""
    return Limit(limit.text, lambda x: x is None or limit.allows(x))


positive = above(0)
not_negative = at_least(0)


_WORDS = {int: "a whole number", float: "a number", bool: "true or false", str: "text", types.NoneType: "null"}


def describe(annotation: Any) -> str:
    """A type in words: `a number`, `[a number, a number]`, `one of euler, rk4`."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if group_in(annotation):
        return "a group of settings"
    if named_groups_in(annotation):
        return "groups of settings by name"
    if origin is typing.Literal:
        return f"one of {', '.join(map(str, arguments))}"
    if origin in (typing.Union, types.UnionType):
        return " or ".join(map(describe, arguments))
    if origin is tuple and arguments[-1] is not Ellipsis:
        return f"[{', '.join(map(describe, arguments))}]"
    if origin in (tuple, list):
        return f"a list, each entry {describe(arguments[0])}"
    return _WORDS.get(annotation, str(annotation))


def group_in(annotation: Any) -> type | None:
    """The dataclass that a field of this type holds, if it does."""
    return annotation if isinstance(annotation, type) and dataclasses.is_dataclass(annotation) else None


def named_groups_in(annotation: Any) -> type[NamedGroups] | None:
    """The `NamedGroups` that a field of this type holds, if it does."""
    return annotation if isinstance(annotation, type) and issubclass(annotation, NamedGroups) else None


def group_of_entries(annotation: Any) -> type | None:
    """The dataclass of which a field of this type holds a list, if it does."""
    arguments = typing.get_args(annotation)
    is_list = typing.get_origin(annotation) is tuple and arguments[-1] is Ellipsis
    return group_in(arguments[0]) if is_list else None


def show(value: Any) -> str:
    """A value as one would write it in YAML, on one line."""
    return json.dumps(value, ensure_ascii=False, default=str)
