"""Training jobs, their run folders and checkpoints."""

from raptor.training.checkpoints import Checkpoints, RunWarning
from raptor.training.jobs import RunSummary, TrainDirectConfig, load_run_config, train_direct
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
    "PreTrainConfig",
    "PreTrainProgress",
    "PreTrainSummary",
    "Progress",
    "RunFolder",
    "RunSummary",
    "RunWarning",
    "TrainDirectConfig",
    "load_pre_train_config",
    "load_run_config",
    "pre_train",
    "read_curve",
    "train_direct",
]
