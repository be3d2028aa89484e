"""What the trainer asks of those that it works with: a learner, and files of its figures and its state."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any, Protocol

import torch

Figures = Mapping[str, float]
Weights = Mapping[str, torch.Tensor]
Rated = tuple[Figures, Weights]
"""How good a policy is, with its `mean_return`, and its weights."""


@dataclasses.dataclass
class Best:
    """The best policy so far."""

    step: int
    figures: dict[str, float]
    weights: dict[str, torch.Tensor]
    by: str  # what the figures are of


class Learner(Protocol):
    """Something that learns in steps; it knows no files. It may have a `fraction`, the part of a step that is done."""

    policy: Any  # a module; None where there is no single one
    rated: Rated | None  # a policy that the last step itself measured
    notes: list[str]  # lines for the log since it was last emptied

    @property
    def env_steps(self) -> float:
        """Steps of simulation so far."""

    @property
    def step_count(self) -> int:
        """Whole steps so far."""

    def update(self) -> Figures | None:
        """Learn a little; figures named `group/name` where that completed a step, None where it goes on."""

    def validate(self) -> Figures:
        """How good it is, on vehicles and episodes that it never learns from: `mean_return` and others."""

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next update depends on."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go back to a state that `state_dict` gave."""


class TrainingFiles(Protocol):
    """Where a training is recorded and its state is kept: a run folder, or the store of a part of a run."""

    def log(self, message: str) -> None:
        """Append a line to the log."""

    def record_from(self, step: int, validated: bool = True) -> None:
        """Begin recording after a step; `validated` says whether its validation was recorded too."""

    def record(self, step: int, values: Figures) -> None:
        """Append figures."""

    def write(self, step: int, training: Mapping[str, Any]) -> str:
        """Write a checkpoint; returns its name."""

    def newest_first(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """The states that were written, with their names, the newest first."""

    def pass_over(self, name: str, problem: object) -> None:
        """Warn that this one is of no use, and the one before is taken."""

    def write_best(self, best: Best, milestone: bool) -> None:
        """Write the best policy; a milestone is the best of a phase that is over."""
