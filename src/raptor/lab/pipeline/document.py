"""From a pipeline file to stages in the order in which they run; whatever is wrong with it is reported at once."""

from __future__ import annotations

import dataclasses
import functools
import graphlib
import os
import re
from collections.abc import Container, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from raptor.config import parse_overrides, to_dict
from raptor.config.files import Source, overlay, read_files, resolve
from raptor.config.load import Check, nearest
from raptor.config.settings import Settings, between, optional, setting, show
from raptor.core.errors import UserError
from raptor.formats.policy_files import POLICY_NAMES
from raptor.lab.pipeline.jobs import JOBS, POLICY, QUADROTORS, Job
from raptor.quadrotor import PLATFORMS

Jobs = Mapping[str, type[Job]]
NAMES = {POLICY: POLICY_NAMES, QUADROTORS: PLATFORMS}  # what a reference can name beside stages and files, by its kind


@dataclasses.dataclass(frozen=True)
class Everywhere(Settings):
    """What a pipeline says for all stages that do not say their own."""

    output: str | None = None
    seed: int | None = setting(None, limit=optional(between(0, 999999)))
    device: str | None = None
    compile: bool | None = None


COMMON = tuple(field.name for field in dataclasses.fields(Everywhere))


class Input(NamedTuple):
    """Something that a stage reads."""

    key: str  # of the stage, which names it
    kind: str
    name: str  # of a stage, or of what is there already
    is_stage: bool


class Stage(NamedTuple):
    """A job with its keys, and what it reads."""

    name: str
    job: Job
    inputs: tuple[Input, ...]


