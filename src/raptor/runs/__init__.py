"""Runs: a folder with settings, metrics and checkpoints, the trainer, and the engines that run parts of a job.

Importing this loads no torch, so that the processes of an engine begin at once.
"""

from raptor.runs.progress import Progress, read_curve

__all__ = ["Progress", "read_curve"]
