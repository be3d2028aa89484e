"""From a pipeline file to stages in the order in which they run; whatever is wrong with it is told at once."""

from __future__ import annotations

import dataclasses
import re
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, cast

from raptor.config import to_dict
from raptor.config.checking import Problem, raise_problems, split_unknown, validate
from raptor.config.merging import merge, plain
from raptor.config.schema import show
from raptor.config.sources import COMMAND_LINE, Source, parse_overrides, read_files
from raptor.errors import UserError
from raptor.limits import between, limits, optional
from raptor.nn.files import POLICY_NAMES
from raptor.pipeline.graph import Input, Pipeline, Stage, close, in_order
from raptor.pipeline.jobs import JOBS, Job
from raptor.pipeline.stages import POLICY, named, references

PRESETS = "run"
"""Presets of pipelines stand among those of the job of this name."""


@dataclasses.dataclass(frozen=True)
@limits(seed=optional(between(0, 999_999)))
class Everywhere:
    """What a pipeline says for all of its stages."""

    output: str | None = None  # folder of everything
    seed: int | None = None  # of all stages that do not say their own
    device: str | None = None  # of all stages that do not say their own
    compile: bool | None = None  # of all stages that do not say their own


def load_pipeline(
    file: str | Path, overrides: Sequence[str] = (), jobs: Mapping[str, Job] = MappingProxyType(JOBS)
) -> Pipeline:
    """Read a pipeline.

    Args:
        file: a YAML file, or the name of a packaged preset. Its key `base` names another one that it inherits from.
        overrides: `STAGE.KEY=VALUE` each, or `KEY=VALUE` for what concerns all stages.
        jobs: what a stage can be, by name.

    Raises:
        UserError: names every unknown job, key, stage and file, every wrong type and impossible value, where it stands
            and what is allowed; or the circle in which stages need each other.
    """
    sources = read_files(file, PRESETS)
    sources += _addressed(parse_overrides(overrides), sources)
    everywhere, given = _everywhere(sources), _given(sources)
    if not given:
        raise UserError(f"{file} has no stages: name at least one under `stages`, with one of the jobs {_listed(jobs)}")
    problems = [problem for name, said in given.items() for problem in _misnamed(name, said, jobs, sources)]
    raise_problems(problems)
    chosen = {name: jobs[said.get("job") or name] for name, said in given.items()}
    schemas = {name: _schema(name, job, given[name], everywhere) for name, job in chosen.items()}
    keys = _validated(schemas, sources)
    wrong = [problem for name in keys for problem in _misreferenced(name, keys[name], chosen, sources)]
    raise_problems(wrong)
    stages = {name: Stage(name, job, keys[name]) for name, job in chosen.items()}
    stages = {name: _completed(stage, stages) for name, stage in stages.items()}
    document = cast("dict[str, Any]", plain(merge([source.settings for source in sources])))
    return Pipeline(str(file), everywhere.output, tuple(in_order(stages)), document)


def _addressed(overrides: Sequence[Source], files: Sequence[Source]) -> list[Source]:
    """Overrides with `stages` before those that begin with the name of a stage."""
    stages = list(_given([*files, *overrides]))
    own = [field.name for field in dataclasses.fields(Everywhere)]
    problems, addressed = [], []
    for source in overrides:
        [(key, value)] = source.settings.items()
        if key in stages:
            source = Source(source.name, {"stages": {key: value}})
        elif key not in (*own, "stages"):
            text = f"is no stage and no setting of all ({source.name}){close(key, [*stages, *own])}: give one of"
            problems.append(Problem(key, f"{text} {', '.join([*stages, *own])}"))
        addressed.append(source)
    raise_problems(problems)
    return addressed


def _given(sources: Sequence[Source]) -> dict[str, dict[str, Any]]:
    """What is said of each stage, unchecked."""
    documents = []
    for source in sources:
        stages = source.settings.get("stages")
        if not isinstance(stages, Mapping | None):
            raise UserError(f"stages must be a group with a key for each stage, got {show(stages)} ({source.name})")
        for name, said in (stages or {}).items():
            if not isinstance(said, Mapping | None):
                raise UserError(f"stages.{name} must be a group of settings, got {show(said)} ({source.name})")
        documents.append({str(name): said or {} for name, said in (stages or {}).items()})
    return cast("dict[str, dict[str, Any]]", plain(merge(documents)))


def _everywhere(sources: Sequence[Source]) -> Everywhere:
    """What is said for all stages."""
    own = [field.name for field in dataclasses.fields(Everywhere)]
    unknown = [
        Problem(
            str(key),
            f"is unknown ({source.name}){close(str(key), [*own, 'stages'])}: the keys are {', '.join(own)} and stages",
        )
        for source in sources
        for key in source.settings
        if key not in (*own, "stages")
    ]
    raise_problems(unknown)
    known = [Source(source.name, _without_stages(source)) for source in sources]
    merged = merge([to_dict(Everywhere()), *(source.settings for source in known)])
    config, wrong = validate(Everywhere, plain(merged, resolve=True), known)
    raise_problems(wrong)
    assert config is not None
    return config


def _without_stages(source: Source) -> dict[Any, Any]:
    return {key: value for key, value in source.settings.items() if key != "stages"}


