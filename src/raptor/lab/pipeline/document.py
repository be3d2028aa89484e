"""From a pipeline file to stages in the order in which they run; whatever is wrong with it is told at once."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, cast

from raptor.config import to_dict
from raptor.config.checking import Problem, raise_problems, split_unknown, validate
from raptor.config.merging import merge, plain
from raptor.config.schema import show
from raptor.config.settings import Settings, between, optional, setting
from raptor.config.sources import COMMAND_LINE, Source, parse_overrides, read_files
from raptor.core.errors import UserError
from raptor.formats.policy_files import POLICY_NAMES
from raptor.lab.pipeline.graph import Input, Pipeline, Stage, close, in_order
from raptor.lab.pipeline.jobs import JOBS, Job
from raptor.lab.pipeline.stages import POLICY, named, references

PRESETS = "run"
"""Presets of pipelines stand among those of the job of this name."""


@dataclasses.dataclass(frozen=True)
class Everywhere(Settings):
    """What a pipeline says for all of its stages."""

    output: str | None = setting(None, "folder of everything")
    seed: int | None = setting(None, "of all stages that do not say their own", optional(between(0, 999999)))
    device: str | None = setting(None, "of all stages that do not say their own")
    compile: bool | None = setting(None, "of all stages that do not say their own")


COMMON = tuple(field.name for field in dataclasses.fields(Everywhere))


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
    files = read_files(file, PRESETS)
    said_now = _addressed(parse_overrides(overrides), files)
    sources = [*files, *said_now]
    given = _given(sources)
    everywhere = _everywhere(sources, given)
    if not given:
        raise UserError(f"{file} has no stages: name at least one under `stages`, with one of the jobs {_listed(jobs)}")
    raise_problems([problem for name, said in given.items() for problem in _misnamed(name, said, jobs, sources)])
    chosen = {name: jobs[said.get("job") or name] for name, said in given.items()}
    sources = [*files, *_of_each(said_now, chosen), *said_now]
    keys = _validated(chosen, given, everywhere, sources)
    raise_problems([problem for name in keys for problem in _misreferenced(name, keys[name], chosen, sources)])
    stages = {name: Stage(name, job, keys[name]) for name, job in chosen.items()}
    stages = {name: _completed(stage, stages) for name, stage in stages.items()}
    document = cast("dict[str, Any]", plain(merge([source.settings for source in sources])))
    return Pipeline(str(file), everywhere.output, tuple(in_order(stages)), document)


def _addressed(overrides: Sequence[Source], files: Sequence[Source]) -> list[Source]:
    """Overrides with `stages` before those that begin with the name of a stage."""
    stages = _given([*files, *overrides])
    return [
        Source(source.name, {"stages": source.settings}) if source.settings.keys() & stages.keys() else source
        for source in overrides
    ]


def _of_each(overrides: Sequence[Source], jobs: Mapping[str, Job]) -> list[Source]:
    """What the command line says for all stages, said of each: there it counts over what files say of that stage."""
    return [
        Source(source.name, {"stages": {name: _placed(job, key, value)}})
        for source in overrides
        for key, value in source.settings.items()
        for name, job in jobs.items()
        if key in job.inherits and value is not None
    ]


def _placed(job: Job, key: str, value: Any) -> dict[str, Any]:
    """Something that is said for all stages, where a stage of that job says it."""
    return {key: value} if hasattr(job.keys, key) else {"settings": {key: value}}


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
        documents.append(_stages(source))
    return cast("dict[str, dict[str, Any]]", plain(merge(documents)))


def _stages(source: Source) -> dict[str, Any]:
    """What is said of each stage in one place."""
    return {str(name): said or {} for name, said in (source.settings.get("stages") or {}).items()}


def _everywhere(sources: Sequence[Source], stages: Iterable[str]) -> Everywhere:
    """What is said for all stages."""
    known, problems = (*COMMON, "stages"), []
    for source in sources:
        for key in (str(key) for key in source.settings if key not in known):
            names = [*known, *(stages if source.name == COMMAND_LINE else ())]
            text = f"is unknown ({source.name}){close(key, names)}: the keys are {', '.join(names)}"
            problems.append(Problem(key, text))
    raise_problems(problems)
    common = [Source(source.name, _without_stages(source)) for source in sources]
    merged = merge([to_dict(Everywhere()), *(source.settings for source in common)])
    config, wrong = validate(Everywhere, plain(merged, resolve=True), common)
    raise_problems(wrong)
    assert config is not None
    return config


def _without_stages(source: Source) -> dict[Any, Any]:
    return {key: value for key, value in source.settings.items() if key != "stages"}


def _misnamed(name: str, said: Mapping[str, Any], jobs: Mapping[str, Job], sources: Sequence[Source]) -> list[Problem]:
    """Names that a stage cannot have, and jobs that are none."""
    reserved = [*POLICY_NAMES, "stages", "base", *COMMON]
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


def _begin(name: str, job: Job, said: Mapping[str, Any]) -> tuple[type, list[Source]]:
    """The dataclass of a stage, with the defaults of its job, and the files that its key `config` names."""
    fields = [("job", str, dataclasses.field(default=job.name))]
    files: list[Source] = []
    if job.settings is not None:
        default = job.settings(said)
        fields.append(("settings", type(default), dataclasses.field(default=default)))
        if hasattr(job.keys, "config") and isinstance(said.get("config"), str):
            try:
                files = read_files(said["config"], getattr(type(default), "JOB", "train-direct"))
            except UserError as error:
                raise UserError(f"stages.{name}.config: {error}") from error
    schema = dataclasses.make_dataclass(job.keys.__name__, fields, bases=(job.keys,), frozen=True)
    return schema, [Source(file.name, {"settings": file.settings}) for file in files]


def _validated(
    jobs: Mapping[str, Job], given: Mapping[str, Any], everywhere: Everywhere, sources: Sequence[Source]
) -> dict[str, Any]:
    """The keys of each stage, checked: what is said of it, over its files, over what is said of all, over defaults."""
    common = {key: value for key in COMMON if (value := getattr(everywhere, key)) is not None}
    documents = [to_dict(Everywhere()), *map(_without_stages, sources)]
    problems: list[Problem] = []
    schemas: dict[str, tuple[type, list[Source]]] = {}
    for name, job in jobs.items():
        schema, files = _begin(name, job, given[name])
        said = [Source(source.name, told[name]) for source in sources if name in (told := _stages(source))]
        split = [split_unknown(schema, source) for source in (*files, *said)]
        known = [source.settings for source, _ in split]
        of_all = [_placed(job, key, common[key]) for key in job.inherits if key in common]
        values = plain(merge([to_dict(schema()), *of_all]))
        if files:  # their ${key} are keys of theirs
            in_files = [each["settings"] for each in known[: len(files)]]
            values["settings"] = plain(merge([values["settings"], *in_files]), resolve=True)
        documents += [{"stages": {name: each}} for each in (values, *known[len(files) :])]
        problems += _prefixed(name, [problem for _, unknown in split for problem in unknown])
        schemas[name] = schema, [source for source, _ in split]
    merged = plain(merge(documents), resolve=True)
    keys: dict[str, Any] = {}
    for name, (schema, parts) in schemas.items():
        keys[name], wrong = validate(schema, merged["stages"][name], parts)
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
    for key, kind in references(job.keys).items():
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
        for key, kind in references(stage.job.keys).items()
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
