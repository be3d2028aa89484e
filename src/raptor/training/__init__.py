"""Training jobs, their run folders and checkpoints."""

from raptor.training.checkpoints import Checkpoints, RunWarning
from raptor.training.env_distillation import (
    EnvDistillConfig,
    EnvDistillSummary,
    distill,
    load_env_distill_config,
)
from raptor.training.jobs import RunSummary, TrainDirectConfig, load_run_config, train_direct
from raptor.training.post_training import PostTrainConfig, PostTrainSummary, load_post_train_config, post_train
from raptor.training.pre_training import (
    PreTrainConfig,
    PreTrainProgress,
    PreTrainSummary,
    load_pre_train_config,
    pre_train,
)
from raptor.training.progress import Progress
from raptor.training.run import RunFolder, read_curve
from raptor.training.teacher_sources import TeacherFile

__all__ = [
    "Checkpoints",
    "EnvDistillConfig",
    "EnvDistillSummary",
    "PostTrainConfig",
    "PostTrainSummary",
    "PreTrainConfig",
    "PreTrainProgress",
    "PreTrainSummary",
    "Progress",
    "RunFolder",
    "RunSummary",
    "RunWarning",
    "TeacherFile",
    "TrainDirectConfig",
    "distill",
    "load_env_distill_config",
    "load_post_train_config",
    "load_pre_train_config",
    "load_run_config",
    "post_train",
    "pre_train",
    "read_curve",
    "train_direct",
]
