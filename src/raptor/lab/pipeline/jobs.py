"""The jobs that a stage can be: each is what a command of its own does, too."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from raptor.lab.pipeline import stages, work
from raptor.quadrotor import named_distribution
from raptor.training import TrainDirectConfig
from raptor.training.distillation.config import PostTrainConfig
from raptor.training.teachers.job import PreTrainConfig


@dataclasses.dataclass(frozen=True)
class Job:
    """A kind of stage."""

    name: str
    gives: str  # kind of what it makes
    keys: type
    run: Callable[[work.Work], work.Outcome]
    product: Callable[[Any], str] = lambda keys: ""  # what other stages read, in the stage's folder; or the folder
    settings: Callable[[Mapping[str, Any]], Any] | None = None  # the default ones, given the keys of the stage
    needs: tuple[tuple[str, ...], ...] = ()  # of each, one key must be given
    inherits: tuple[str, ...] = ()  # what the pipeline says for all
    trains: bool = False  # is expensive, and goes on where it was interrupted
    free: frozenset[str] = frozenset()  # settings that never make a difference
    held: frozenset[str] = frozenset()  # settings that must stay until it has finished, and make no difference then
    complete: Callable[[Any, Mapping[str, Any]], Any] = lambda keys, stages: keys  # fills in what other stages say


def _ranges(given: Mapping[str, Any]) -> Any:
    return named_distribution("paper" if given.get("distribution") == "paper" else "published")


def _complete_report(keys: stages.Report, others: Mapping[str, Any]) -> stages.Report:
    """Fly what was evaluated, and show how the last policy of it was trained, where nothing is said of that."""
    evaluation = others.get(keys.evaluation or "")
    policies = keys.policies
    if policies is None:
        policies = () if evaluation is None else evaluation.keys.policies
    trained = [policy for policy in policies if policy in others and others[policy].job.trains]
    return dataclasses.replace(keys, policies=policies, training=keys.training or (trained[-1] if trained else None))


def _settings(*names: str) -> frozenset[str]:
    return frozenset(f"settings.{name}" for name in names)


_EVERYWHERE = ("seed", "device", "compile")
_WHERE = frozenset({"device", "compile"})
_ALL = (
    Job("sample", stages.QUADROTORS, stages.Sample, work.run_sample, settings=_ranges, inherits=("seed",)),
    Job(
        "pre-train",
        stages.TEACHERS,
        stages.PreTrain,
        work.run_pre_train,
        settings=lambda given: PreTrainConfig(),
        needs=(("quadrotors", "generate"),),
        inherits=_EVERYWHERE,
        trains=True,
        free=_settings("engine", "memory_gib", "checkpoint_interval_s"),
        held=_settings("device", "compile"),
    ),
    Job(
        "post-train",
        stages.POLICY,
        stages.PostTrain,
        work.run_post_train,
        settings=lambda given: PostTrainConfig(),
        needs=(("teachers",),),
        inherits=_EVERYWHERE,
        trains=True,
        free=_settings("checkpoint_interval", "keep_checkpoints", "video_interval", "memory_gib"),
        held=_settings("device", "compile"),
    ),
    Job(
        "train-direct",
        stages.POLICY,
        stages.TrainDirect,
        work.run_train_direct,
        settings=lambda given: TrainDirectConfig(),
        inherits=_EVERYWHERE,
        trains=True,
        held=_settings("device", "compile", "checkpoint_interval", "keep_checkpoints"),
    ),
    Job(
        "evaluate",
        stages.EVALUATION,
        stages.Evaluate,
        work.run_evaluate,
        product=lambda keys: work.EVALUATION_FILE,
        needs=(("policies",),),
        inherits=("device", "compile"),
        free=_WHERE,
    ),
    Job("export", stages.POLICY, stages.Export, work.run_export, product=work.exported_file, needs=(("policy",),)),
    Job(
        "report",
        stages.REPORT,
        stages.Report,
        work.run_report,
        product=lambda keys: work.REPORT_FILE,
        needs=(("evaluation",),),
        inherits=("compile",),
        free=_WHERE,
        complete=_complete_report,
    ),
)

JOBS: Mapping[str, Job] = MappingProxyType({job.name: job for job in _ALL})
"""By the name of the command that does the same."""
