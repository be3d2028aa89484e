"""Ranges of settings, stated beside the settings and checked whenever such a dataclass is made."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeVar

from raptor.core.errors import UserError

C = TypeVar("C", bound=type)


class Limit(NamedTuple):
    """What values of a setting are possible."""

    text: str  # completes "must be ..."
    allows: Callable[[Any], bool]


class LimitError(UserError):
    """Settings beyond their limits; `problems` says of each what it must be."""

    def __init__(self, problems: Mapping[str, str]) -> None:
        self.problems = dict(problems)
        super().__init__("; ".join(f"{name} {problem}" for name, problem in self.problems.items()))


def at_least(low: float) -> Limit:
    """Finite and not below `low`."""
    return Limit(f"at least {low:g}", lambda x: math.isfinite(x) and x >= low)


def above(low: float) -> Limit:
    """Finite and above `low`."""
    return Limit("positive" if low == 0 else f"above {low:g}", lambda x: math.isfinite(x) and x > low)


def between(low: float, high: float) -> Limit:
    """From `low` to `high`, both included."""
    return Limit(f"between {low:g} and {high:g}", lambda x: low <= x <= high)


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


def limits(**rules: Limit) -> Callable[[C], C]:
    """Decorator for a class that a dataclass decorator above it completes: refuses impossible values of its fields.

    Example:
        ```
        @dataclasses.dataclass(frozen=True)
        @limits(speed=positive)
        class Settings:
            speed: float = 1.0
        ```
    """

    def decorate(cls: C) -> C:
        own_check = getattr(cls, "__post_init__", None)

        def post_init(self: Any) -> None:
            check(self)
            if own_check is not None:
                own_check(self)

        cls.__limits__ = {**limits_of(cls), **rules}  # type: ignore[attr-defined]
        cls.__post_init__ = post_init  # type: ignore[attr-defined]
        return cls

    return decorate


def limits_of(cls: type) -> Mapping[str, Limit]:
    """The limits of a dataclass by field, those that it inherits included."""
    rules: Mapping[str, Limit] = getattr(cls, "__limits__", {})
    return rules


def check(config: object) -> None:
    """Raise a `LimitError` that names every field of `config` beyond its limit."""
    problems = {
        name: f"must be {limit.text}, got {getattr(config, name)!r}"
        for name, limit in limits_of(type(config)).items()
        if hasattr(config, name) and not limit.allows(getattr(config, name))
    }
    if problems:
        raise LimitError(problems)
