"""What can be said of a stage in a pipeline file: a dataclass for each job, and which of its keys name other stages."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from raptor.config.settings import Limit, Settings, at_least, between, each, one_of, optional, setting
from raptor.evaluation.suites import SUITES
from raptor.export import FORMATS
from raptor.training.validation import TRAINING_SEEDS

QUADROTORS, TEACHERS, POLICY, EVALUATION, REPORT = "quadrotors", "teachers", "policy", "evaluation", "report"
"""Kinds of what stages hand on."""

SEEDS = Limit(
    f"between 0 and {TRAINING_SEEDS - 1} (higher ones draw the quadrotors of validation and tests)",
    lambda seed: 0 <= seed < TRAINING_SEEDS,
)
"""What vehicles that are trained on may be drawn with."""


def reference(kind: str, meaning: str = "") -> Any:
    """A field that names a stage, or several, or what else is of that kind."""
    return setting(None, meaning, kind=kind)


def references(keys: type) -> dict[str, str]:
    """The fields of a stage's dataclass that `reference` made, and the kind of each."""
    return {field.name: field.metadata["kind"] for field in dataclasses.fields(keys) if "kind" in field.metadata}


@dataclasses.dataclass(frozen=True)
class Sample(Settings):
    """Keys of a stage that draws quadrotors; its `settings` are the ranges of the distribution."""

    num: int = setting(1000, "how many", at_least(1))
    distribution: Literal["published", "paper"] = setting(
        "published", "what RAPTOR's code draws, or what its text says"
    )
    seed: int = setting(0, "of what is drawn", SEEDS)


@dataclasses.dataclass(frozen=True)
class PreTrain(Settings):
    """Keys of a stage that trains teachers; its `settings` are those of `raptor pre-train`."""

    quadrotors: str | None = reference(QUADROTORS, "the vehicles: a stage, or a folder")
    generate: int | None = setting(None, "draw so many instead", optional(at_least(1)))
    num_teachers: int | None = setting(None, "only for the first so many", optional(at_least(1)))
    config: str | None = setting(None, "a YAML file with settings, or a preset of the job")


@dataclasses.dataclass(frozen=True)
class PostTrain(Settings):
    """Keys of a stage that distils a student; its `settings` are those of `raptor post-train`."""

    teachers: str | tuple[str, ...] | None = reference(TEACHERS, "a stage or a folder, or several")
    config: str | None = setting(None, "a YAML file with settings, or a preset of the job")


@dataclasses.dataclass(frozen=True)
class TrainDirect(Settings):
    """Keys of a stage that trains through the simulator alone; its `settings` are those of `raptor train-direct`."""

    initial_policy: str | None = reference(POLICY, "what to begin with; null: what the settings say")
    config: str | None = setting(None, "a YAML file with settings, or a preset of the job")


@dataclasses.dataclass(frozen=True)
class Evaluate(Settings):
    """Keys of a stage that measures policies."""

    policies: tuple[str, ...] | None = reference(POLICY, "the first is what others are held against")
    suites: tuple[str, ...] = setting(SUITES, "what they are put to", each(one_of(*SUITES)))
    num_quadrotors: int = setting(2048, "vehicles drawn for each suite", at_least(1))
    episodes: int = setting(1, "of each vehicle", at_least(1))
    seed: int = setting(
        0,
        "of the vehicles and their episodes; not that of the pipeline, so that figures can be compared",
        between(0, 999999),
    )
    device: str = setting("cpu", "cpu, cuda, or cuda:1 and so on")
    compile: bool = setting(True, "false runs uncompiled")


@dataclasses.dataclass(frozen=True)
class Export(Settings):
    """Keys of a stage that exports a policy."""

    policy: str | None = reference(POLICY, "which one")
    format: str = setting("onnx", "what to write", one_of(*FORMATS))


@dataclasses.dataclass(frozen=True)
class Report(Settings):
    """Keys of a stage that writes a page about an evaluation."""

    evaluation: str | None = reference(EVALUATION, "a stage, or the file of one")
    policies: tuple[str, ...] | None = reference(POLICY, "flown for the pictures; null: those evaluated")
    training: str | None = reference(POLICY, "whose curve and settings are shown; null: the last one trained here")
    title: str | None = setting(None, "of the page; null: after the output folder")
    seed: int = setting(0, "of the flights in the pictures", between(0, 999999))
    compile: bool = setting(True, "false flies uncompiled")


def named(keys: Any, key: str) -> tuple[str, ...]:
    """What a reference names, as a tuple."""
    value = getattr(keys, key)
    return () if value is None else (value,) if isinstance(value, str) else tuple(value)


def column_names(policies: Sequence[str], stages: Sequence[str]) -> dict[str, str]:
    """Short names that tell policies apart, by what names them: that of the stage, or of the file."""
    short = {policy: policy if policy in stages else Path(policy).name or policy for policy in policies}
    taken = list(short.values())
    return {policy: name if policy in stages or taken.count(name) == 1 else policy for policy, name in short.items()}
