"""From files and overrides to a dataclass, and back."""

from __future__ import annotations

import dataclasses
import difflib
import functools
import json
import math
import re
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, cast

from raptor.config.files import Source, leaves, overlay, parse_overrides, read_files, resolve
from raptor.config.settings import (
    Limit,
    NamedGroups,
    describe,
    group_in,
    group_of_entries,
    limits_of,
    named_groups_in,
    show,
)
from raptor.core.errors import UserError
from raptor.core.yaml_files import dump_yaml, to_plain

T = TypeVar("T")
Keys = tuple[str, ...]
WRONG: Any = object()


def load_config(
    cls: type[T], file: str | Path | None = None, overrides: Sequence[str] = (), default: T | None = None
) -> T:
    """Settings of a class from a file and overrides, over those of `default` or `cls()`; nested classes are groups.

    The file is YAML, the folder of a run, or the name of a packaged preset; its key `base` names one or a list of them,
    relative to itself, that it inherits from. Overrides are `key=value` with dotted keys and YAML values:
    `task.references.lissajous.interval=[4, 10]`. A group with a `SHORTHAND` can be given as a plain value.

    Raises:
        UserError: names every unknown key, wrong type and impossible value, where it stands and what is allowed.
    """
    files = read_files(file, getattr(cls, "JOB", "train-direct")) if file is not None else []
    return _loaded(cls, cls() if default is None else default, [*files, *parse_overrides(overrides)])


def from_dict(cls: type[T], settings: Mapping[str, Any], default: T | None = None) -> T:
    """Settings from nested dictionaries and lists, as `to_dict` gives them, over a default; errors as `load_config`."""
    return _loaded(cls, cls() if default is None else default, [Source("settings", to_plain(settings, "settings"))])


def to_dict(config: Any) -> dict[str, Any]:
    """Settings as nested dictionaries and lists."""
    return cast("dict[str, Any]", to_plain(config, "settings"))


def to_yaml(config: Any) -> str:
    """Settings as a YAML document that `load_config` reads back."""
    return dump_yaml(to_dict(config))


def differences(old: Any, new: Any) -> list[str]:
    """Each setting in which two configurations of one kind differ: `batch_size (512, now 256)`."""
    return changed(dict(leaves(to_dict(old))), dict(leaves(to_dict(new))))


