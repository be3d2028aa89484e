"""Many quadrotors behind Gymnasium's vector interface, numpy in and out."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from raptor.core.errors import UserError
from raptor.environments.factory import Source
from raptor.environments.gymnasium_env import (
    ACTION_SPACE,
    EPISODE_STEPS,
    OBSERVATION_SPACE,
    Floats,
    GymnasiumEnv,
    make_batch,
    torch_seed,
)
from raptor.tasks.task import Task

Flags = NDArray[np.bool_]


class QuadrotorVectorEnv(gymnasium.vector.VectorEnv[Floats, Floats, NDArray[Any]]):
    """Many quadrotors, stepped at once; `gymnasium.make_vec("raptor/Hover-v0", num_envs=...)` makes it.

    By default an episode that ends begins anew within the same step: `infos["final_obs"]` then holds the last
    observation and `infos["final_info"]` the last info, as in Gymnasium's `SyncVectorEnv`.

    Args:
        num_envs: number of vehicles.
        quadrotor: as for `GymnasiumEnv`; fewer vehicles than `num_envs` fly in turn.
        task: as for `GymnasiumEnv`.
        autoreset_mode: when an ended episode begins anew: within the same step, instead of the next one
            (`AutoresetMode.NEXT_STEP`, which Gymnasium's vector `NormalizeObservation` insists on), or by
            `reset(options={"reset_mask": ...})` only.
        max_episode_steps: after which an episode is truncated.
        render_mode: as for `GymnasiumEnv`.
        settings: as for `GymnasiumEnv`.
    """

    def __init__(
        self,
        num_envs: int = 1,
        quadrotor: Source = "crazyflie",
        task: str | Task = "hover",
        *,
        autoreset_mode: AutoresetMode | str = AutoresetMode.SAME_STEP,
        max_episode_steps: int = EPISODE_STEPS,
        render_mode: None = None,
        **settings: Any,
    ) -> None:
        self.autoreset_mode = AutoresetMode(autoreset_mode)
        self.metadata = {**GymnasiumEnv.metadata, "autoreset_mode": self.autoreset_mode}
        self.num_envs = num_envs
        self.single_observation_space, self.single_action_space = OBSERVATION_SPACE, ACTION_SPACE
        self.observation_space = batch_space(OBSERVATION_SPACE, num_envs)
        self.action_space = batch_space(ACTION_SPACE, num_envs)
        settings["auto_reset"] = self.autoreset_mode is AutoresetMode.SAME_STEP
        self.batch = make_batch(num_envs, quadrotor, task, max_episode_steps, render_mode, **settings)
        self._seeded = False
        self._over = np.zeros(num_envs, np.bool_)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Floats, dict[str, Any]]:
        """Begin new episodes; `options={"reset_mask": mask}` says for which vehicles, all by default."""
        super().reset(seed=seed)
        mask = _reset_mask(options, self.num_envs)
        self._over = self._over & ~mask
        new_seed = torch_seed(self.np_random) if seed is not None or not self._seeded else None
        self._seeded = True
        observation, info = self.batch.reset(new_seed, None if mask.all() else torch.from_numpy(mask))
        return _array(observation), _infos(info, mask)

    @torch.no_grad()
    def step(self, actions: Floats) -> tuple[Floats, NDArray[np.float64], Flags, Flags, dict[str, Any]]:
        """Apply one action to each vehicle."""
        result = self.batch.step(torch.from_numpy(np.asarray(actions, np.float32)))
        observation, info, infos = result.observation, result.info, {}
        reward = _array(result.reward).astype(np.float64)
        terminated, truncated = _array(result.terminated), _array(result.truncated)
        if self.autoreset_mode is AutoresetMode.NEXT_STEP and self._over.any():
            # What these vehicles just did does not count: this step is their new episode's first moment.
            again = self._over
            reward, terminated, truncated = np.where(again, 0.0, reward), terminated & ~again, truncated & ~again
            observation, info = self.batch.reset(mask=torch.from_numpy(again))
        self._over = terminated | truncated
        if self.autoreset_mode is AutoresetMode.SAME_STEP and self._over.any():
            infos = {
                "final_obs": _objects(_array(info["final_observation"]), self._over),
                "_final_obs": self._over.copy(),
                "final_info": _infos(info, self._over),
                "_final_info": self._over.copy(),
            }
            info = {"position_error": self.batch.position_error}
        infos.update(_infos(info, np.ones(self.num_envs, np.bool_)))
        return _array(observation), reward, terminated, truncated, infos


def _array(tensor: torch.Tensor) -> NDArray[Any]:
    return np.ascontiguousarray(tensor.numpy(force=True))


def _infos(info: dict[str, torch.Tensor], mask: Flags) -> dict[str, Any]:
    """Infos of the vehicles in `mask`, laid out as Gymnasium's vector environments do."""
    error = np.where(mask, _array(info["position_error"]), 0.0)
    return {"position_error": error.astype(np.float64), "_position_error": mask.copy()}


def _objects(rows: Floats, mask: Flags) -> NDArray[np.object_]:
    objects = np.full(len(rows), None, dtype=object)
    for index in np.flatnonzero(mask):
        objects[index] = rows[index].copy()
    return objects


def _reset_mask(options: dict[str, Any] | None, num: int) -> Flags:
    if options is None or "reset_mask" not in options:
        return np.ones(num, np.bool_)
    mask = options["reset_mask"]
    if not isinstance(mask, np.ndarray) or mask.dtype != np.bool_ or mask.shape != (num,) or not mask.any():
        raise UserError(f"options['reset_mask'] must be a numpy array of {num} booleans, at least one of them True")
    return mask
