"""Where settings come from: YAML files with inheritance, and `key=value` on the command line."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from raptor.config.schema import show
from raptor.core.errors import UserError

COMMAND_LINE = "command line"
PRESETS = Path(__file__).parent / "presets"


class Source(NamedTuple):
    """Settings from one place."""

    name: str
    settings: dict[Any, Any]


def presets(job: str = "train-direct") -> list[str]:
    """Names of the packaged presets of a job."""
    return sorted(path.stem for path in (PRESETS / job).glob("*.yaml"))


def read_files(file: str | Path, job: str = "train-direct") -> list[Source]:
    """Read a file, or a preset of a job, and all that it is based on; from the deepest base to the file itself."""
    return _read_with_bases(_locate(file, Path(), "", job), (), job)


def parse_overrides(overrides: Sequence[str]) -> list[Source]:
    """Turn each `a.b=1` into the group a with the key b."""
    sources = []
    for override in overrides:
        key, equals, text = override.partition("=")
        path = key.strip().split(".")
        if not equals or not all(path):
            raise UserError(f"a setting is given as key=value, for example learning_rate=1e-3, got {override!r}")
        try:
            value = yaml.load(text, Loader=_Loader)
        except (yaml.YAMLError, ValueError, RecursionError) as error:
            raise UserError(f"the value of {key} is not valid YAML: {text!r} ({COMMAND_LINE})") from error
        for name in reversed(path):
            value = {name: value}
        sources.append(Source(COMMAND_LINE, value))
    return sources


def _read_with_bases(path: Path, above: tuple[Path, ...], job: str) -> list[Source]:
    if path in above:
        circle = " -> ".join(map(str, (*above[above.index(path) :], path)))
        raise UserError(f"configuration files are based on each other in a circle: {circle}; remove one `base`")
    settings = _read(path)
    bases = settings.pop("base", None) or []
    bases = [bases] if isinstance(bases, str) else bases
    if not isinstance(bases, list) or not all(isinstance(base, str) for base in bases):
        raise UserError(f"base must be the name of a file or a list of names, got {show(bases)} ({path})")
    located = [_locate(base, path.parent, f" (base of {path})", job) for base in bases]
    inherited = [source for base in located for source in _read_with_bases(base, (*above, path), job)]
    return [*inherited, Source(str(path), settings)]


def _locate(name: str | Path, folder: Path, what: str, job: str) -> Path:
    """The file of that name, or else the preset of that name."""
    path = folder / Path(name).expanduser()
    if path.is_file():
        return path.resolve()
    if str(name) in presets(job):
        return PRESETS / job / f"{name}.yaml"
    raise UserError(
        f"there is no configuration file {path}{what}: give a YAML file or one of the presets {', '.join(presets(job))}"
    )


def _read(path: Path) -> dict[Any, Any]:
    try:
        settings = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    except OSError as error:
        raise UserError(f"cannot read the configuration {path}: {error.strerror}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise UserError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from error
    if settings is None:
        return {}
    if not isinstance(settings, dict):
        raise UserError(f"{path} must hold keys with values, got {show(settings)}")
    return settings


class _Loader(yaml.SafeLoader):
    """YAML without its traps: 1e-3 is a number, a key that comes twice is an error, and `on` and dates are text."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value if key.tag != "tag:yaml.org,2002:merge"]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.constructor.ConstructorError(None, None, f"the key {key} comes twice", node.start_mark)
        mapping: dict[Any, Any] = super().construct_mapping(node, deep)
        return mapping


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag.rsplit(":", 1)[-1] in ("null", "merge")]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
# The core schema of YAML 1.2.
for _kind, _pattern, _first in (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", r"[-+]?[0-9]+", "-+0123456789"),
    (
        "float",
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        "-+.0123456789",
    ),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_kind}", re.compile(rf"^(?:{_pattern})$"), [*_first])