def changed(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """The same of settings by dotted key."""
    return [
        f"{key} ({show(before.get(key))}, now {show(after.get(key))})"
        for key in dict.fromkeys((*before, *after))
        if before.get(key) != after.get(key)
    ]


def _loaded(cls: type[T], default: T, sources: Sequence[Source]) -> T:
    settings, check = to_dict(default), Check(sources)
    for source in sources:
        settings = overlay(settings, source.settings, cls)
    config = check.group(cls, resolve(settings))
    check.finish()
    return cast("T", config)


@dataclasses.dataclass
class Check:
    """Settings being checked against their declarations."""

    sources: Sequence[Source]
    problems: dict[str, str] = dataclasses.field(default_factory=dict)

    def finish(self) -> None:
        """Raise one error that names all problems."""
        if self.problems:
            raise UserError("; ".join(f"{key} {problem}" for key, problem in self.problems.items()))

    def group(self, cls: type, settings: Mapping[str, Any], path: Keys = (), more: Sequence[str] = ()) -> Any:
        """The dataclass that settings at a path make, or `WRONG`; `more` are keys that could have been meant."""
        hints, limits, values = typing.get_type_hints(cls), limits_of(cls), {}
        fields = {field.name: field.default for field in dataclasses.fields(cls)}
        for key in (key for key in settings if key not in fields):
            renamed = getattr(cls, "RENAMED", {}).get(key)
            keys = f"keys of {'.'.join(path)}" if path else "keys"
            advice = f"it is called {renamed} now" if renamed else nearest(key, [*fields, *more], keys)
            self.wrong((*path, key), "is unknown", advice)
        for name, default in fields.items():
            if name in settings or default is dataclasses.MISSING:
                values[name] = self._value(hints[name], limits.get(name), settings.get(name), (*path, name))
        if any(value is WRONG for value in values.values()):
            return WRONG
        try:
            return cls(**values)
        except ValueError as error:
            return self.wrong(path, f"is impossible: {error}")

    def wrong(self, path: Keys, problem: str, advice: str = "") -> Any:
        """Note a problem, with the place where the key was given; returns `WRONG`."""
        advice = f": {advice}" if advice else ""
        self.problems.setdefault(".".join(path) or "the configuration", f"{problem}{self.where(path)}{advice}")
        return WRONG

    def where(self, path: Keys) -> str:
        """The last place that says something about a key, about keys inside it, or else about its group or list."""
        for source in reversed(self.sources):
            inner: Any = source.settings
            for name in path:
                inner = inner.get(name, WRONG) if isinstance(inner, Mapping) else inner
            if inner is not WRONG:
                return f" ({source.name})"
        return self.where(path[:-1]) if path else ""

    def _value(self, annotation: Any, limit: Limit | None, value: Any, path: Keys) -> Any:
        group, entry, value = group_in(annotation), group_of_entries(annotation), _whole(value)
        if named := named_groups_in(annotation):
            return self._named_groups(named, value, path)
        if group and isinstance(value, Mapping):
            return self.group(group, value, path)
        if entry and isinstance(value, list):
            found: Any = tuple(self._value(entry, None, each, (*path, str(i))) for i, each in enumerate(value))
            if any(each is WRONG for each in found):
                return WRONG
        elif extreme := _extreme(value):
            return self.wrong(path, f"must be {extreme}, got {show(value)}")
        else:
            found = WRONG if group or entry else _converted(annotation, value)
        if found is WRONG:
            return self.wrong(path, f"must be {describe(annotation)}, got {show(value)}")
        if limit and not limit.allows(found):
            return self.wrong(path, f"must be {limit.text}, got {show(value)}")
        return found

    def _named_groups(self, cls: type[NamedGroups], value: Any, path: Keys) -> Any:
        """Groups by name: a mapping, in which null leaves one out, or a list of names, each with its defaults."""
        if isinstance(value, list) and all(isinstance(name, str) for name in value):
            value = {name: {} for name in value}
        if not isinstance(value, Mapping):
            return self.wrong(path, f"must be groups of settings by name, got {show(value)}")
        found = {}
        for name, inner in value.items():
            if inner is None:
                continue
            if not isinstance(inner, Mapping):
                return self.wrong((*path, name), f"must be a group of settings, got {show(inner)}")
            try:
                found[name] = self.group(cls.class_of(name), inner, (*path, name))
            except UserError as error:
                return self.wrong((*path, name), f"cannot be used: {error}")
        if any(group is WRONG for group in found.values()):
            return WRONG
        try:
            return cls.of(found)
        except UserError as error:
            return self.wrong(path, f"is impossible: {error}")


def nearest(name: str, names: Sequence[str], what: str) -> str:
    """What may have been meant, and what there is."""
    close = difflib.get_close_matches(name, names, n=1)
    return f"{f'did you mean {close[0]}? The' if close else 'the'} {what} are {', '.join(names)}"


def _converted(annotation: Any, value: Any) -> Any:
    """The value as that type; as in JSON and strict: lists become tuples, and neither "1" nor true is a number.

    Where text does not serve, a percentage is a number: `20%` is 0.2.
    """
    try:
        return _adapter(annotation).validate_json(json.dumps(value), strict=True)
    except ValueError:
        percentage = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?) ?%", value) if isinstance(value, str) else None
        return WRONG if percentage is None else _converted(annotation, float(percentage[1]) / 100)


@functools.cache
def _adapter(annotation: Any) -> Any:
    import pydantic

    return pydantic.TypeAdapter(annotation)


def _extreme(value: Any) -> str | None:
    """What a number that no setting can have fails to be."""
    if isinstance(value, list):
        return next(filter(None, map(_extreme, value)), None)
    if isinstance(value, int) and abs(value) >= 2**63:
        return "below 2^63"
    return "finite" if isinstance(value, float) and not math.isfinite(value) else None


def _whole(value: Any) -> Any:
    """2e3 as 2000, which serves as a whole number and as any other."""
    if isinstance(value, list):
        return [_whole(inner) for inner in value]
    return int(value) if isinstance(value, float) and value.is_integer() and abs(value) < 2**53 else value
