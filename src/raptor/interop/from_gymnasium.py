"""Any vector environment of Gymnasium as a `VecEnv`: numpy in there, torch out here."""

from __future__ import annotations

import contextlib
import importlib
import warnings
from collections.abc import Mapping
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium.vector import AutoresetMode, VectorEnv
from numpy.typing import NDArray
from torch import Tensor

from raptor.core.errors import UserError
from raptor.environments.vec_env import DEFAULT_GROUP

DEFAULT_NUM_ENVS = 16


class FromGymnasium:
    """Any `gymnasium.vector.VectorEnv` with boxes to observe and to act in, behind the contract of `VecEnv`.

    There is one group of observations, `policy`, flattened. Actions are clipped to their bounds. Whichever its
    autoreset mode, an episode begins anew within the step that ended it. An environment that resets in the step after
    (`AutoresetMode.NEXT_STEP`) ends its episodes one step later here; `extras["ignored"]` marks that step, whose action
    it ignores. `max_episode_length` is by default that of the environment's specification.
    """

    def __init__(
        self, envs: VectorEnv[Any, Any, Any], device: torch.device | str = "cpu", max_episode_length: int | None = None
    ) -> None:
        name = envs.spec.id if envs.spec is not None else type(envs.unwrapped).__name__
        self._mode = AutoresetMode(envs.metadata.get("autoreset_mode", AutoresetMode.NEXT_STEP))
        observed, acted = envs.single_observation_space, envs.single_action_space
        for what, space in (("observations", observed), ("actions", acted)):
            if not isinstance(space, gymnasium.spaces.Box):
                raise UserError(f"the {what} of {name} must be a Box, got {space}: wrap the environment to make it one")
        assert isinstance(acted, gymnasium.spaces.Box)
        self.envs, self.device = envs, torch.device(device)
        self.num_envs = envs.num_envs
        self.num_actions = int(np.prod(acted.shape))
        if max_episode_length is None and envs.spec is not None:
            max_episode_length = envs.spec.kwargs.get("max_episode_steps", envs.spec.max_episode_steps)
        if max_episode_length is None:
            remedy = "give max_episode_length, or env.max_episode_steps=500 on the command line"
            raise UserError(f"{name} does not say how long its episodes are: {remedy}")
        self.max_episode_length = int(max_episode_length)
        # (A,) bounds of the actions, infinite where there are none
        self.low, self.high = (self._tensor(bound).view(-1) for bound in (acted.low, acted.high))
        self.cfg = {
            "env": name,
            "num_envs": self.num_envs,
            "max_episode_length": self.max_episode_length,
            "observation_space": str(observed),
            "action_space": str(acted),
            "autoreset_mode": self._mode.value,
            "kwargs": dict(envs.spec.kwargs) if envs.spec is not None else {},
        }
        self._shape = (self.num_envs, *acted.shape)
        self.reset()

    def reset(self, seed: int | None = None) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Begin every episode anew; returns observations and empty extras."""
        self._observation = self._tensor(self.envs.reset(seed=seed)[0]).view(self.num_envs, -1)
        self.episode_length_buf = torch.zeros(self.num_envs, dtype=torch.long, device=self.device)
        # Episodes that begin anew in the next step, and those of them that timed out.
        self._over = self._timed_out = torch.zeros(self.num_envs, dtype=torch.bool, device=self.device)
        return self.get_observations(), {}

    def get_observations(self) -> dict[str, Tensor]:
        """The group `policy`, (N, D)."""
        return {DEFAULT_GROUP: self._observation}

    def step(self, actions: Tensor) -> tuple[dict[str, Tensor], Tensor, Tensor, dict[str, Any]]:
        """Apply actions (N, A), clipped to their bounds."""
        clipped = torch.minimum(torch.maximum(actions.to(self.low), self.low), self.high)
        acted = clipped.view(self._shape).numpy(force=True).astype(self.envs.action_space.dtype)
        observation, reward, terminated, truncated, _ = self.envs.step(acted)
        terminated, truncated = self._tensor(terminated, np.bool_), self._tensor(truncated, np.bool_)
        ended = terminated | truncated
        if self._mode is AutoresetMode.DISABLED and bool(ended.any()):
            observation, _ = self.envs.reset(options={"reset_mask": ended.numpy(force=True)})
        ignored, done, timed_out = torch.zeros_like(ended), ended, truncated & ~terminated
        if self._mode is AutoresetMode.NEXT_STEP:
            ignored = done = self._over
            timed_out, self._timed_out = self._timed_out & done, timed_out
            self._over = ended
        self._observation = self._tensor(observation).view(self.num_envs, -1)
        self.episode_length_buf = (self.episode_length_buf + 1).masked_fill(done, 0)
        extras = {"time_outs": timed_out, "ignored": ignored}
        return self.get_observations(), self._tensor(reward), done, extras

    def render(self) -> NDArray[Any] | None:
        """A picture of the first environment, (H, W, 3); None where it renders nothing."""
        frames: Any = self.envs.render() if self.envs.render_mode == "rgb_array" else None
        return frames[0] if isinstance(frames, (tuple, list)) and frames else frames

    def close(self) -> None:
        """Close the environment."""
        self.envs.close()

    def _tensor(self, array: Any, dtype: Any = np.float32) -> Tensor:
        return torch.as_tensor(np.array(array, dtype), device=self.device)


def make_gymnasium(
    name: str,
    num_envs: int | None = None,
    settings: Mapping[str, Any] | None = None,
    device: torch.device | str = "cpu",
    video: bool = False,
) -> FromGymnasium:
    """Make `num_envs` environments of that name, by default `DEFAULT_NUM_ENVS`, with the settings as keywords.

    The name is as for `gymnasium.make`; `module:ID` imports the module first.

    Raises:
        UserError: there is no such environment, or it cannot be made or, for `video`, rendered here; says why.
    """
    keywords = {**(settings or {}), **({"render_mode": "rgb_array"} if video else {})}
    number, made = DEFAULT_NUM_ENVS if num_envs is None else num_envs, None
    try:
        name = import_registered(name)
        whole = gymnasium.spec(name).vector_entry_point is not None
        how: dict[str, Any] = {} if whole else {"vector_kwargs": {"autoreset_mode": AutoresetMode.SAME_STEP}}
        made = FromGymnasium(gymnasium.make_vec(name, num_envs=number, **how, **keywords), device)
        if video:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                made.render()
        return made
    except UserError:
        raise
    except Exception as error:  # what a renderer lacks, it says in many ways
        reason = " ".join(str(error).split()).rstrip(".") or type(error).__name__
        if made is not None:
            with contextlib.suppress(Exception):
                made.close()
        elif isinstance(error, (gymnasium.error.Error, ImportError, TypeError, ValueError, OSError)):
            raise UserError(f"the environment {name!r} cannot be made: {reason}") from error
        if not video:
            raise
        raise UserError(
            f"no video can be made of {name!r}, because it does not render here: {reason}; install what it renders "
            "with (pip install 'gymnasium[classic-control]', [box2d] or [mujoco]), set MUJOCO_GL=egl for MuJoCo "
            "without a display, or leave out --video"
        ) from error


def import_registered(name: str) -> str:
    """Import the module of `module:ID`, which registers the environment, and return the ID."""
    module, colon, short = name.rpartition(":")
    if colon:
        try:
            importlib.import_module(module)
        except (ImportError, ValueError) as error:
            raise UserError(f"the module {module!r} of {name!r} cannot be imported: {error}") from error
    return short
