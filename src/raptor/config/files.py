"""Settings as nested dictionaries: from YAML files and `key=value`, laid over each other, with `${key}` filled in."""

from __future__ import annotations

import itertools
import re
import typing
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

from raptor.config.settings import group_in, group_of_entries, show
from raptor.core.errors import UserError
from raptor.core.yaml_files import DEEPEST, MOST_VALUES, load_yaml, read_yaml

COMMAND_LINE = "command line"
PRESETS = Path(__file__).parent / "presets"
RENAMED = {("run", "quickstart"): "small"}  # new names of presets, by job and old name
MANIFEST = "run.yaml"  # of a run, see `raptor.runs.folder`; its settings are a configuration too
Document = Mapping[str, Any]
_REFERENCE = re.compile(r"\$\{([^{}]*)\}")


class Source(NamedTuple):
    """Settings from one place."""

    name: str
    settings: Document


def presets(job: str = "train-direct") -> list[str]:
    """Names of the packaged presets of a job."""
    return sorted(path.stem for path in (PRESETS / job).glob("*.yaml"))


def parse_overrides(overrides: Sequence[str]) -> list[Source]:
    """Turn each `a.b=1` into the group a with the key b; `UserError` for what is not of that form or not valid YAML."""
    sources = []
    for override in overrides:
        key, equals, text = override.partition("=")
        path = key.strip().split(".")
        if not equals or not all(path):
            raise UserError(f"a setting is given as key=value, for example learning_rate=1e-3, got {override!r}")
        value = load_yaml(text, f"{override!r} ({COMMAND_LINE})")
        for name in reversed(path):
            value = {name: value}
        sources.append(Source(COMMAND_LINE, value))
    return sources


def read_files(
    file: str | Path, job: str = "train-direct", folder: Path = Path(), above: tuple[Path, ...] = ()
) -> list[Source]:
    """Read a file in a folder, a run or a preset of a job, and all that it is based on, the deepest base first."""
    named, what = folder / Path(file).expanduser(), f" (base of {above[-1]})" if above else ""
    if found := [each for each in (named, named / MANIFEST) if each.is_file()]:
        path = found[0].resolve()
    elif str(file) in presets(job):
        path = PRESETS / job / f"{file}.yaml"
    elif new := RENAMED.get((job, str(file))):
        raise UserError(f"the preset {file} is called {new} now{what}")
    else:
        raise UserError(
            f"there is no configuration file {named}{what}: give a YAML file, a run, or one of the presets "
            f"{', '.join(presets(job))}"
        )
    if path in above:
        circle = " -> ".join(map(str, (*above[above.index(path) :], path)))
        raise UserError(f"configuration files are based on each other in a circle: {circle}; remove one `base`")
    settings = read_yaml(path)
    if settings is None:
        settings = {}
    if not isinstance(settings, dict):
        raise UserError(f"{path} must hold keys with values, got {show(settings)}")
    if path.name == MANIFEST and isinstance(settings.get("settings"), dict):
        return [Source(str(path), settings["settings"])]
    given = settings.pop("base", None) or []
    bases = [given] if isinstance(given, str) else given
    if not isinstance(bases, list) or not all(isinstance(base, str) for base in bases):
        raise UserError(f"base must be the name of a file or a list of names, got {show(bases)} ({path})")
    inherited = [source for base in bases for source in read_files(base, job, path.parent, (*above, path))]
    return [*inherited, Source(str(path), settings)]


def overlay(below: Document, above: Document, cls: type | None = None) -> dict[str, Any]:
    """One document over another, group by group; `UserError` for a group given both as `${key}` and by keys of its own.

    Settings of a class may leave a group empty, or give a plain value in place of one with a `SHORTHAND`.
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
    """Put the value of another key in the place of each `${key}`; nothing else is read, not the environment either."""
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
