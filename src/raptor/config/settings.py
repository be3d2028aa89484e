"""Declaring settings: type, default, meaning and range of a field stand in one line, and everything else follows.

Validation in Python and from files, error messages, and the reference page read the same declaration.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from raptor.core.errors import UserError

_REQUIRED: Any = dataclasses.MISSING


class Limit(NamedTuple):
    """The values that a setting can have."""

    text: str  # completes "must be ..."
    allows: Callable[[Any], bool]


def setting(default: Any = _REQUIRED, meaning: str = "", limit: Limit | None = None, **metadata: Any) -> Any:
    """Declare one field of a `Settings` class.

    Args:
        default: its value where none is given; without one the field is required.
        meaning: what it is, with its unit, for the reference page.
        limit: the values that it can have.
        metadata: further facts for those who read the declaration.
    """
    facts = {"meaning": meaning, "limit": limit, **metadata}
    return dataclasses.field(default=default, metadata=facts)


@dataclasses.dataclass(frozen=True)
class Settings:
    """Base of all settings: a frozen dataclass that refuses values beyond their limits.

    Raises:
        LimitError: names every field that is beyond its limit.

    Example:
        ```
        @dataclasses.dataclass(frozen=True)
        class Fan(Settings):
            speed: float = setting(1.0, "turns per second", positive)
        ```
    """

    def __post_init__(self) -> None:
        """Check every field."""
        problems = {
            name: f"must be {limit.text}, got {getattr(self, name)!r}"
            for name, limit in limits_of(type(self)).items()
            if not limit.allows(getattr(self, name))
        }
        if problems:
            raise LimitError(problems)


class LimitError(UserError):
    """Settings beyond their limits; `problems` says of each field what it must be."""

    def __init__(self, problems: Mapping[str, str]) -> None:
        self.problems = dict(problems)
        super().__init__("; ".join(f"{name} {problem}" for name, problem in self.problems.items()))


def limits_of(cls: type) -> dict[str, Limit]:
    """The limits of a dataclass by field; a field that is declared anew without one keeps that of its base."""
    return {name: limit for name, limit in _facts(cls, "limit").items() if limit is not None}


def meanings_of(cls: type) -> dict[str, str]:
    """The meanings of a dataclass by field."""
    return {name: meaning or "" for name, meaning in _facts(cls, "meaning").items()}


def _facts(cls: type, key: str) -> dict[str, Any]:
    declared = [base.__dict__.get("__dataclass_fields__", {}) for base in cls.__mro__]
    return {
        field.name: next(
            (fact for fields in declared if field.name in fields if (fact := fields[field.name].metadata.get(key))),
            None,
        )
        for field in dataclasses.fields(cls)
    }


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
