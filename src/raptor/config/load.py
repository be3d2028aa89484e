"""From files and overrides to a dataclass, and back.

A value is looked for in this order: the overrides, the file, the files that it is based on, the dataclass.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, cast

import yaml

from raptor.config.checking import raise_problems, split_unknown, validate
from raptor.config.merging import merge, plain
from raptor.config.schema import show
from raptor.config.sources import Source, parse_overrides, read_files

T = TypeVar("T")


def load_config(
    cls: type[T], file: str | Path | None = None, overrides: Sequence[str] = (), default: T | None = None
) -> T:
    """Read settings.

    Args:
        cls: frozen dataclass; nested dataclasses are groups. A group with a class attribute `SHORTHAND` can be given as
            a plain value, which then stands for the field of that name: `engine=ray` for `engine.name=ray`. A class
            attribute `JOB` names the job whose presets are meant.
        file: YAML file, or the name of a packaged preset. Its key `base` names one file or preset, or a list of them,
            that it inherits from; relative to itself.
        overrides: `key=value` each, with dotted keys and YAML values: `task.references.lissajous.interval=[4, 10]`.
        default: what holds where nothing is said, instead of `cls()`.

    Raises:
        UserError: names every unknown key, wrong type and impossible value, where it stands and what is allowed.
    """
    job = getattr(cls, "JOB", "train-direct")
    given = [*(read_files(file, job) if file is not None else []), *parse_overrides(overrides)]
    sources, problems = [], []
    for source in given:
        known, unknown = split_unknown(cls, source)
        sources.append(known)
        problems += unknown
    base = cls() if default is None else default
    config, wrong = validate(cls, _merge([to_dict(base), *(source.settings for source in sources)]), sources)
    raise_problems([*problems, *wrong])
    assert config is not None
    return config


def from_dict(cls: type[T], settings: Mapping[str, Any]) -> T:
    """Settings from nested dictionaries and lists, as `to_dict` gives them.

    Raises:
        UserError: names every unknown key, wrong type and impossible value.
    """
    known, problems = split_unknown(cls, Source("settings", dict(settings)))
    config, wrong = validate(cls, _merge([to_dict(cls()), known.settings]), [known])
    raise_problems([*problems, *wrong])
    assert config is not None
    return config


def to_dict(config: Any) -> dict[str, Any]:
    """Settings as nested dictionaries and lists."""
    return cast("dict[str, Any]", _plain(dataclasses.asdict(config)))


def to_yaml(config: Any) -> str:
    """Settings as a YAML document that `load_config` reads back."""
    text: str = yaml.dump(to_dict(config), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)
    return text


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


def leaves(
    document: Mapping[str, Any], path: tuple[str, ...] = (), take_lists_apart: bool = True
) -> Iterator[tuple[str, Any]]:
    """Settings by dotted key.

    Args:
        document: nested dictionaries and lists.
        path: where it stands.
        take_lists_apart: number the groups of a list, so that each has keys of its own.
    """
    for key, value in document.items():
        if take_lists_apart and isinstance(value, list) and any(isinstance(entry, Mapping) for entry in value):
            value = {str(i): entry for i, entry in enumerate(value)}
        if isinstance(value, Mapping) and value:
            yield from leaves(value, (*path, key), take_lists_apart)
        else:
            yield ".".join((*path, key)), value


def _merge(documents: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return cast("dict[str, Any]", plain(merge(documents), resolve=True))


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, (tuple, list)) else value


class _Dumper(yaml.SafeDumper):
    """Lists on one line, groups and lists of groups over several."""


_Dumper.add_representer(
    list,
    lambda dumper, data: dumper.represent_sequence(
        "tag:yaml.org,2002:seq", data, flow_style=not any(isinstance(entry, dict) for entry in data)
    ),
)
