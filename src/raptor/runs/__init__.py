"""Runs: a folder with settings, metrics and checkpoints, and the engines that carry out their parts."""

from raptor.runs.checkpoints import Checkpoints, RunWarning
from raptor.runs.folder import RunFolder
from raptor.runs.metrics import read_curve
from raptor.runs.progress import Progress

__all__ = ["Checkpoints", "Progress", "RunFolder", "RunWarning", "read_curve"]
