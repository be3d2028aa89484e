"""The jobs that a stage can be: each is what a command of its own does, too."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from raptor.config import load_config
from raptor.pipeline import stages
from raptor.pipeline.work import (
    EVALUATION_FILE,
    REPORT_FILE,
    Outcome,
    Work,
    exported_file,
    run_evaluate,
    run_export,
    run_post_train,
    run_pre_train,
    run_report,
    run_sample,
    run_train_direct,
)
from raptor.quadrotor import named_distribution
from raptor.training import TrainDirectConfig
from raptor.training.post_training_config import PostTrainConfig
from raptor.training.pre_training import PreTrainConfig

EVERYWHERE = ("seed", "device", "compile")
"""What the pipeline can say for all of its stages."""


@dataclasses.dataclass(frozen=True)
class Job:
    """A kind of stage."""

    name: str
    gives: str  # kind of what it makes
    keys: type
    run: Callable[[Work], Outcome]
    product: Callable[[Any], str] = lambda keys: ""  # what other stages read, in the stage's folder; or the folder
    settings: Callable[[Mapping[str, Any]], Any] | None = None  # the default ones, given the keys of the stage
    needs: tuple[tuple[str, ...], ...] = ()  # of each, one key must be given
    inherits: tuple[str, ...] = ()  # what the pipeline says for all
    trains: bool = False  # is expensive, and goes on where it was interrupted
    incidental: frozenset[str] = frozenset()  # settings that make no difference to the result
    complete: Callable[[Any, Mapping[str, Any]], Any] = lambda keys, stages: keys  # fills in what other stages say


def _settings_of(config: type) -> Callable[[Mapping[str, Any]], Any]:
    """The default settings of a stage: those of the file or preset that its key `config` names."""

    def load(given: Mapping[str, Any]) -> Any:
        file = given.get("config")
        return load_config(config, file) if isinstance(file, str) else config()

    return load


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


_WRITING = frozenset({"settings.checkpoint_interval", "settings.keep_checkpoints"})
_WHERE = frozenset({"device", "compile", "settings.device", "settings.compile"})

JOBS: Mapping[str, Job] = MappingProxyType(
    {
        job.name: job
        for job in (
            Job("sample", stages.QUADROTORS, stages.Sample, run_sample, settings=_ranges, inherits=("seed",)),
            Job(
                "pre-train",
                stages.TEACHERS,
                stages.PreTrain,
                run_pre_train,
                settings=_settings_of(PreTrainConfig),
                needs=(("quadrotors", "generate"),),
                inherits=EVERYWHERE,
                trains=True,
                incidental=_WHERE | {"settings.engine", "settings.memory_gib", "settings.checkpoint_interval_s"},
            ),
            Job(
                "post-train",
                stages.POLICY,
                stages.PostTrain,
                run_post_train,
                settings=_settings_of(PostTrainConfig),
                needs=(("teachers",),),
                inherits=EVERYWHERE,
                trains=True,
                incidental=_WHERE | _WRITING | {"settings.memory_gib", "settings.video_interval"},
            ),
            Job(
                "train-direct",
                stages.POLICY,
                stages.TrainDirect,
                run_train_direct,
                settings=_settings_of(TrainDirectConfig),
                inherits=EVERYWHERE,
                trains=True,
                incidental=_WHERE | _WRITING,
            ),
            Job(
                "evaluate",
                stages.EVALUATION,
                stages.Evaluate,
                run_evaluate,
                product=lambda keys: EVALUATION_FILE,
                needs=(("policies",),),
                inherits=("device", "compile"),
                incidental=_WHERE,
            ),
            Job("export", stages.POLICY, stages.Export, run_export, product=exported_file, needs=(("policy",),)),
            Job(
                "report",
                stages.REPORT,
                stages.Report,
                run_report,
                product=lambda keys: REPORT_FILE,
                needs=(("evaluation",),),
                inherits=("compile",),
                incidental=_WHERE,
                complete=_complete_report,
            ),
        )
    }
)
"""By the name of the command that does the same."""
