"""The jobs that a stage can be: each calls the function that its command calls, too."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, Literal, NamedTuple

from raptor.config import load_config
from raptor.config.settings import Limit, Settings, at_least, between, each, one_of, optional, setting
from raptor.evaluation import ALL_SUITES, GIVEN_SUITES, SUITES, Evaluation, evaluate
from raptor.evaluation.report import write_report
from raptor.evaluation.suites import REFERENCE, check_suite
from raptor.export import FORMATS, export_policy
from raptor.formats import load_policy
from raptor.quadrotor import Distribution, load_quadrotors, named_distribution, sample_quadrotors
from raptor.quadrotor.population import write_population
from raptor.runs import read_curve
from raptor.runs.callbacks import Callback
from raptor.runs.folder import read_settings
from raptor.runs.job import RunSummary
from raptor.tasks import Trajectory
from raptor.training import TrainDirectConfig, train_direct
from raptor.training.direct.job import VEHICLE
from raptor.training.distillation.config import PostTrainConfig
from raptor.training.distillation.job import post_train
from raptor.training.teachers.job import PreTrainConfig, pre_train
from raptor.training.validation import TRAINING_SEEDS

QUADROTORS, TEACHERS, POLICY, EVALUATION, REPORT = "quadrotors", "teachers", "a policy", "an evaluation", "a report"
"""Kinds of what stages hand on."""

VEHICLES = "a stage, a file, a folder or a platform, or several of these"

SEEDS = Limit(  # of vehicles to train on
    f"between 0 and {TRAINING_SEEDS - 1} (higher ones draw the quadrotors of validation and tests)",
    lambda seed: 0 <= seed < TRAINING_SEEDS,
)


@dataclasses.dataclass(frozen=True)
class StageContext:
    """Where a job finds what its stage reads, and how it goes about its work."""

    folder: Path  # of the stage
    sources: Mapping[str, Mapping[str, str | Path]]  # by key and short name: where what it names is
    overwrite: bool  # replace what an earlier run left; else go on with it
    progress: Callable[..., None]  # called as the job calls its own
    announce: Callable[[str], None]
    callbacks: Sequence[Callback] = ()  # of every training

    def source(self, key: str) -> str | Path | None:
        """Where the only thing is that a key names."""
        return next(iter(self.sources.get(key, {}).values()), None)

    def every(self, key: str) -> tuple[str, ...]:
        """Where all the things are that a key names; what is there as an absolute path."""
        found = map(Path, self.sources.get(key, {}).values())
        return tuple(str(path.resolve() if path.exists() else path) for path in found)

    @property
    def training(self) -> dict[str, Any]:
        """Arguments of every training."""
        how = {"resume": not self.overwrite, "overwrite": self.overwrite}
        return {**how, "progress": self.progress, "callbacks": self.callbacks}

    def policies(self, device: str) -> dict[str, Any]:
        """Those that the key `policies` names, by short name."""
        return {name: load_policy(source, device) for name, source in self.sources.get("policies", {}).items()}


class StageOutcome(NamedTuple):
    """What came of a stage."""

    finished: bool  # False where it was asked to stop
    sentence: str


@dataclasses.dataclass(frozen=True)
class Job(Settings, abc.ABC):
    """Base of all jobs; the fields of one are the keys of its stage in a pipeline file.

    A field `settings` holds those of the training, and a field `config` names a file or a preset with some of these.
    """

    NAME: ClassVar[str]  # that of the command that does the same
    GIVES: ClassVar[str]  # kind of what it makes
    PRODUCT: ClassVar[str] = ""  # the file that others read, with {keys}; empty where they read the folder
    NEEDS: ClassVar[tuple[str, ...]] = ()  # one of these keys must be given
    INHERITS: ClassVar[tuple[str, ...]] = ()  # what the pipeline says for all
    TRAINS: ClassVar[bool] = False  # is expensive, and goes on where it was interrupted
    TASKS: ClassVar[tuple[str, ...]] = ()  # dotted keys of the tasks that are flown
    FREE: ClassVar[tuple[str, ...]] = ()  # dotted keys that never make a difference
    HELD: ClassVar[tuple[str, ...]] = ()  # that must stay until it has finished, and make no difference then

    @property
    def product(self) -> str:
        """`PRODUCT` with the keys put in."""
        return self.PRODUCT.format(**vars(self))

    @abc.abstractmethod
    def run(self, stage: StageContext) -> StageOutcome:
        """Do it."""

    @classmethod
    def default(cls, said: Mapping[str, Any]) -> Job:
        """The keys where nothing else is said than this."""
        return cls()

    def completed(self, jobs: Mapping[str, Job]) -> Job:
        """The keys with what follows from other stages where nothing is said of it."""
        return self

    @classmethod
    def references(cls) -> dict[str, str]:
        """The keys that name stages, and the kind of each."""
        return {field.name: field.metadata["kind"] for field in dataclasses.fields(cls) if "kind" in field.metadata}

    def named(self, key: str) -> tuple[str, ...]:
        """What a reference names."""
        value = getattr(self, key)
        return () if value is None else (value,) if isinstance(value, str) else tuple(value)


def reference(kind: str, meaning: str = "") -> Any:
    """A field that names a stage, or several, or what else is of that kind."""
    return setting(None, meaning, kind=kind)


_EVERYTHING = ("seed", "device", "compile")
_WHERE = ("settings.device", "settings.compile")
_KEPT = ("settings.checkpoint_interval", "settings.keep_checkpoints")
_CONFIG = setting(None, "a YAML file with settings, or a preset of the job")


@dataclasses.dataclass(frozen=True)
class Sample(Job):
    """Draws quadrotors."""

    NAME, GIVES, INHERITS = "sample", QUADROTORS, ("seed",)

    num: int = setting(1000, "how many", at_least(1))
    distribution: Literal["published", "paper"] = setting("published", "of RAPTOR's code, or of its text")
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
    HELD, TASKS = _WHERE, ("settings.task",)

    quadrotors: str | tuple[str, ...] | None = reference(QUADROTORS, VEHICLES)
    generate: int | None = setting(None, "draw so many instead", optional(at_least(1)))
    num_teachers: int | None = setting(None, "only for the first so many", optional(at_least(1)))
    config: str | None = _CONFIG
    settings: PreTrainConfig = PreTrainConfig()

    def run(self, stage: StageContext) -> StageOutcome:
        """Train them."""
        how: dict[str, Any] = {"generate": self.generate, "num_teachers": self.num_teachers, "announce": stage.announce}
        quadrotors = stage.every("quadrotors") or None
        summary = pre_train(stage.folder, quadrotors, self.settings, **how, **stage.training)
        solved = f"{summary.num_solved} of {summary.num_teachers} teachers solved"
        return StageOutcome(summary.finished, f"{solved}, mean return {summary.mean_return:.1f}")


@dataclasses.dataclass(frozen=True)
class PostTrain(Job):
    """Distils a student."""

    NAME, GIVES, NEEDS, INHERITS, TRAINS = "post-train", POLICY, ("teachers",), _EVERYTHING, True
    FREE = (*_KEPT, "settings.video_interval", "settings.memory_gib", "settings.processes")
    HELD, TASKS = _WHERE, ("settings.task", "settings.fine_tune.task")

    teachers: str | tuple[str, ...] | None = reference(TEACHERS, "a stage or a folder, or several")
    config: str | None = _CONFIG
    settings: PostTrainConfig = PostTrainConfig()

    def run(self, stage: StageContext) -> StageOutcome:
        """Distil it."""
        teachers = list(stage.sources["teachers"].values())
        summary = post_train(stage.folder, teachers, self.settings, announce=stage.announce, **stage.training)
        return _trained(summary, f"{summary.num_steps} epochs of {summary.num_teachers} teachers")


@dataclasses.dataclass(frozen=True)
class TrainDirect(Job):
    """Trains a policy through the simulator alone."""

    NAME, GIVES, INHERITS, TRAINS = "train-direct", POLICY, _EVERYTHING, True
    FREE, HELD, TASKS = ("settings.processes",), (*_WHERE, *_KEPT), ("settings.task",)

    quadrotors: str | tuple[str, ...] | None = reference(QUADROTORS, f"what to train around: {VEHICLES}")
    initial_policy: str | None = reference(POLICY, "what to begin with; null: what the settings say")
    config: str | None = _CONFIG
    settings: TrainDirectConfig = TrainDirectConfig()

    @classmethod
    def default(cls, said: Mapping[str, Any]) -> TrainDirect:
        """With vehicles of one's own, the preset for these, unless a `config` is named."""
        return cls(settings=load_config(TrainDirectConfig, VEHICLE)) if said.get("quadrotors") else cls()

    def run(self, stage: StageContext) -> StageOutcome:
        """Train it."""
        source = stage.source("initial_policy")
        place = str(source.resolve()) if isinstance(source, Path) else source or self.settings.initial_policy
        quadrotors = stage.every("quadrotors") or self.settings.quadrotors
        config = dataclasses.replace(self.settings, initial_policy=place, quadrotors=quadrotors)
        summary = train_direct(stage.folder, config, **stage.training)
        return _trained(summary, f"{summary.num_steps} updates")


