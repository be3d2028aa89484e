"""Settings as nested dictionaries: laid over each other, with `${key}` for the value of another key."""

from __future__ import annotations

import itertools
import re
import typing
from collections.abc import Iterator, Mapping
from typing import Any, cast

from raptor.config.settings import group_in, group_of_entries
from raptor.core.errors import UserError
from raptor.core.yaml_files import DEEPEST, MOST_VALUES

Document = Mapping[str, Any]
_REFERENCE = re.compile(r"\$\{([^{}]*)\}")


def overlay(below: Document, above: Document, cls: type | None = None) -> dict[str, Any]:
    """One document over another, group by group.

    Args:
        below: what holds where `above` says nothing.
        above: settings as they were given: a group can be left empty, and a plain value stand for the `SHORTHAND` key.
        cls: the class of the settings, where they have one.

    Raises:
        UserError: a group is given both as `${key}` and by keys of its own.
    """
    hints, merged = typing.get_type_hints(cls) if cls else {}, dict(below)
    for key, value in above.items():
        group, entry, old = group_in(hints.get(key)), group_of_entries(hints.get(key)), below.get(key)
        if group and value is None:
            continue
        if (shorthand := getattr(group, "SHORTHAND", None)) and not isinstance(value, Mapping):
            value = {shorthand: value}
        if isinstance(value, Mapping):
            if isinstance(old, str) and _REFERENCE.search(old):
                raise UserError(f"{key} is given both as {old} and by keys of its own: keep one of them")
            value = overlay(old if isinstance(old, Mapping) else {}, value, group)
        elif isinstance(value, list) and entry:
            value = [overlay({}, each, entry) if isinstance(each, Mapping) else each for each in value]
        merged[key] = value
    return merged


def resolve(document: Document) -> dict[str, Any]:
    """Put the value of another key in the place of each `${key}`; nothing else is read, the environment least of all.

    Raises:
        UserError: there is no such key, keys stand for each other in a circle, or the result is too large.
    """
    count = itertools.count(1)

    def resolved(value: Any, path: str, followed: tuple[str, ...]) -> Any:
        def refuse(why: str) -> UserError:
            return UserError(f"{path or 'the configuration'} cannot be resolved: {why}")

        def value_of(match: re.Match[str]) -> Any:
            key = match[1].strip()
            if key in followed:
                raise refuse(f"{' -> '.join((*followed, key))} is a circle")
            if len(followed) == DEEPEST:
                raise refuse(f"more than {DEEPEST} keys stand for each other")
            found: Any = document
            for name in key.split("."):
                found = resolved(found, path, (*followed, key)) if isinstance(found, str) else found
                if not isinstance(found, Mapping) or name not in found:
                    raise refuse(f"{match[0]} is not the name of another key")
                found = found[name]
            return resolved(found, path, (*followed, key))

        if next(count) > MOST_VALUES:
            raise refuse(f"there are more than {MOST_VALUES} values")
        if isinstance(value, Mapping):
            return {key: resolved(each, f"{path}.{key}" if path else key, followed) for key, each in value.items()}
        if isinstance(value, list):
            return [resolved(each, path, followed) for each in value]
        if not isinstance(value, str) or "${" not in value:
            return value
        if whole := _REFERENCE.fullmatch(value):
            return value_of(whole)
        text = _REFERENCE.sub(lambda match: str(value_of(match)), value)
        if "${" in text:
            raise refuse(f"{value} holds more than the names of other keys")
        return text

    return cast("dict[str, Any]", resolved(document, "", ()))


def leaves(document: Document, path: str = "", take_lists_apart: bool = True) -> Iterator[tuple[str, Any]]:
    """Settings by dotted key after `path`; groups in a list are numbered, unless the list is to stay together."""
    for key, value in document.items():
        if take_lists_apart and isinstance(value, list) and any(isinstance(entry, Mapping) for entry in value):
            value = {str(i): entry for i, entry in enumerate(value)}
        if isinstance(value, Mapping) and value:
            yield from leaves(value, f"{path}{key}.", take_lists_apart)
        else:
            yield f"{path}{key}", value
