"""Training jobs, their run folders and checkpoints."""

from raptor.training.checkpoints import Checkpoints, RunWarning
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

__all__ = [
    "Checkpoints",
    "PostTrainConfig",
    "PostTrainSummary",
    "PreTrainConfig",
    "PreTrainProgress",
    "PreTrainSummary",
    "Progress",
    "RunFolder",
    "RunSummary",
    "RunWarning",
    "TrainDirectConfig",
    "load_post_train_config",
    "load_pre_train_config",
    "load_run_config",
    "post_train",
    "pre_train",
    "read_curve",
    "train_direct",
]
