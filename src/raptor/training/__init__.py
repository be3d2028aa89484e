"""The training jobs."""

from raptor.runs.job import RunSummary
from raptor.training.direct.config import TrainDirectConfig
from raptor.training.direct.job import TrainDirectSummary, load_run_config, train_direct
from raptor.training.distillation.env_job import EnvDistillConfig, EnvDistillSummary, distill, load_env_distill_config
from raptor.training.distillation.job import PostTrainConfig, PostTrainSummary, load_post_train_config, post_train
from raptor.training.distillation.teachers import TeacherFile
from raptor.training.teachers.job import (
    PreTrainConfig,
    PreTrainProgress,
    PreTrainSummary,
    load_pre_train_config,
    pre_train,
)

__all__ = [
    "EnvDistillConfig",
    "EnvDistillSummary",
    "PostTrainConfig",
    "PostTrainSummary",
    "PreTrainConfig",
    "PreTrainProgress",
    "PreTrainSummary",
    "RunSummary",
    "TeacherFile",
    "TrainDirectConfig",
    "TrainDirectSummary",
    "distill",
    "load_env_distill_config",
    "load_post_train_config",
    "load_pre_train_config",
    "load_run_config",
    "post_train",
    "pre_train",
    "train_direct",
]