def _misnamed(name: str, said: Mapping[str, Any], jobs: Mapping[str, Job], sources: Sequence[Source]) -> list[Problem]:
    """Names that a stage cannot have, and jobs that are none."""
    reserved = [*POLICY_NAMES, "stages", "base", *(field.name for field in dataclasses.fields(Everywhere))]
    key = f"stages.{name}"
    if name in reserved or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", name):
        text = f"cannot be the name of a stage ({_told_by(sources, name)}): use letters, digits, - and _, and none of"
        return [Problem(key, f"{text} {', '.join(reserved)}")]
    job = said.get("job")
    if job is None and name not in jobs:
        return [Problem(f"{key}.job", f"is missing ({_told_by(sources, name)}): give one of {_listed(jobs)}")]
    if job is not None and job not in jobs:
        where = _told_by(sources, name, "job")
        return [Problem(f"{key}.job", f"must be one of {_listed(jobs)}, got {show(job)} ({where})")]
    return []


def _schema(name: str, job: Job, said: Mapping[str, Any], everywhere: Everywhere) -> type:
    """The dataclass of a stage: keys and settings of its job, with the defaults that hold for it."""
    common = {key: getattr(everywhere, key) for key in job.inherits if getattr(everywhere, key) is not None}
    hints = typing.get_type_hints(job.keys)
    fields = [("job", str, dataclasses.field(default=job.name))]
    fields += [(key, hints[key], dataclasses.field(default=value)) for key, value in common.items() if key in hints]
    if job.settings is not None:
        try:
            default = job.settings(said)
            shared = {key: value for key, value in common.items() if hasattr(default, key)}
            default = dataclasses.replace(default, **shared)
        except UserError as error:
            raise UserError(f"stages.{name}.config: {error}") from error
        fields.append(("settings", type(default), dataclasses.field(default=default)))
    return dataclasses.make_dataclass(job.keys.__name__, fields, bases=(job.keys,), frozen=True)


def _validated(schemas: Mapping[str, type], sources: Sequence[Source]) -> dict[str, Any]:
    """The keys of each stage, checked."""
    problems: list[Problem] = []
    parts: dict[str, list[Source]] = {name: [] for name in schemas}
    for source in sources:
        for name, said in (source.settings.get("stages") or {}).items():
            known, unknown = split_unknown(schemas[name], Source(source.name, dict(said or {})))
            parts[name].append(known)
            problems += _prefixed(name, unknown)
    common = [_without_stages(source) for source in sources]
    defaults = {"stages": {name: to_dict(schema()) for name, schema in schemas.items()}}
    said_of = [{"stages": {name: part.settings}} for name, known_parts in parts.items() for part in known_parts]
    merged = plain(merge([to_dict(Everywhere()), *common, defaults, *said_of]), resolve=True)
    keys: dict[str, Any] = {}
    for name, schema in schemas.items():
        keys[name], wrong = validate(schema, merged["stages"][name], parts[name])
        problems += _prefixed(name, wrong)
    raise_problems(problems)
    return keys


def _prefixed(name: str, problems: Sequence[Problem]) -> list[Problem]:
    return [Problem(f"stages.{name}.{problem.key}", problem.text) for problem in problems]


def _misreferenced(name: str, keys: Any, jobs: Mapping[str, Job], sources: Sequence[Source]) -> list[Problem]:
    """What a stage needs and was not told, and what it names that is not there or of another kind."""
    job, problems = jobs[name], []
    for needed in job.needs:
        told = [key for key in needed if getattr(keys, key) not in (None, ())]
        if len(told) != 1:
            text = f"needs {'either ' if len(needed) > 1 else ''}{' or '.join(needed)}"
            got = f", got {' and '.join(told)}" if told else ""
            problems.append(Problem(f"stages.{name}", f"{text}{got} ({_told_by(sources, name)})"))
    for key, kind, _ in references(job.keys):
        where = _told_by(sources, name, key)
        for value in named(keys, key):
            if value in jobs and jobs[value].gives != kind:
                fitting = [other for other, theirs in jobs.items() if theirs.gives == kind] or ["none here"]
                text = (
                    f"names the stage {value!r}, which gives {_a(jobs[value].gives)} and not {_a(kind)} ({where}): "
                    f"stages that do are {', '.join(fitting)}"
                )
                problems.append(Problem(f"stages.{name}.{key}", text))
            elif value not in jobs and not ((value in POLICY_NAMES and kind == POLICY) or Path(value).exists()):
                names = f" nor one of the policies {', '.join(POLICY_NAMES)}" if kind == POLICY else ""
                text = f"names {value!r}, which is neither a stage nor a file{names} ({where}){close(value, jobs)}"
                problems.append(Problem(f"stages.{name}.{key}", f"{text}: the stages are {', '.join(jobs)}"))
    return problems


def _completed(stage: Stage, stages: Mapping[str, Stage]) -> Stage:
    """A stage with what it takes over from others, and its inputs."""
    keys = stage.job.complete(stage.keys, stages)
    inputs = [
        Input(key, kind, value, value in stages)
        for key, kind, _ in references(stage.job.keys)
        for value in named(keys, key)
    ]
    return dataclasses.replace(stage, keys=keys, inputs=tuple(inputs))


def _told_by(sources: Sequence[Source], *path: str) -> str:
    """The last place that says something of a stage, or of a key of it."""
    for source in reversed(sources):
        inner: Any = source.settings.get("stages")
        for name in path:
            inner = inner.get(name) if isinstance(inner, Mapping) else None
        if inner is not None:
            return source.name
    return next((source.name for source in reversed(sources) if source.name != COMMAND_LINE), COMMAND_LINE)


def _a(kind: str) -> str:
    return kind if kind.endswith("s") else f"an {kind}" if kind[0] in "aeiou" else f"a {kind}"


def _listed(jobs: Mapping[str, Job]) -> str:
    return ", ".join(jobs)
