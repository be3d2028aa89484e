"""Settings of a `raptor train-direct` that takes a moment."""

from __future__ import annotations

TINY = (
    "num_updates=2",
    "batch_size=4",
    "segment_steps=2",
    "task.episode_steps=4",
    "compile=false",
    "checkpoint_interval=1",
    "validation_interval=1",
    "num_validation=4",
)
