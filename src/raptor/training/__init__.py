"""Training jobs, their run folders and checkpoints."""

from raptor.training.checkpoints import Checkpoints, RunWarning
from raptor.training.jobs import RunSummary, TrainDirectConfig, load_run_config, train_direct
from raptor.training.progress import Progress
from raptor.training.run import RunFolder, read_curve

__all__ = [
    "Checkpoints",
    "Progress",
    "RunFolder",
    "RunSummary",
    "RunWarning",
    "TrainDirectConfig",
    "load_run_config",
    "read_curve",
    "train_direct",
]
