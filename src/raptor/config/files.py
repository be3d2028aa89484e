"""Where settings come from: YAML files that are based on each other, and `key=value` on the command line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from raptor.config.settings import show
from raptor.core.errors import UserError
from raptor.core.yaml_files import load_yaml, read_yaml

COMMAND_LINE = "command line"
PRESETS = Path(__file__).parent / "presets"
RENAMED = {("run", "quickstart"): "small"}
"""New names of presets, by job and old name."""

MANIFEST = "run.yaml"
"""Of a run, see `raptor.runs.folder`; its settings are a configuration too."""


class Source(NamedTuple):
    """Settings from one place."""

    name: str
    settings: Mapping[str, Any]


def presets(job: str = "train-direct") -> list[str]:
    """Names of the packaged presets of a job."""
    return sorted(path.stem for path in (PRESETS / job).glob("*.yaml"))


def read_files(file: str | Path, job: str = "train-direct") -> list[Source]:
    """Read a file, a run or a preset of a job, and all that it is based on; from the deepest base to the file itself.

    Raises:
        UserError: a file is missing or holds something else than settings, or files are based on each other.
    """
    return _with_bases(_locate(file, Path(), "", job), (), job)


def parse_overrides(overrides: Sequence[str]) -> list[Source]:
    """Turn each `a.b=1` into the group a with the key b.

    Raises:
        UserError: one is not of that form, or its value not valid YAML.
    """
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


def _with_bases(path: Path, above: tuple[Path, ...], job: str) -> list[Source]:
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
    located = [_locate(base, path.parent, f" (base of {path})", job) for base in bases]
    inherited = [source for base in located for source in _with_bases(base, (*above, path), job)]
    return [*inherited, Source(str(path), settings)]


def _locate(name: str | Path, folder: Path, what: str, job: str) -> Path:
    """The file of that name, or else the preset of that name."""
    path = folder / Path(name).expanduser()
    for file in (path, path / MANIFEST):
        if file.is_file():
            return file.resolve()
    if str(name) in presets(job):
        return PRESETS / job / f"{name}.yaml"
    if new := RENAMED.get((job, str(name))):
        raise UserError(f"the preset {name} is called {new} now{what}")
    raise UserError(
        f"there is no configuration file {path}{what}: give a YAML file, a run, or one of the presets "
        f"{', '.join(presets(job))}"
    )
