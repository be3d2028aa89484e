"""One quadrotor behind Gymnasium's interface, numpy in and out: a population of one."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import torch
from numpy.typing import NDArray

from raptor.core.errors import UserError
from raptor.environments.factory import Source, make_env, make_task
from raptor.environments.quadrotor_env import QuadrotorEnv
from raptor.quadrotor.dynamics import STATE_LIMIT
from raptor.tasks.observation import STUDENT_DIM
from raptor.tasks.task import Task

Floats = NDArray[np.float32]

OBSERVATION_SPACE = gymnasium.spaces.Box(-2 * STATE_LIMIT, 2 * STATE_LIMIT, (STUDENT_DIM,), np.float32)
"""Bounds that no observation exceeds: the simulator's own limits, not a scale to normalise by."""

ACTION_SPACE = gymnasium.spaces.Box(-1.0, 1.0, (4,), np.float32)

EPISODE_STEPS = Task().episode_steps
"""Default of Gymnasium's `max_episode_steps`."""


class GymnasiumEnv(gymnasium.Env[Floats, Floats]):
    """One quadrotor; `gymnasium.make("raptor/Hover-v0")` and its siblings make it.

    Observation (22,): position and velocity error, rotation matrix, body rates, previous action (docs/conventions.md).
    Action (4,): rotors in the order front-right, back-right, back-left, front-left. An episode ends where the task
    terminates it, and after the `max_episode_steps` of `gymnasium.make`, which counts them. `info["position_error"]` is
    the distance from the target in m.

    Args:
        quadrotor: a platform's name, a JSON file, a population of one, or "random" for a new vehicle in each episode.
        task: a `Task`, or "hover", "track" or "paper".
        render_mode: None: nothing is rendered.
        settings: `compile`, `simulator` and `device` of `raptor.environments.factory.make_env`; fields of the task.

    Raises:
        UserError: as `make_env` does, and for a number of steps that Gymnasium does not see.
    """

    metadata = {"render_modes": [], "render_fps": 100}  # noqa: RUF012  # as Gymnasium declares it

    def __init__(
        self,
        quadrotor: Source = "crazyflie",
        task: str | Task = "hover",
        render_mode: None = None,
        **settings: Any,
    ) -> None:
        self.observation_space, self.action_space = OBSERVATION_SPACE, ACTION_SPACE
        self.batch = make_batch(1, quadrotor, task, EPISODE_STEPS, render_mode, auto_reset=False, **settings)
        self._seeded = False

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Floats, dict[str, Any]]:
        """Begin an episode; options are ignored."""
        super().reset(seed=seed)
        new_seed = torch_seed(self.np_random) if seed is not None or not self._seeded else None
        observation, info = self.batch.reset(new_seed)
        self._seeded = True
        return observation[0].numpy(force=True), {"position_error": info["position_error"].item()}

    @torch.no_grad()
    def step(self, action: Floats) -> tuple[Floats, float, bool, bool, dict[str, Any]]:
        """Apply one action; never truncates, see the class."""
        result = self.batch.step(torch.from_numpy(np.asarray(action, np.float32).reshape(1, -1)))
        info = {"position_error": result.info["position_error"].item()}
        return result.observation[0].numpy(force=True), result.reward.item(), bool(result.terminated), False, info


def make_batch(
    num: int,
    quadrotor: Source,
    task: str | Task,
    max_episode_steps: int,
    render_mode: str | None,
    **settings: Any,
) -> QuadrotorEnv:
    """Make the batched environment, and refuse what Gymnasium's users would expect to have an effect.

    Raises:
        UserError: `render_mode` is given, or the task's `episode_steps` instead of `max_episode_steps`.
    """
    if render_mode is not None:
        raise UserError(f"render_mode must be None, the only one of this environment, got {render_mode!r}")
    steps = make_task(task, {name: settings[name] for name in settings if name == "episode_steps"}).episode_steps
    if steps != EPISODE_STEPS:
        raise UserError(
            f"Gymnasium counts the steps of an episode: give max_episode_steps={steps} instead of episode_steps={steps}"
        )
    if max_episode_steps < 1:
        raise UserError(f"max_episode_steps must be at least 1, got {max_episode_steps}")
    return make_env(num, quadrotor, task, **{**settings, "episode_steps": max_episode_steps})


def torch_seed(generator: np.random.Generator) -> int:
    """A seed for torch, drawn from the generator that Gymnasium seeds."""
    return int(generator.integers(2**62))
