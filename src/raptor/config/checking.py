"""Settings against their schema: every unknown key, wrong type and impossible value, by its dotted key."""

from __future__ import annotations

import dataclasses
import difflib
import json
import math
import typing
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

from raptor.config.schema import describe, group_of_entries, groups_in, show
from raptor.config.settings import LimitError, limits_of
from raptor.config.sources import Source
from raptor.core.errors import UserError

T = TypeVar("T")
Path = tuple[str, ...]


class Problem(NamedTuple):
    """One wrong setting."""

    key: str  # dotted
    text: str


def raise_problems(problems: Sequence[Problem]) -> None:
    """Raise one error that names all problems, each key once."""
    first = {problem.key: problem for problem in reversed(problems)}
    if first:
        raise UserError("; ".join(f"{key} {first[key].text}" for key in dict.fromkeys(p.key for p in problems)))


def split_unknown(cls: type, source: Source) -> tuple[Source, list[Problem]]:
    """Separate the keys that the schema does not know. Groups that are left empty are taken for not given."""
    problems: list[Problem] = []

    def known(group: type, settings: Mapping[Any, Any], path: Path) -> dict[str, Any]:
        hints = typing.get_type_hints(group)
        names = [field.name for field in dataclasses.fields(group)]
        kept: dict[str, Any] = {}
        for key, value in settings.items():
            here = (*path, str(key))
            if key not in names:
                close = difflib.get_close_matches(str(key), names, n=1)
                hint = f"did you mean {close[0]}? The" if close else "the"
                where = f"keys of {'.'.join(path)}" if path else "keys"
                text = f"is unknown ({source.name}): {hint} {where} are {', '.join(names)}"
                problems.append(Problem(".".join(here), text))
                continue
            inner = groups_in(hints[key])
            is_list = typing.get_origin(hints[key]) is tuple
            if isinstance(value, Mapping) if is_list else isinstance(value, list) and inner == [hints[key]]:
                # Merged with the default it would be neither.
                text = f"must be {describe(hints[key])}, got {show(value)} ({source.name})"
                problems.append(Problem(".".join(here), text))
                continue
            shorthand = getattr(inner[0], "SHORTHAND", None) if inner else None
            if shorthand and value is not None and not isinstance(value, Mapping):
                value = {shorthand: value}
            if isinstance(value, Mapping) and inner:
                value = known(inner[0], value, here)
            entry = group_of_entries(hints[key])
            if isinstance(value, list) and entry:
                value = [
                    known(entry, each, (*here, str(i))) if isinstance(each, Mapping) else each
                    for i, each in enumerate(value)
                ]
            if value is not None or inner != [hints[key]]:
                kept[key] = value
        return kept

    return Source(source.name, known(cls, source.settings, ())), problems


def validate(cls: type[T], merged: dict[str, Any], sources: Sequence[Source]) -> tuple[T | None, list[Problem]]:
    """Build the dataclasses, or say what is wrong with the merged settings."""
    import pydantic

    merged = _round_floats(merged)
    config, problems = None, []
    try:
        # JSON and strict: lists become tuples, and neither "1" nor true is a number.
        config = pydantic.TypeAdapter(cls).validate_json(json.dumps(merged), strict=True)
    except pydantic.ValidationError as errors:
        explained = (_explain(cls, merged, error, sources) for error in errors.errors(include_url=False))
        problems = [problem for problem in explained if problem is not None]
    return config, [*problems, *_impossible(cls, merged, (), sources)]


def _impossible(group: type, settings: Mapping[str, Any], path: Path, sources: Sequence[Source]) -> Iterator[Problem]:
    """Values beyond their limits. Those of a wrong type are left to pydantic."""
    hints, limits = typing.get_type_hints(group), limits_of(group)
    for key, value in settings.items():
        here = (*path, key)
        inner = groups_in(hints[key])
        if isinstance(value, Mapping) and inner:
            yield from _impossible(inner[0], value, here, sources)
            continue
        entry = group_of_entries(hints[key])
        if isinstance(value, list) and entry:
            for i, each in enumerate(value):
                if isinstance(each, Mapping):
                    yield from _impossible(entry, each, (*here, str(i)), sources)
        got = f"got {show(value)}{_where(here, sources)}"
        if extreme := _extreme(value):
            yield Problem(".".join(here), f"must be {extreme}, {got}")
        elif key in limits:
            try:
                allowed = limits[key].allows(value)
            except (TypeError, ValueError):
                continue
            if not allowed:
                yield Problem(".".join(here), f"must be {limits[key].text}, {got}")


def _explain(cls: type, merged: Any, error: Any, sources: Sequence[Source]) -> Problem | None:
    """Say what one error of pydantic means, in terms of keys and what they allow."""
    path: Path = ()
    annotation: Any = cls
    value: Any = merged
    for name in error["loc"]:
        groups = [group for group in groups_in(annotation) if name in typing.get_type_hints(group)]
        if groups and isinstance(value, dict):
            path = (*path, str(name))
            annotation, value = typing.get_type_hints(groups[0])[name], value.get(name)
        elif isinstance(name, int) and isinstance(value, list) and group_of_entries(annotation):
            path = (*path, str(name))
            annotation, value = group_of_entries(annotation), value[name]
    key = ".".join(path) or "the configuration"
    cause = error.get("ctx", {}).get("error")
    if isinstance(cause, LimitError):
        return None  # is said setting by setting
    if cause is not None:
        return Problem(key, f"is impossible: {cause}{_where(path, sources)}")
    return Problem(key, f"must be {describe(annotation)}, got {show(value)}{_where(path, sources)}")


def _where(path: Path, sources: Sequence[Source]) -> str:
    """The last place that says something about a key, or about keys inside it. A list is said as a whole."""
    for source in reversed(sources):
        inner: Any = source.settings
        for name in path:
            if isinstance(inner, list):
                break
            inner = inner.get(name, _ABSENT) if isinstance(inner, dict) else inner
        if inner is not _ABSENT:
            return f" ({source.name})"
    return ""


_ABSENT = object()


def _extreme(value: Any) -> str | None:
    """What a number that no setting can have fails to be."""
    if isinstance(value, list):
        return next(filter(None, map(_extreme, value)), None)
    if isinstance(value, int) and abs(value) >= 2**63:
        return "below 2^63"
    return "finite" if isinstance(value, float) and not math.isfinite(value) else None


def _round_floats(value: Any) -> Any:
    """Write 2e3 as 2000, which serves as a whole number and as any other."""
    if isinstance(value, dict):
        return {key: _round_floats(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_round_floats(inner) for inner in value]
    return int(value) if isinstance(value, float) and value.is_integer() and abs(value) < 2**53 else value
