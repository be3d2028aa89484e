"""What can be said of a stage in a pipeline file: a dataclass for each job, and which of its keys name other stages."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from raptor.config.limits import Limit, at_least, between, each, limits, optional
from raptor.evaluation.suites import SUITES
from raptor.export import FORMATS
from raptor.training.direct.config import TRAINING_SEEDS

QUADROTORS, TEACHERS, POLICY, EVALUATION, REPORT = "quadrotors", "teachers", "policy", "evaluation", "report"
"""Kinds of what stages hand on."""

SEEDS = Limit(
    f"between 0 and {TRAINING_SEEDS - 1} (higher ones draw the quadrotors of validation and tests)",
    lambda seed: 0 <= seed < TRAINING_SEEDS,
)
"""What vehicles that are trained on may be drawn with."""


def reference(kind: str) -> Any:
    """A field that names a stage, or several, or what else is of that kind."""
    return dataclasses.field(default=None, metadata={"kind": kind})


def references(keys: type) -> dict[str, str]:
    """The fields of a stage's dataclass that `reference` made, and the kind of each."""
    return {field.name: field.metadata["kind"] for field in dataclasses.fields(keys) if "kind" in field.metadata}


@dataclasses.dataclass(frozen=True)
@limits(num=at_least(1), seed=SEEDS)
class Sample:
    """Keys of a stage that draws quadrotors; its `settings` are the ranges of the distribution."""

    num: int = 1000  # how many
    distribution: Literal["published", "paper"] = "published"  # what RAPTOR's code draws, or what its text says
    seed: int = 0  # of what is drawn


@dataclasses.dataclass(frozen=True)
@limits(generate=optional(at_least(1)), num_teachers=optional(at_least(1)))
class PreTrain:
    """Keys of a stage that trains teachers; its `settings` are those of `raptor pre-train`."""

    quadrotors: str | None = reference(QUADROTORS)  # the vehicles: a stage, or a folder
    generate: int | None = None  # draw so many instead
    num_teachers: int | None = None  # only for the first so many
    config: str | None = None  # a YAML file with settings, or a preset of the job


@dataclasses.dataclass(frozen=True)
class PostTrain:
    """Keys of a stage that distils a student; its `settings` are those of `raptor post-train`."""

    teachers: str | tuple[str, ...] | None = reference(TEACHERS)  # a stage or a folder, or several
    config: str | None = None  # a YAML file with settings, or a preset of the job


@dataclasses.dataclass(frozen=True)
class TrainDirect:
    """Keys of a stage that trains through the simulator alone; its `settings` are those of `raptor train-direct`."""

    initial_policy: str | None = reference(POLICY)  # what to begin with; null: what the settings say
    config: str | None = None  # a YAML file with settings, or a preset of the job


@dataclasses.dataclass(frozen=True)
@limits(
    suites=each(Limit(f"one of {', '.join(SUITES)}", lambda name: name in SUITES)),
    num_quadrotors=at_least(1),
    episodes=at_least(1),
    seed=between(0, 999_999),
)
class Evaluate:
    """Keys of a stage that measures policies."""

    policies: tuple[str, ...] | None = reference(POLICY)  # the first is what others are held against
    suites: tuple[str, ...] = SUITES  # what they are put to
    num_quadrotors: int = 2048  # vehicles drawn for each suite
    episodes: int = 1  # of each vehicle
    seed: int = 0  # of the vehicles and their episodes; not that of the pipeline, so that figures can be compared
    device: str = "cpu"  # cpu, cuda, or cuda:1 and so on
    compile: bool = True  # false runs uncompiled


@dataclasses.dataclass(frozen=True)
@limits(format=Limit(f"one of {', '.join(FORMATS)}", lambda name: name in FORMATS))
class Export:
    """Keys of a stage that exports a policy."""

    policy: str | None = reference(POLICY)  # which one
    format: str = "onnx"  # what to write


@dataclasses.dataclass(frozen=True)
@limits(seed=between(0, 999_999))
class Report:
    """Keys of a stage that writes a page about an evaluation."""

    evaluation: str | None = reference(EVALUATION)  # a stage, or the file of one
    policies: tuple[str, ...] | None = reference(POLICY)  # flown for the pictures; null: those evaluated
    training: str | None = reference(POLICY)  # whose curve and settings are shown; null: the last one trained here
    title: str | None = None  # of the page; null: after the output folder
    seed: int = 0  # of the flights in the pictures
    compile: bool = True  # false flies uncompiled


def named(keys: Any, key: str) -> tuple[str, ...]:
    """What a reference names, as a tuple."""
    value = getattr(keys, key)
    return () if value is None else (value,) if isinstance(value, str) else tuple(value)


def column_names(policies: Sequence[str], stages: Sequence[str]) -> dict[str, str]:
    """Short names that tell policies apart, by what names them: that of the stage, or of the file."""
    short = {policy: policy if policy in stages else Path(policy).name or policy for policy in policies}
    taken = list(short.values())
    return {policy: name if policy in stages or taken.count(name) == 1 else policy for policy, name in short.items()}
