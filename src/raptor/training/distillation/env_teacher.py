"""A teacher in a third-party environment: which observations it sees, and whether it fits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from raptor.core.errors import UserError
from raptor.environments.vec_env import CheckedVecEnv
from raptor.rl.demonstrations import Observations

TEACHER_GROUPS = ("teacher", "privileged", "critic", "policy")
"""Groups of observations that a teacher may see, in the order of preference."""

PROBES = 8
"""Observations whose actions identify a teacher."""

Expert = Callable[[Tensor], Tensor]
"""From observations (N, D) to actions (N, A): a `raptor.nn.ExpertNetwork`, or any function."""


class EnvTeacher:
    """An expert that fits an environment.

    Args:
        expert: maps observations to actions. Where it has an `observation_dim` and an `action_dim`, these are checked;
            where it has a `sample(observation, generator)`, it can act with noise.
        env: where it acts.
        group: what it sees: the name of a group, or names joined by `+`; by default the first of `TEACHER_GROUPS` whose
            width is the expert's.

    Raises:
        UserError: it does not fit; says what it observes and does, and which groups there are.
    """

    def __init__(self, expert: Expert, env: CheckedVecEnv, group: str | None = None) -> None:
        self.expert: Any = expert.to(env.device) if hasattr(expert, "to") else expert
        self.groups = tuple(group.split("+")) if group is not None else (_fitting(expert, env),)
        self.num_envs, self.num_actions, self.device = env.num_envs, env.num_actions, env.device
        env.watch(*self.groups)
        self.observation_dim = sum(env.widths[name] for name in self.groups)
        wanted, acts = getattr(expert, "observation_dim", None), getattr(expert, "action_dim", None)
        if wanted not in (None, self.observation_dim):
            raise UserError(_misfit(expert, env, f"group {' + '.join(self.groups)} has {self.observation_dim} numbers"))
        if acts not in (None, env.num_actions):
            raise UserError(_misfit(expert, env, f"the environment takes {env.num_actions} actions"))
        self(env.observe())

    @torch.no_grad()
    def __call__(self, observations: Observations) -> Tensor:
        """Actions (N, A) without noise."""
        return self._checked(self.expert(self._seen(observations)))

    def sample(self, observations: Observations, generator: torch.Generator) -> Tensor:
        """Actions (N, A) with its exploration noise.

        Raises:
            UserError: it has none.
        """
        if not hasattr(self.expert, "sample"):
            raise UserError("this teacher knows of no exploration noise: set teacher_deterministic=true")
        return self._checked(self.expert.sample(self._seen(observations), generator))

    def probe(self) -> Tensor:
        """Actions (PROBES, A) that identify it."""
        observation = torch.randn(PROBES, self.observation_dim, generator=torch.Generator().manual_seed(0))
        action: Tensor = self.expert(observation.to(self.device))
        return action.detach().float().cpu()

    def _seen(self, observations: Observations) -> Tensor:
        groups = [observations[name] for name in self.groups]
        return groups[0] if len(groups) == 1 else torch.cat(groups, -1)

    def _checked(self, action: Tensor) -> Tensor:
        expected = (self.num_envs, self.num_actions)
        if not isinstance(action, Tensor) or tuple(action.shape) != expected:
            got = tuple(action.shape) if isinstance(action, Tensor) else type(action).__name__
            raise UserError(f"the teacher must give actions of shape {expected}, got {got}")
        return action.float()


def _fitting(expert: Expert, env: CheckedVecEnv) -> str:
    """The first group that a teacher may see and that is as wide as the expert's observation."""
    wanted = getattr(expert, "observation_dim", None)
    for name in TEACHER_GROUPS:
        if name in env.widths and wanted in (None, env.widths[name]):
            return name
    raise UserError(_misfit(expert, env, f"the environment shows {env.layout()}"))


def _misfit(expert: Any, env: CheckedVecEnv, instead: str) -> str:
    observes, acts = getattr(expert, "observation_dim", "any"), getattr(expert, "action_dim", None)
    does = f" and gives {acts} actions" if acts is not None else ""
    return (
        f"the teacher observes {observes} numbers{does}, but {instead}; groups: {env.layout()}; actions: "
        f"{env.num_actions}: give teacher_group (two groups are joined by +), or a teacher of this environment"
    )
