"""Teachers that learn together: what both algorithms have in common, and the learner of a shard that is made of one."""

from __future__ import annotations

import abc
import dataclasses
import json
import math
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from raptor.nn.stacked_mlp import Layers
from raptor.quadrotor.parameters import Quadrotors
from raptor.rl.curriculum import Curriculum
from raptor.rl.teacher_test import TeacherEpisodes
from raptor.runs.learner import Rated
from raptor.runs.progress import Clock
from raptor.tasks.task import Task

LARGEST_ACTION = 0.97
"""Bound on the action at the start, so that tanh keeps a slope there."""

Tree = TypeVar("Tree")


@dataclasses.dataclass(eq=False)
class Algorithm(abc.ABC):
    """T teachers that learn, each with its own vehicle."""

    config: Any
    task: Task
    quadrotors: Quadrotors  # T
    curriculum: Curriculum  # draws the episodes
    seed: int  # of the weights and of everything else that is drawn
    compile: bool = True  # False runs eagerly

    num_parts = 1  # of a step
    steps_per_part = 1  # that each teacher flies

    def __post_init__(self) -> None:
        self.generator = torch.Generator(self.quadrotors.device).manual_seed(self.seed)
        self.step_count, self.part_count = 0, 0  # whole steps so far; parts of the next one
        # (T,) each: episodes that left their bounds and were begun anew; updates that were not finite and left out.
        self.diverged = torch.zeros(len(self.quadrotors), dtype=torch.long, device=self.quadrotors.device)
        self.skipped = self.diverged.clone()

    @property
    def fraction(self) -> float:
        """The part of the next step that is done."""
        return self.part_count / self.num_parts

    @property
    def env_steps(self) -> int:
        """Steps flown so far for each teacher."""
        return (self.step_count * self.num_parts + self.part_count) * self.steps_per_part

    @abc.abstractmethod
    def teachers(self) -> Layers:
        """The networks as they are."""

    @abc.abstractmethod
    def update(self) -> dict[str, Tensor] | None:
        """Learn a little; figures of each teacher, (T,) each, where that completes a step, None where it goes on."""

    @abc.abstractmethod
    def state_dict(self) -> dict[str, Any]:
        """Everything that the next update depends on."""

    @abc.abstractmethod
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go back to a state that `state_dict` gave."""


class TeacherLearner:
    """The teachers of a shard with their best snapshots and learning curves; see `raptor.runs.learner.Learner`.

    Args:
        algorithm: by which they learn.
        test: flies them through the episodes of the validation.
    """

    policy = None  # there is no single one
    rated: Rated | None = None

    def __init__(self, algorithm: Algorithm, test: Callable[[Layers], TeacherEpisodes]) -> None:
        self.algorithm, self.test, self.clock = algorithm, test, Clock()
        self.notes: list[str] = []
        self.best = pytree.tree_map(torch.clone, algorithm.teachers())
        self.best_return = torch.full_like(algorithm.diverged, -math.inf, dtype=torch.float32)
        self.best_steps = torch.zeros(len(self.best_return), dtype=torch.long)
        self.curve: list[dict[str, Any]] = []  # a point for each validation
        self._figures: Mapping[str, Tensor] = {}  # of the last step

    @property
    def step_count(self) -> int:
        """Whole steps so far."""
        return self.algorithm.step_count

    @property
    def fraction(self) -> float:
        """The part of the next step that is done."""
        return self.algorithm.fraction

    @property
    def env_steps(self) -> int:
        """Steps flown so far by all teachers."""
        return self.algorithm.env_steps * len(self.best_return)

    def update(self) -> dict[str, float] | None:
        """Learn a little."""
        figures = self.algorithm.update()
        if figures is None:
            return None
        self._figures = figures
        return {}

    def validate(self) -> dict[str, float]:
        """Test all teachers, keep those that are better than ever, and add a point to the curve."""
        layers, steps, curriculum = self.algorithm.teachers(), self.algorithm.env_steps, self.algorithm.curriculum
        flights = self.test(layers)
        returns = torch.nan_to_num(flights.returns.mean(1), nan=-math.inf)
        finite = torch.stack([leaf.isfinite().flatten(1).all(1) for leaf in pytree.tree_leaves(layers)]).all(0)
        better = (returns > self.best_return) & finite
        self.best = pytree.tree_map(lambda new, old: torch.where(beside(better, old), new, old), layers, self.best)
        self.best_return = torch.where(better, returns, self.best_return)
        self.best_steps = torch.where(better.cpu(), steps, self.best_steps)
        staged = curriculum.summary() if curriculum.config.enabled else {}
        self.curve.append(
            {
                "step": self.step_count,
                "env_steps": steps,
                "elapsed_s": self.clock.elapsed_s,
                "returns": _rounded(returns),
                "terminated": _rounded(flights.terminated.float().mean(1)),
                **{name: _rounded(value.float().nanmean()[None])[0] for name, value in self._figures.items()},
                **{f"curriculum/{name}": value for name, value in staged.items()},
            }
        )
        return {"mean_return": returns.mean().item()}

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next update and the result depend on."""
        return {
            "algorithm": self.algorithm.state_dict(),
            "best": pytree.tree_leaves(self.best),
            "best_return": self.best_return,
            "best_steps": self.best_steps,
            "figures": dict(self._figures),
            "curve": json.dumps(self.curve),
            "elapsed_s": self.clock.elapsed_s,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go back to a state that `state_dict` gave."""
        self.algorithm.load_state_dict(state["algorithm"])
        self.best = filled(self.best, state["best"])
        self.best_return = state["best_return"].to(self.best_return.device)
        self.best_steps = state["best_steps"].cpu()
        self._figures = state["figures"]
        self.curve, self.clock = json.loads(state["curve"]), Clock(state["elapsed_s"])


def hover_bias(quadrotors: Quadrotors) -> Tensor:
    """What tanh turns into the action at which each vehicle hovers, (T,)."""
    return torch.atanh((2 * quadrotors.hover_throttle - 1).clamp(-LARGEST_ACTION, LARGEST_ACTION))


def beside(values: Tensor, other: Tensor) -> Tensor:
    """Values whose axes are the first ones of `other`, to be broadcast against it."""
    return values.view(*values.shape, *[1] * (other.ndim - values.ndim))


def filled(like: Tree, leaves: list[Tensor]) -> Tree:
    """Stored tensors in the structure of `like`, on its device and in its memory layout."""
    old, structure = pytree.tree_flatten(like)
    copies = [torch.empty_like(tensor).copy_(stored) for tensor, stored in zip(old, leaves, strict=True)]
    tree: Tree = pytree.tree_unflatten(copies, structure)
    return tree


def _rounded(values: Tensor) -> list[float | None]:
    return [round(value, 4) if math.isfinite(value) else None for value in values.double().tolist()]
