"""Many quadrotors behind the interface of rsl_rl, torch in and out: its runners train and distill here."""

from __future__ import annotations

import math
import os
from typing import Any

import torch
from torch import Tensor

from raptor.config import to_dict
from raptor.core.errors import MissingExtraError, UserError
from raptor.environments.episode import observe_as_teacher
from raptor.environments.quadrotor_env import Source, make_env
from raptor.tasks.task import Task

try:
    from rsl_rl.env import VecEnv
    from tensordict import TensorDict
except ImportError as error:
    raise MissingExtraError("rsl-rl-lib", "rsl", "RslRlVecEnv") from error


class RslRlVecEnv(VecEnv):
    """Many quadrotors, stepped at once, for the runners of rsl_rl 3.0 and newer.

    There are two groups of observations: `policy` (N, 22), what the student sees, and `teacher` (N, 26), what a
    teacher sees (docs/conventions.md). An episode that ends begins anew within the same step; `extras["time_outs"]`
    marks those that reached their last step within bounds, and `extras["log"]` holds the figures of the episodes that
    ended with the step, if any did.

    The quadrotor, the task and the settings (`compile`, `simulator`, `device`, and fields of the task, such as
    `episode_steps=1000`) are those of `raptor.environments.quadrotor_env.make_env`. `reward_scale` is a factor on the
    rewards, not on the figures in `extras["log"]`: rsl_rl does not normalise rewards, and its algorithms like returns
    of a few units; RAPTOR's are between -100 and 150 at a discount of 0.99.
    """

    num_actions = 4

    def __init__(
        self,
        num_envs: int = 1024,
        quadrotor: Source = "crazyflie",
        task: str | Task = "hover",
        *,
        seed: int = 0,
        reward_scale: float = 1.0,
        **settings: Any,
    ) -> None:
        if num_envs < 1:
            raise UserError(f"num_envs must be at least 1, got {num_envs}")
        if not 0 < reward_scale < math.inf:
            raise UserError(f"reward_scale must be a positive number, got {reward_scale}")
        self.batch = make_env(num_envs, quadrotor, task, **settings)
        self.num_envs, self.reward_scale = num_envs, reward_scale
        self.max_episode_length = self.batch.task.episode_steps
        self.device = self.batch.quadrotors.device
        names = os.fspath(quadrotor) if isinstance(quadrotor, (str, os.PathLike)) else self.batch.quadrotors.names
        self.cfg = {
            "num_envs": num_envs,
            "quadrotor": names,
            "task": to_dict(self.batch.task),
            "simulator": settings.get("simulator", "raptor"),
            "seed": seed,
            "reward_scale": reward_scale,
        }  # plain data for the runner's logger
        self.batch.reset(seed)

    @property
    def episode_length_buf(self) -> Tensor:
        """(N,) int64; steps of the present episodes. A runner's `init_at_random_ep_len=True` assigns it."""
        return self.batch.episode_length

    @episode_length_buf.setter
    def episode_length_buf(self, lengths: Tensor) -> None:
        self.batch.episode_length = lengths

    @torch.no_grad()
    def reset(self, seed: int | None = None) -> tuple[TensorDict, dict[str, Any]]:
        """Begin new episodes, from a seed if given; returns observations and empty extras."""
        self.batch.reset(seed)
        return self.get_observations(), {}

    @torch.no_grad()
    def get_observations(self) -> TensorDict:
        """Present observations, in the groups `policy` (N, 22) and `teacher` (N, 26)."""
        return self._grouped(self.batch.observation)

    @torch.no_grad()
    def step(self, actions: Tensor) -> tuple[TensorDict, Tensor, Tensor, dict[str, Any]]:
        """Apply actions (N, 4); returns observations, rewards (N,), dones (N,) int64, and extras."""
        result = self.batch.step(actions)
        done, info = result.done, result.info
        extras: dict[str, Any] = {"time_outs": result.truncated}
        if result.observation is not info["final_observation"]:  # some episodes ended: new ones have begun
            figures = {"return": info["episode_return"], "length": info["episode_length"]}
            figures["termination_rate"] = result.terminated
            # One number for each episode; the runner's logger averages over all of them.
            extras["log"] = {f"Episode/{name}": x[done].to(result.reward.dtype) for name, x in figures.items()}
        return self._grouped(result.observation), self.reward_scale * result.reward, done.long(), extras

    def close(self) -> None:
        """Nothing is to be closed."""

    def _grouped(self, observation: Tensor) -> TensorDict:
        teacher = observe_as_teacher(self.batch.quadrotors, self.batch.episode)
        return TensorDict({"policy": observation, "teacher": teacher}, batch_size=[self.num_envs], device=self.device)
