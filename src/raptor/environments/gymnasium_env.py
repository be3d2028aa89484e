"""One quadrotor behind Gymnasium's interface, numpy in and out.

There is no second simulator here: a single vehicle is a population of one.
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import torch
from numpy.typing import NDArray

from raptor.environments.factory import Source, make_env, make_task
from raptor.quadrotor.dynamics import STATE_LIMIT
from raptor.tasks.observation import STUDENT_DIM
from raptor.tasks.task import Task

Floats = NDArray[np.float32]

OBSERVATION_SPACE = gymnasium.spaces.Box(-2 * STATE_LIMIT, 2 * STATE_LIMIT, (STUDENT_DIM,), np.float32)
"""Bounds that no observation exceeds: the simulator's own limits, not a scale to normalise by."""

ACTION_SPACE = gymnasium.spaces.Box(-1.0, 1.0, (4,), np.float32)


class GymnasiumEnv(gymnasium.Env[Floats, Floats]):
    """One quadrotor; `gymnasium.make("raptor/Hover-v0")` and its siblings make it.

    Observation (22,): position and velocity error, rotation matrix, body rates, previous action (docs/conventions.md).
    Action (4,): rotors in the order front-right, back-right, back-left, front-left. Episodes end by the task's own
    rules (`episode_steps`, `termination`); a `TimeLimit` is not needed. `info["position_error"]` is the distance from
    the target in m.

    Args:
        quadrotor: a platform's name, a JSON file, a population of one, or "random" for a new vehicle in each episode.
        task: a `Task`, or "hover", "track" or "paper".
        compile: compile the step, which takes some seconds once.
        simulator: "raptor", or "l2f" for the original one (extra `l2f`).
        device: of the simulation.
        render_mode: nothing is rendered.
        overrides: fields of the task, for instance `episode_steps=1000`.
    """

    metadata = {"render_modes": [], "render_fps": 100}  # noqa: RUF012  # as Gymnasium declares it

    def __init__(
        self,
        quadrotor: Source = "crazyflie",
        task: str | Task = "hover",
        compile: bool = True,
        simulator: str = "raptor",
        device: torch.device | str | None = None,
        render_mode: None = None,
        **overrides: Any,
    ) -> None:
        self.render_mode = render_mode
        self.observation_space, self.action_space = OBSERVATION_SPACE, ACTION_SPACE
        self.batch = make_env(1, quadrotor, make_task(task, overrides), False, compile, simulator, device)
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
        """Apply one action."""
        result = self.batch.step(torch.from_numpy(np.asarray(action, np.float32).reshape(1, -1)))
        return (
            result.observation[0].numpy(force=True),
            result.reward.item(),
            bool(result.terminated),
            bool(result.truncated),
            {"position_error": result.info["position_error"].item()},
        )


def torch_seed(generator: np.random.Generator) -> int:
    """A seed for torch, drawn from the generator that Gymnasium seeds."""
    return int(generator.integers(2**62))
