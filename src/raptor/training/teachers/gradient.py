"""Teachers trained through the simulator's gradient."""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from raptor.config.settings import Settings, at_least, between, each, not_negative, positive, setting
from raptor.environments.episode import draw_noise
from raptor.environments.rollout import Teachers
from raptor.nn.stacked_mlp import Layer, Layers, initial_layers, laid_out, tile
from raptor.quadrotor.dynamics import Method
from raptor.quadrotor.parameters import NUM_ROTORS
from raptor.rl.adam import adam_start, adam_step, warm_up, warmup_cosine
from raptor.rl.analytic_policy_gradient import SegmentGradient
from raptor.rl.collection import grid
from raptor.rl.not_finite import has_terms, warn_of_terms
from raptor.rl.objective import Objective
from raptor.tasks.observation import TEACHER_DIM
from raptor.training.teachers.learner import TeacherLearner, beside, chosen, hover_bias

SHARED_DECLINE = 0.7  # fraction of the learning rate that is gone when teachers part


@dataclasses.dataclass(frozen=True)
class APGConfig(Settings):
    """Settings of teachers that are trained through the simulator's gradient."""

    num_updates: int = setting(600, "steps of the optimiser; the learning rate falls to its end over all", at_least(1))
    num_envs: int = setting(16, "parallel episodes of each teacher", at_least(1))
    segment_steps: int = setting(100, "steps between two updates, over which the gradient is propagated", at_least(1))
    learning_rate: float = setting(1e-2, "of Adam, at its highest", positive)
    final_learning_rate: float = setting(0.01, "fraction of the learning rate at the end of the cosine", between(0, 1))
    warm_up_updates: int = setting(30, "rise of the learning rate, at the start and when teachers part", not_negative)
    shared_updates: int = setting(150, "in which all of a shard take the same step, each from its hover", not_negative)
    shared_learning_rate: float = setting(2e-2, "of Adam in those", positive)
    gradient_norm: float = setting(1.0, "bound on the norm of each teacher's gradient", positive)
    gradient_decay: float = setting(1.0, "factor on each vehicle's adjoint per step backwards", between(0, 1))
    adjoint_limit: float = setting(1000.0, "bound on the norm of each vehicle's adjoint", positive)
    widths: tuple[int, ...] = setting((64, 64), "of the hidden layers", each(at_least(1)))
    initial_scale: float = setting(0.3, "factor on the usual initial weights of the last layer", positive)
    method: Method = setting("midpoint", "integrator")
    validation_interval: int = setting(50, "updates between two validations", at_least(1))
    objective: Objective = Objective(speed=30.0, speed_limit=1.5)


