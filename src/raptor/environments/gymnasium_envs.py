"""One and many quadrotors behind Gymnasium's interfaces, numpy in and out; one is a population of one."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from raptor.core.errors import UserError
from raptor.environments.quadrotor_env import QuadrotorEnv, make_env
from raptor.quadrotor.dynamics import STATE_LIMIT
from raptor.quadrotor.reader import Source
from raptor.tasks.task import Task, make_task

Floats = NDArray[np.float32]
Flags = NDArray[np.bool_]

ACTION_SPACE = gymnasium.spaces.Box(-1.0, 1.0, (4,), np.float32)

EPISODE_STEPS = Task().episode_steps
"""Default of Gymnasium's `max_episode_steps`."""


class GymnasiumEnv(gymnasium.Env[Floats, Floats]):
    """One quadrotor; `gymnasium.make("raptor/Hover-v0")` and its siblings make it.

    Observation: the components of `task.observation`; by default (22,): position error, rotation matrix, velocity
    error, body rates, previous action (docs/conventions.md).
    Action (4,): rotors in the order front-right, back-right, back-left, front-left. An episode ends where the task
    terminates it, and after the `max_episode_steps` of `gymnasium.make`, which counts them. `info["position_error"]` is
    the distance from the target in m. Arguments are those of `raptor.environments.make_env`, fields of the task
    included; nothing is rendered.
    """

    metadata = {"render_modes": [], "render_fps": 100}  # noqa: RUF012  # as Gymnasium declares it

    def __init__(self, quadrotor: Source = "crazyflie", task: str | Task = "hover", **settings: Any) -> None:
        self.batch = _make_batch(1, quadrotor, task, EPISODE_STEPS, auto_reset=False, **settings)
        self.observation_space, self.action_space = _observation_space(self.batch.task), ACTION_SPACE
        self._seeded = False

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Floats, dict[str, Any]]:
        """Begin an episode; options are ignored."""
        super().reset(seed=seed)
        observation, info = self.batch.reset(_torch_seed(self, seed))
        return observation[0].numpy(force=True), {"position_error": info["position_error"].item()}

    @torch.no_grad()
    def step(self, action: Floats) -> tuple[Floats, float, bool, bool, dict[str, Any]]:
        """Apply one action; never truncates, see the class."""
        result = self.batch.step(torch.from_numpy(np.asarray(action, np.float32).reshape(1, -1)))
        info = {"position_error": result.info["position_error"].item()}
        return result.observation[0].numpy(force=True), result.reward.item(), bool(result.terminated), False, info


class QuadrotorVectorEnv(gymnasium.vector.VectorEnv[Floats, Floats, NDArray[Any]]):
    """Many quadrotors as in `GymnasiumEnv`, at once; `gymnasium.make_vec("raptor/Hover-v0", num_envs=...)` makes it.

    An episode is truncated after `max_episode_steps`. One that ended begins anew within the same step:
    `infos["final_obs"]` then holds the last observation and `infos["final_info"]` the last info, as in Gymnasium's
    `SyncVectorEnv`. By `autoreset_mode`, it does so in the next step instead (`AutoresetMode.NEXT_STEP`, which
    Gymnasium's vector `NormalizeObservation` insists on), or by `reset(options={"reset_mask": ...})` only.
    """

    def __init__(
        self,
        num_envs: int = 1,
        quadrotor: Source = "crazyflie",
        task: str | Task = "hover",
        *,
        autoreset_mode: AutoresetMode | str = AutoresetMode.SAME_STEP,
        max_episode_steps: int = EPISODE_STEPS,
        **settings: Any,
    ) -> None:
        self.autoreset_mode = AutoresetMode(autoreset_mode)
        self.metadata = {**GymnasiumEnv.metadata, "autoreset_mode": self.autoreset_mode}
        self.num_envs = num_envs
        settings["auto_reset"] = self.autoreset_mode is AutoresetMode.SAME_STEP
        self.batch = _make_batch(num_envs, quadrotor, task, max_episode_steps, **settings)
        self.single_observation_space, self.single_action_space = _observation_space(self.batch.task), ACTION_SPACE
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(ACTION_SPACE, num_envs)
        self._seeded = False
        self._all = np.ones(num_envs, np.bool_)
        self._over = ~self._all

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Floats, dict[str, Any]]:
        """Begin new episodes; `options={"reset_mask": mask}` says for which vehicles, all by default."""
        super().reset(seed=seed)
        mask = (options or {}).get("reset_mask", self._all)
        is_mask = isinstance(mask, np.ndarray) and mask.dtype == np.bool_ and mask.shape == self._over.shape
        if not is_mask or not mask.any():
            wanted = f"a numpy array of {self.num_envs} booleans, at least one of them True"
            raise UserError(f"options['reset_mask'] must be {wanted}")
        self._over = self._over & ~mask
        observation, info = self.batch.reset(_torch_seed(self, seed), None if mask.all() else torch.from_numpy(mask))
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
            final = np.full(self.num_envs, None, dtype=object)
            for index in np.flatnonzero(self._over):
                final[index] = _array(info["final_observation"][index]).copy()
            infos = {"final_obs": final, "final_info": _infos(info, self._over)}
            infos |= {"_final_obs": self._over.copy(), "_final_info": self._over.copy()}
            info = {"position_error": self.batch.position_error}
        return _array(observation), reward, terminated, truncated, infos | _infos(info, self._all)


def _make_batch(num: int, quadrotor: Source, task: str | Task, max_episode_steps: int, **settings: Any) -> QuadrotorEnv:
    """The batched environment; refuses what a user of Gymnasium would expect to have an effect, but has none."""
    if (render_mode := settings.pop("render_mode", None)) is not None:
        raise UserError(f"render_mode must be None, the only one of this environment, got {render_mode!r}")
    steps = make_task(task, {name: settings[name] for name in settings if name == "episode_steps"}).episode_steps
    if steps != EPISODE_STEPS:
        remedy = f"give max_episode_steps={steps} instead of episode_steps={steps}"
        raise UserError(f"Gymnasium counts the steps of an episode: {remedy}")
    if max_episode_steps < 1:
        raise UserError(f"max_episode_steps must be at least 1, got {max_episode_steps}")
    return make_env(num, quadrotor, task, **{**settings, "episode_steps": max_episode_steps})


def _observation_space(task: Task) -> gymnasium.Space[Floats]:
    """No bounds to normalise by: the simulator's own limits, and none for components other than the default ones."""
    bound = 2 * STATE_LIMIT if task.observes_default else np.inf
    space: Any = gymnasium.spaces.Box(-bound, bound, (task.observation_dim,), np.float32)
    return space


def _torch_seed(env: GymnasiumEnv | QuadrotorVectorEnv, seed: int | None) -> int | None:
    """A seed for torch from the generator that Gymnasium seeds; none where an unseeded reset goes on."""
    goes_on, env._seeded = seed is None and env._seeded, True
    return None if goes_on else int(env.np_random.integers(2**62))


def _array(tensor: torch.Tensor) -> NDArray[Any]:
    return np.ascontiguousarray(tensor.numpy(force=True))


def _infos(info: dict[str, torch.Tensor], mask: Flags) -> dict[str, Any]:
    """Infos of the vehicles in `mask`, laid out as Gymnasium's vector environments do."""
    error = np.where(mask, _array(info["position_error"]), 0.0)
    return {"position_error": error.astype(np.float64), "_position_error": mask.copy()}