@dataclasses.dataclass(frozen=True)
class Pipeline:
    """Stages in an order in which each comes after all that it reads."""

    source: str  # the file, or the name of the preset
    output: str | None
    stages: tuple[Stage, ...]
    document: Mapping[str, Any]  # what the files and the command line say, merged

    def __getitem__(self, name: str) -> Stage:
        """The stage of that name; an error where there is none."""
        if name not in self.names:
            raise UserError(f"there is no stage {name!r}: {nearest(name, self.names, 'stages')}")
        return self.stages[self.names.index(name)]

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the stages, in the order in which they run."""
        return tuple(stage.name for stage in self.stages)

    def needed_for(self, name: str) -> frozenset[str]:
        """A stage and all that it reads from, directly and indirectly."""
        inner = (self.needed_for(given.name) for given in self[name].inputs if given.is_stage)
        return frozenset({name}).union(*inner)


def load_pipeline(file: str | Path, overrides: Sequence[str] = (), jobs: Jobs = JOBS) -> Pipeline:
    """Read a pipeline: a YAML file or the name of a packaged preset, whose key `base` names one that it inherits from.

    Overrides are `STAGE.KEY=VALUE`, or `KEY=VALUE` for what concerns all stages; `jobs` are what a stage can be.

    Raises:
        UserError: names every unknown job, key, stage and file, every wrong type and impossible value, where it stands
            and what is allowed; or the circle in which stages need each other.
    """
    files, now = [_tidy(each) for each in read_files(file, "run")], parse_overrides(overrides)
    names = {name for each in (*files, *map(_tidy, now)) for name in each.settings["stages"]}
    now = [_tidy(Source(each.name, {"stages": each.settings}) if names & {*each.settings} else each) for each in now]
    check = Check([*files, *now])
    given: dict[str, Any] = functools.reduce(overlay, (source.settings for source in check.sources), {})
    said = given.pop("stages")
    more = ["stages", *(said if any({*each.settings} - {*COMMON, "stages"} for each in now) else ())]
    everywhere = check.group(Everywhere, resolve(given), more=more)
    check.finish()
    listed = ", ".join(jobs)
    if not said:
        raise UserError(f"{file} has no stages: name at least one under `stages`, with one of the jobs {listed}")
    reserved = [*POLICY_NAMES, "stages", "base", *COMMON]
    for name in said:
        job = said[name].get("job")
        if name in reserved or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", name):
            advice = f"use letters, digits, - and _, and none of {', '.join(reserved)}"
            check.wrong(("stages", name), "cannot be the name of a stage", advice)
        elif job is None and name not in jobs:
            check.wrong(("stages", name, "job"), "is missing", f"give one of {listed}")
        elif job is not None and job not in jobs:
            check.wrong(("stages", name, "job"), f"must be one of {listed}, got {show(job)}")
    check.finish()
    chosen = {name: jobs[said[name].get("job") or name] for name in said}
    to_each = [  # what the command line says for all stages counts over what files say of one
        Source(each.name, {"stages": {name: _placed(job, key, value)}})
        for each in now
        for key, value in each.settings.items()
        for name, job in chosen.items()
        if key in job.INHERITS and value is not None
    ]
    sources = [*files, *to_each, *now]
    document = given | {"stages": dict[str, Any].fromkeys(chosen, {})}
    for source in sources:
        for name, keys in source.settings["stages"].items():
            document["stages"][name] = overlay(document["stages"][name], keys, chosen[name])
    checked = _checked(chosen, document, everywhere, sources)
    completed = {name: job.completed(checked) for name, job in checked.items()}
    stages = {name: Stage(name, job, _inputs(job, checked)) for name, job in completed.items()}
    read = {name: [given.name for given in stage.inputs if given.is_stage] for name, stage in stages.items()}
    try:
        in_order = tuple(stages[name] for name in graphlib.TopologicalSorter(read).static_order())
    except graphlib.CycleError as error:
        circle = " -> ".join(reversed(error.args[1]))
        raise UserError(
            f"the stages need each other in a circle: {circle}; let one of them read something else"
        ) from None
    return Pipeline(str(file), everywhere.output, in_order, document)


def _tidy(source: Source) -> Source:
    """What one place says, with a group for each stage that it names."""
    stages = source.settings.get("stages") or {}
    if not isinstance(stages, Mapping):
        raise UserError(f"stages must be a group with a key for each stage, got {show(stages)} ({source.name})")
    for name, said in stages.items():
        if not isinstance(said, Mapping | None):
            raise UserError(f"stages.{name} must be a group of settings, got {show(said)} ({source.name})")
    return Source(source.name, {**source.settings, "stages": {name: said or {} for name, said in stages.items()}})


def _placed(job: type[Job], key: str, value: Any) -> dict[str, Any]:
    """Something that is said for all stages, where a stage of that job says it."""
    return {key: value} if hasattr(job, key) else {"settings": {key: value}}


def _checked(
    jobs: Jobs, document: Mapping[str, Any], everywhere: Everywhere, sources: Sequence[Source]
) -> dict[str, Job]:
    """The jobs with their keys: said of the stage, over its files, over said of all stages, over defaults."""
    stages: dict[str, Any] = {}
    all_files: list[Source] = []
    for name, job in jobs.items():
        said = document["stages"][name]
        default = job.default(said)
        keys = to_dict(default)
        for key in job.INHERITS:
            if (value := getattr(everywhere, key)) is not None:
                keys = overlay(keys, _placed(job, key, value))
        if hasattr(default, "config") and isinstance(said.get("config"), str):
            try:
                files = read_files(said["config"], getattr(default.settings, "JOB", "train-direct"))  # type: ignore[attr-defined]
            except UserError as error:
                raise UserError(f"stages.{name}.config: {error}") from error
            for file in files:
                keys = overlay(keys, {"settings": file.settings}, job)
                all_files.append(Source(file.name, {"stages": {name: {"settings": file.settings}}}))
            keys["settings"] = resolve(keys["settings"])  # their ${key} are keys of theirs
        stages[name] = keys
    merged = resolve(overlay(to_dict(everywhere) | {"stages": stages}, document))["stages"]
    for keys in merged.values():
        keys.pop("job", None)
    check = Check([*all_files, *sources])
    checked = {name: check.group(job, merged[name], ("stages", name), ["job"]) for name, job in jobs.items()}
    check.finish()
    for name, keyed in checked.items():
        _check_inputs(name, keyed, jobs, check)
    check.finish()
    return checked


def _check_inputs(name: str, job: Job, jobs: Jobs, check: Check) -> None:
    """Note what a stage needs and was not given, and what it names that is not there or of another kind."""
    given = [key for key in job.NEEDS if getattr(job, key) not in (None, ())]
    if job.NEEDS and len(given) != 1:
        got = f", got {' and '.join(given)}" if given else ""
        check.wrong(("stages", name), f"needs {'either ' * (len(job.NEEDS) > 1)}{' or '.join(job.NEEDS)}{got}")
    for key, kind, value, is_stage in _inputs(job, jobs):
        if is_stage and kind != jobs[value].GIVES:
            fitting = [other for other, theirs in jobs.items() if kind == theirs.GIVES] or ["none here"]
            problem = f"names the stage {value!r}, which gives {jobs[value].GIVES} and not {kind}"
            check.wrong(("stages", name, key), problem, f"stages that do are {', '.join(fitting)}")
        elif not is_stage and value not in NAMES.get(kind, ()) and not os.path.exists(value):
            names = f" nor one of {', '.join(NAMES[kind])}" if kind in NAMES else ""
            problem = f"names {value!r}, which is neither a stage nor a file{names}"
            check.wrong(("stages", name, key), problem, nearest(value, list(jobs), "stages"))


def _inputs(job: Job, stages: Container[str]) -> tuple[Input, ...]:
    references = job.references()
    return tuple(Input(key, kind, name, name in stages) for key, kind in references.items() for name in job.named(key))