def _trained(summary: RunSummary, what: str) -> StageOutcome:
    best = f", best validation return {summary.best['mean_return']:.1f}" if summary.best else ""
    return StageOutcome(summary.finished, f"{what}{best}")


@dataclasses.dataclass(frozen=True)
class Evaluate(Job):
    """Evaluates policies."""

    NAME, GIVES, PRODUCT, NEEDS = "evaluate", EVALUATION, "evaluation.json", ("policies",)
    INHERITS = FREE = ("device", "compile")

    policies: tuple[str, ...] | None = reference(POLICY, "the first is what the others are compared with")
    quadrotors: str | tuple[str, ...] | None = reference(QUADROTORS, "flown in place of named and sampled ones")
    suites: tuple[str, ...] = setting(SUITES, "what they are evaluated on", each(one_of(*ALL_SUITES)))
    trajectory: str | None = setting(None, "name or CSV file; followed in one more suite, `reference`")
    num_quadrotors: int = setting(2048, "vehicles drawn for each suite", at_least(1))
    episodes: int = setting(1, "of each vehicle", at_least(1))
    seed: int = setting(0, "of vehicles and episodes; not the pipeline's: figures can be compared", between(0, 999999))
    device: str = setting("cpu", "cpu, cuda, or cuda:1 and so on")
    compile: bool = setting(True, "false runs uncompiled, which is done anyway where compiling would take longer")

    def __post_init__(self) -> None:
        """Refuse suites that do not go with what is flown."""
        super().__post_init__()
        for suite in self.suites:
            check_suite(suite, bool(self.quadrotors))
        object.__setattr__(self, "trajectory", Trajectory(self.trajectory).source)

    @classmethod
    def default(cls, said: Mapping[str, Any]) -> Evaluate:
        """All suites, or those of given vehicles."""
        given = said.get("quadrotors")
        return cls(quadrotors=given, suites=GIVEN_SUITES if given else SUITES)

    def run(self, stage: StageContext) -> StageOutcome:
        """Evaluate them."""
        policies, suite = stage.policies(self.device), self.suites[0]
        suites = (*self.suites, *([REFERENCE] if self.trajectory else []))
        how = (suites, self.num_quadrotors, self.episodes, self.seed, self.device, stage.progress)
        given = stage.every("quadrotors")
        what = (load_quadrotors(given) if given else None, self.trajectory)
        evaluation = evaluate(policies, *how, None if self.compile else False, *what)
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
        """See `Job.product`."""
        return f"policy{FORMATS[self.format].suffix}"

    def run(self, stage: StageContext) -> StageOutcome:
        """Export it."""
        (policy,) = stage.sources["policy"].values()
        verified = export_policy(load_policy(policy), stage.folder / self.product, self.format)
        return StageOutcome(True, f"{self.product} {verified}")


