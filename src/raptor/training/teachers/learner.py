"""Teachers that learn together: what both algorithms have in common."""

from __future__ import annotations

import abc
import dataclasses
import json
import math
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, TypeVar

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
class TeacherLearner(abc.ABC):
    """T teachers that learn, each with its own vehicle; with their best snapshots, and a curve of their validations.

    See `raptor.runs.learner.Learner`: an update gives figures of each teacher, (T,) each.
    """

    STATE: ClassVar[tuple[str, ...]]  # the attributes that the next update depends on

    config: Any
    task: Task
    quadrotors: Quadrotors  # T
    curriculum: Curriculum  # draws the episodes
    seed: int  # of the weights and of everything else that is drawn
    compile: bool = True  # False runs eagerly
    test: Callable[[Layers], TeacherEpisodes] | None = None  # flies teachers through the episodes of the validation

    def __post_init__(self) -> None:
        self.policy = None  # there is no single one
        self.rated: Rated | None = None
        self.notes: list[str] = []
        self.clock, self.generator = Clock(), torch.Generator(self.quadrotors.device).manual_seed(self.seed)
        self.step_count, self.part_count = 0, 0  # whole steps so far; parts of the next one
        self.num_parts, self.steps_per_part = 1, 1  # of a step; that each teacher flies
        # (T,) each: episodes that left their bounds and were begun anew; updates that were not finite and left out.
        self.diverged = torch.zeros(len(self.quadrotors), dtype=torch.long, device=self.quadrotors.device)
        self.skipped = self.diverged.clone()
        self.figures: dict[str, Any] = {}  # of the last step, (T,) each
        self.curve: list[dict[str, Any]] = []  # a point for each validation
        self.best_return = torch.full_like(self.diverged, -math.inf, dtype=torch.float32)
        self.best_steps = torch.zeros(len(self.best_return), dtype=torch.long)
        self._begin()
        self.best = pytree.tree_map(torch.clone, self.teachers())

    @abc.abstractmethod
    def _begin(self) -> None:
        """Make the networks, and all else that learning needs."""

    @abc.abstractmethod
    def teachers(self) -> Layers:
        """The networks as they are."""

    @abc.abstractmethod
    def update(self) -> dict[str, Any] | None:
        """Learn a little."""

    @property
    def fraction(self) -> float:
        """The part of the next step that is done."""
        return self.part_count / self.num_parts

    @property
    def env_steps(self) -> int:
        """Steps flown so far for each teacher."""
        return (self.step_count * self.num_parts + self.part_count) * self.steps_per_part

    def validate(self) -> dict[str, float]:
        """Test all teachers, keep those that are better than ever, and add a point to the curve."""
        assert self.test is not None
        layers = self.teachers()
        flights = self.test(layers)
        returns = torch.nan_to_num(flights.returns.mean(1), nan=-math.inf)
        finite = torch.stack([leaf.isfinite().flatten(1).all(1) for leaf in pytree.tree_leaves(layers)]).all(0)
        better = (returns > self.best_return) & finite
        self.best = chosen(better, layers, self.best)
        self.best_return = torch.where(better, returns, self.best_return)
        self.best_steps = torch.where(better.cpu(), self.env_steps, self.best_steps)
        staged = self.curriculum.summary() if self.curriculum.config.enabled else {}
        self.curve.append(
            {
                "step": self.step_count,
                "env_steps": self.env_steps,
                "elapsed_s": self.clock.elapsed_s,
                "returns": _rounded(returns),
                "terminated": _rounded(flights.terminated.float().mean(1)),
                **{name: _rounded(value.float().nanmean()[None])[0] for name, value in self.figures.items()},
                **{f"curriculum/{name}": value for name, value in staged.items()},
            }
        )
        return {"mean_return": returns.mean().item()}

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next update and the result depend on."""
        parts = {name: getattr(self, name) for name in (*self.STATE, "curriculum")}
        learning = {
            **{n: p.state_dict() if hasattr(p, "state_dict") else pytree.tree_leaves(p) for n, p in parts.items()},
            "generator": self.generator.get_state(),
            "counts": [self.step_count, self.part_count, self.diverged.clone(), self.skipped.clone()],
        }
        return {
            "algorithm": learning,
            "best": pytree.tree_leaves(self.best),
            "best_return": self.best_return,
            "best_steps": self.best_steps,
            "figures": dict(self.figures),
            "curve": json.dumps(self.curve),
            "elapsed_s": self.clock.elapsed_s,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go back to a state that `state_dict` gave."""
        learning = state["algorithm"]
        for name in (*self.STATE, "curriculum"):
            part = getattr(self, name)
            if hasattr(part, "load_state_dict"):
                part.load_state_dict(learning[name])
            else:
                setattr(self, name, filled(part, learning[name]))
        self.generator.set_state(learning["generator"].cpu())
        self.step_count, self.part_count, diverged, skipped = learning["counts"]
        self.diverged.copy_(diverged)
        self.skipped.copy_(skipped)
        self.best = filled(self.best, state["best"])
        self.best_return = state["best_return"].to(self.best_return.device)
        self.best_steps, self.figures = state["best_steps"].cpu(), state["figures"]
        self.curve, self.clock = json.loads(state["curve"]), Clock(state["elapsed_s"])


def hover_bias(quadrotors: Quadrotors) -> Tensor:
    """What tanh turns into the action at which each vehicle hovers, (T,)."""
    return torch.atanh((2 * quadrotors.hover_throttle - 1).clamp(-LARGEST_ACTION, LARGEST_ACTION))


def beside(values: Tensor, other: Tensor) -> Tensor:
    """Values whose axes are the first ones of `other`, to be broadcast against it."""
    return values.view(*values.shape, *[1] * (other.ndim - values.ndim))


def chosen(where: Tensor, new: Tree, old: Tree) -> Tree:
    """`new` where the first axes of its tensors say so, `old` elsewhere."""
    tree: Tree = pytree.tree_map(lambda a, b: torch.where(beside(where, b), a, b), new, old)
    return tree


def filled(like: Tree, leaves: list[Tensor]) -> Tree:
    """Stored tensors in the structure of `like`, on its device and in its memory layout."""
    old, structure = pytree.tree_flatten(like)
    copies = [torch.empty_like(tensor).copy_(stored) for tensor, stored in zip(old, leaves, strict=True)]
    tree: Tree = pytree.tree_unflatten(copies, structure)
    return tree


def _rounded(values: Tensor) -> list[float | None]:
    return [round(value, 4) if math.isfinite(value) else None for value in values.double().tolist()]
