"""The jobs that a stage can be: each calls the function that its command calls, too."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from raptor.config.settings import Limit, at_least, between, each, one_of, optional, setting
from raptor.evaluation import Evaluation, evaluate
from raptor.evaluation.report import write_report
from raptor.evaluation.suites import SUITES
from raptor.export import FORMATS, export_policy
from raptor.formats import load_policy
from raptor.lab.pipeline.job import (
    EVALUATION,
    POLICY,
    QUADROTORS,
    REPORT,
    TEACHERS,
    Job,
    StageContext,
    StageOutcome,
    reference,
)
from raptor.quadrotor import Distribution, named_distribution, sample_quadrotors
from raptor.quadrotor.population import write_population
from raptor.runs import read_curve
from raptor.runs.folder import read_settings
from raptor.training import TrainDirectConfig, train_direct
from raptor.training.distillation.config import PostTrainConfig
from raptor.training.distillation.job import post_train
from raptor.training.teachers.job import PreTrainConfig, pre_train
from raptor.training.validation import TRAINING_SEEDS

SEEDS = Limit(
    f"between 0 and {TRAINING_SEEDS - 1} (higher ones draw the quadrotors of validation and tests)",
    lambda seed: 0 <= seed < TRAINING_SEEDS,
)
"""Seeds of vehicles to train on."""

_EVERYTHING = ("seed", "device", "compile")
_WHERE = ("settings.device", "settings.compile")
_KEPT = ("settings.checkpoint_interval", "settings.keep_checkpoints")
_CONFIG = setting(None, "a YAML file with settings, or a preset of the job")


@dataclasses.dataclass(frozen=True)
class Sample(Job):
    """Draws quadrotors."""

    NAME, GIVES, INHERITS = "sample", QUADROTORS, ("seed",)

    num: int = setting(1000, "how many", at_least(1))
    distribution: Literal["published", "paper"] = setting(
        "published", "what RAPTOR's code draws, or what its text says"
    )
    seed: int = setting(0, "of what is drawn", SEEDS)
    settings: Distribution = setting(named_distribution("published"), "ranges of the distribution")

    @classmethod
    def default(cls, said: Mapping[str, Any]) -> Sample:
        """The ranges of the distribution that is named."""
        return cls(settings=named_distribution("paper" if said.get("distribution") == "paper" else "published"))

    def run(self, stage: StageContext) -> StageOutcome:
        """Draw and write them."""
        quadrotors = sample_quadrotors(self.num, self.seed, distribution=self.settings)
        write_population(quadrotors, stage.folder, True, self.seed, self.settings, stage.progress)
        return StageOutcome(True, f"{self.num} quadrotors")


@dataclasses.dataclass(frozen=True)
class PreTrain(Job):
    """Trains teachers."""

    NAME, GIVES, NEEDS, INHERITS, TRAINS = "pre-train", TEACHERS, ("quadrotors", "generate"), _EVERYTHING, True
    FREE = ("settings.engine", "settings.memory_gib", "settings.checkpoint_interval_s")
    HELD = _WHERE

    quadrotors: str | None = reference(QUADROTORS, "the vehicles: a stage, or a folder")
    generate: int | None = setting(None, "draw so many instead", optional(at_least(1)))
    num_teachers: int | None = setting(None, "only for the first so many", optional(at_least(1)))
    config: str | None = _CONFIG
    settings: PreTrainConfig = PreTrainConfig()

    def run(self, stage: StageContext) -> StageOutcome:
        """Train them."""
        summary = pre_train(
            stage.folder,
            stage.source("quadrotors"),
            self.settings,
            generate=self.generate,
            num_teachers=self.num_teachers,
            announce=stage.announce,
            **stage.training,
        )
        solved = f"{summary.num_solved} of {summary.num_teachers} teachers solved"
        return StageOutcome(summary.finished, f"{solved}, mean return {summary.mean_return:.1f}")


@dataclasses.dataclass(frozen=True)
class PostTrain(Job):
    """Distils a student."""

    NAME, GIVES, NEEDS, INHERITS, TRAINS = "post-train", POLICY, ("teachers",), _EVERYTHING, True
    FREE = tuple(
        f"settings.{key}" for key in ("checkpoint_interval", "keep_checkpoints", "video_interval", "memory_gib")
    )
    HELD = _WHERE

    teachers: str | tuple[str, ...] | None = reference(TEACHERS, "a stage or a folder, or several")
    config: str | None = _CONFIG
    settings: PostTrainConfig = PostTrainConfig()

    def run(self, stage: StageContext) -> StageOutcome:
        """Distil it."""
        teachers = stage.sources["teachers"]
        summary = post_train(stage.folder, teachers, self.settings, announce=stage.announce, **stage.training)
        best = f", best validation return {summary.best['mean_return']:.1f}" if summary.best else ""
        return StageOutcome(summary.finished, f"{summary.num_steps} epochs of {summary.num_teachers} teachers{best}")


@dataclasses.dataclass(frozen=True)
class TrainDirect(Job):
    """Trains a policy through the simulator alone."""

    NAME, GIVES, INHERITS, TRAINS = "train-direct", POLICY, _EVERYTHING, True
    HELD = (*_WHERE, *_KEPT)

    initial_policy: str | None = reference(POLICY, "what to begin with; null: what the settings say")
    config: str | None = _CONFIG
    settings: TrainDirectConfig = TrainDirectConfig()

    def run(self, stage: StageContext) -> StageOutcome:
        """Train it."""
        config, source = self.settings, stage.source("initial_policy")
        if source is not None:
            place = str(source.resolve() if isinstance(source, Path) else source)
            config = dataclasses.replace(config, initial_policy=place)
        summary = train_direct(stage.folder, config, **stage.training)
        best = f", best validation return {summary.best['mean_return']:.1f}" if summary.best else ""
        return StageOutcome(summary.finished, f"{summary.num_steps} updates{best}")


@dataclasses.dataclass(frozen=True)
class Evaluate(Job):
    """Evaluates policies."""

    NAME, GIVES, NEEDS = "evaluate", EVALUATION, ("policies",)
    INHERITS = FREE = ("device", "compile")

    policies: tuple[str, ...] | None = reference(POLICY, "the first is what the others are compared with")
    suites: tuple[str, ...] = setting(SUITES, "what they are evaluated on", each(one_of(*SUITES)))
    num_quadrotors: int = setting(2048, "vehicles drawn for each suite", at_least(1))
    episodes: int = setting(1, "of each vehicle", at_least(1))
    seed: int = setting(
        0,
        "of the vehicles and their episodes; not that of the pipeline, so that figures can be compared",
        between(0, 999999),
    )
    device: str = setting("cpu", "cpu, cuda, or cuda:1 and so on")
    compile: bool = setting(True, "false runs uncompiled, which is done anyway where compiling would take longer")

    @property
    def product(self) -> str:
        """The figures."""
        return "evaluation.json"

    def run(self, stage: StageContext) -> StageOutcome:
        """Evaluate them."""
        policies, suite = stage.loaded(self.device), self.suites[0]
        how = (self.suites, self.num_quadrotors, self.episodes, self.seed, self.device)
        evaluation = evaluate(policies, *how, stage.progress, None if self.compile else False)
        evaluation.save(stage.folder / self.product)
        returns = {name: suites[suite].get("return") for name, suites in evaluation.policies.items()}
        figures = [f"{name} {estimate.value:.1f}" for name, estimate in returns.items() if estimate is not None]
        return StageOutcome(True, f"return in {suite}: {', '.join(figures)}" if figures else f"{len(returns)} policies")


@dataclasses.dataclass(frozen=True)
class Export(Job):
    """Exports a policy to another format, verified."""

    NAME, GIVES, NEEDS = "export", POLICY, ("policy",)

    policy: str | None = reference(POLICY, "which one")
    format: str = setting("onnx", "what to write", one_of(*FORMATS))

    @property
    def product(self) -> str:
        """The exported policy."""
        return f"policy.{self.format}"

    def run(self, stage: StageContext) -> StageOutcome:
        """Export it."""
        error = export_policy(load_policy(stage.sources["policy"][0]), stage.folder / self.product, self.format)
        return StageOutcome(True, f"{self.product} differs from the policy by at most {error:.1e}")


@dataclasses.dataclass(frozen=True)
class Report(Job):
    """Writes a page about an evaluation."""

    NAME, GIVES, NEEDS = "report", REPORT, ("evaluation",)
    INHERITS = ("compile",)
    FREE = ("device", "compile")

    evaluation: str | None = reference(EVALUATION, "a stage, or the file of one")
    policies: tuple[str, ...] | None = reference(POLICY, "flown for the figures; null: those evaluated")
    training: str | None = reference(POLICY, "whose curve and settings are shown; null: the last one trained here")
    title: str | None = setting(None, "of the page; null: after the output folder")
    seed: int = setting(0, "of the flights in the figures", between(0, 999999))
    compile: bool = setting(True, "false runs uncompiled")

    @property
    def product(self) -> str:
        """The page."""
        return "report.html"

    def completed(self, jobs: Mapping[str, Job]) -> Report:
        """Show what was evaluated, and how the last policy of it was trained, where nothing is said of that."""
        evaluated, policies = jobs.get(self.evaluation or ""), self.policies
        if policies is None:
            policies = evaluated.named("policies") if evaluated else ()
        trained = [policy for policy in policies if policy in jobs and jobs[policy].TRAINS]
        training = self.training or (trained[-1] if trained else None)
        return dataclasses.replace(self, policies=policies, training=training)

    def run(self, stage: StageContext) -> StageOutcome:
        """Write it."""
        trained = stage.source("training")
        evaluation = Evaluation.load(stage.sources["evaluation"][0])
        write_report(
            stage.folder / self.product,
            title=self.title or f"A policy for any quadrotor: {stage.folder.resolve().parent.name}",
            settings={} if trained is None else read_settings(trained),
            curve={} if trained is None else read_curve(trained),
            evaluation=evaluation,
            policies=stage.loaded(evaluation.settings.get("device", "cpu")),
            seed=self.seed,
            progress=stage.progress,
            compile=None if self.compile else False,
        )
        return StageOutcome(True, str(stage.folder / self.product))


JOBS: Mapping[str, type[Job]] = MappingProxyType(
    {job.NAME: job for job in (Sample, PreTrain, PostTrain, TrainDirect, Evaluate, Export, Report)}
)
"""By name."""
