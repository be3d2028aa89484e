"""Runs: a folder with settings, metrics and checkpoints, the trainer, and the engines that run parts of a job.

Importing this loads no torch, so that the processes of an engine begin at once.
"""

from raptor.runs.metrics import read_curve
from raptor.runs.progress import Progress

__all__ = ["Progress", "read_curve"]