@dataclasses.dataclass(frozen=True)
class Report(Job):
    """Writes a page about an evaluation."""

    NAME, GIVES, PRODUCT, NEEDS, INHERITS = "report", REPORT, "report.html", ("evaluation",), ("compile",)
    FREE = ("device", "compile")

    evaluation: str | None = reference(EVALUATION, "a stage, or the file of one")
    policies: tuple[str, ...] | None = reference(POLICY, "flown for the figures; null: those evaluated")
    training: str | None = reference(POLICY, "whose curve and settings are shown; null: the last one trained here")
    title: str | None = setting(None, "of the page; null: after the output folder")
    seed: int = setting(0, "of the flights in the figures", between(0, 999999))
    compile: bool = setting(True, "false runs uncompiled")

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
        trained, path = stage.source("training"), stage.folder / self.product
        evaluation = Evaluation.load(*stage.sources["evaluation"].values())
        write_report(
            path,
            title=self.title or f"A policy for any quadrotor: {stage.folder.resolve().parent.name}",
            settings={} if trained is None else read_settings(trained),
            curve={} if trained is None else read_curve(trained),
            evaluation=evaluation,
            policies=stage.policies(evaluation.settings.get("device", "cpu")),
            seed=self.seed,
            progress=stage.progress,
            compile=None if self.compile else False,
        )
        return StageOutcome(True, str(path))


JOBS: Mapping[str, type[Job]] = MappingProxyType(
    {job.NAME: job for job in (Sample, PreTrain, PostTrain, TrainDirect, Evaluate, Export, Report)}
)
"""By name."""