@dataclasses.dataclass(eq=False)
class APGTeachers(TeacherLearner):
    """T teachers that learn through the gradient, each from B episodes of its own vehicle.

    In the first updates they learn what they have in common: all take the same step, along the mean of their gradients,
    so that they differ only in the throttle at which each hovers. Then each goes on alone.

    Episodes are staggered, so that each update sees all parts of one. What is not finite is left out: the adjoint of a
    vehicle that blows up, and the update of a teacher whose gradient does.
    """

    STATE = ("layers", "adam", "episode", "age", "lost")

    config: APGConfig

    def _begin(self) -> None:
        config, quadrotors, num = self.config, self.quadrotors, len(self.quadrotors)
        self.steps_per_part = config.num_envs * config.segment_steps
        self.task = self.task.for_vehicles(quadrotors)
        sizes = (TEACHER_DIM, *config.widths, NUM_ROTORS)
        drawn = initial_layers(1 if config.shared_updates else num, sizes, self.generator)
        *hidden, last = drawn if len(drawn[0].weight) == num else tile(drawn, num)
        bias = hover_bias(quadrotors).unsqueeze(-1).expand_as(last.bias)  # the first actions are near hover
        self.layers = laid_out((*hidden, Layer(config.initial_scale * last.weight, bias)))
        self.adam = adam_start(self.layers)
        bounds = {"gradient_decay": config.gradient_decay, "adjoint_limit": config.adjoint_limit}
        how = {"method": config.method, "compile": self.compile, "controller": Teachers()}
        self.gradient = _segment_gradient(self.task, config.objective, **bounds, **how)
        self._explained = not has_terms(self.gradient)  # whether numbers that are not finite need no look any more
        self.quadrotors = grid(quadrotors, config.num_envs)
        self.episode = self.curriculum.begin(self.quadrotors, self.generator)
        segments = math.ceil(self.task.episode_steps / config.segment_steps)
        stagger = torch.arange(config.num_envs, device=quadrotors.device) * segments // config.num_envs
        self.age = (stagger * config.segment_steps).expand(self.quadrotors.shape).clone()
        self.lost = torch.zeros_like(self.quadrotors.mass)  # 1 where the episode met the end of RAPTOR's own

    def teachers(self) -> Layers:
        """The networks as they are."""
        return self.layers

    def _learning_rate(self) -> float:
        """A warm-up and a slow decline while learning together, and a warm-up and a cosine to the end alone."""
        config = self.config
        together = min(config.shared_updates, config.num_updates)
        if self.step_count < config.shared_updates:
            rising = warm_up(self.step_count, config.warm_up_updates)
            return config.shared_learning_rate * rising * (1 - SHARED_DECLINE * self.step_count / together)
        done = self.step_count - together
        progress = done / max(config.num_updates - together, 1)
        return warmup_cosine(config.learning_rate, config.final_learning_rate, progress, done, config.warm_up_updates)

    @torch.no_grad()
    def update(self) -> dict[str, Any]:
        """Fly one segment and take one step; returns what happened to each teacher, (T,) each."""
        config = self.config
        noise = draw_noise(self.task, self.quadrotors.mass, self.generator, config.segment_steps)
        gradient, segment = self.gradient(self.layers, self.quadrotors, self.episode, (), noise)
        norm, loss = _norm(gradient), segment.cost.mean((0, 2))
        self.skipped += ~norm.isfinite()
        if not (self._explained or (norm + loss).isfinite().all()):
            self._explained = True
            self.notes += warn_of_terms(self.gradient, self.layers, self.quadrotors, self.episode, (), noise)
        if self.step_count < config.shared_updates:
            gradient = _shared(gradient, norm.isfinite())
            norm = _norm(gradient)
        scale = torch.where(norm.isfinite(), (config.gradient_norm / norm.clamp(min=1e-12)).clamp(max=1.0), 0.0)
        scaled = pytree.tree_map(lambda g: g * beside(scale, g), gradient)
        gradient = chosen(norm.isfinite(), scaled, pytree.tree_map(torch.zeros_like, gradient))
        self.layers, self.adam = adam_step(self.layers, gradient, self.adam, self._learning_rate())
        self.episode, self.age = segment.episode, self.age + config.segment_steps
        self._replace(segment.alive, segment.terminated)
        self.step_count += 1
        self.figures = {"loss": loss, "gradient_norm": norm}
        return self.figures

    def _replace(self, alive: Tensor, terminated: Tensor) -> None:
        """Begin anew where an episode is over or a vehicle left its bounds."""
        out = alive == 0
        self.diverged += out.sum(1)
        self.lost = torch.maximum(self.lost, terminated.any(0).to(self.lost.dtype))
        over = out | (self.age >= self.task.episode_steps)
        self.curriculum.record(over, self.curriculum.succeeded(self.episode, self.lost > 0))
        self.episode = chosen(over, self.curriculum.begin(self.quadrotors, self.generator), self.episode)
        self.age = self.age.masked_fill(over, 0)
        self.lost = self.lost.masked_fill(over, 0.0)


_segment_gradient = functools.lru_cache(maxsize=4)(SegmentGradient)
"""The same one for all shards of a process, so that what was compiled for one serves the next."""


def _norm(gradient: Layers) -> Tensor:
    """Norm of each teacher's gradient, (T,)."""
    return torch.stack([(g * g).flatten(1).sum(1) for g in pytree.tree_leaves(gradient)]).sum(0).sqrt()


def _shared(gradient: Layers, finite: Tensor) -> Layers:
    """The mean of the gradients that are finite, for every teacher."""

    def mean(g: Tensor) -> Tensor:
        total = torch.where(beside(finite, g), g, 0.0).sum(0, keepdim=True) / finite.sum().clamp(min=1)
        return torch.empty_like(g).copy_(total.expand_as(g))

    shared: Layers = pytree.tree_map(mean, gradient)
    return shared
