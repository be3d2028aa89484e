"""Isaac Lab's tasks as a `VecEnv`; the only place that imports Isaac Lab, and only when it is asked to.

Isaac Lab demands an order: `AppLauncher` starts the simulator, and nothing else of it may be imported before.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import difflib
import importlib.util
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from raptor.core.errors import UserError
from raptor.interop.from_gymnasium import import_registered

PACKAGES = ("isaaclab", "isaaclab_tasks", "isaaclab_rl")
RSL_RL_SETTINGS = "rsl_rl_cfg_entry_point"
"""Under which a task registers the settings of its rsl_rl agent."""


@dataclasses.dataclass(frozen=True)
class IsaacTask:
    """Which task is wanted, and how."""

    name: str  # such as Isaac-Quadcopter-Direct-v0; module:NAME imports the module that registers it first
    num_envs: int | None = None  # None: as the task says
    seed: int = 0
    device: str = "cuda:0"  # of the simulation
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)  # of the task, by dotted key
    film: bool = False  # whether it must be able to show itself


class IsaacVecEnv:
    """What Isaac Lab's own `RslRlVecEnvWrapper` offers, with a reset that takes a seed, and pictures.

    Args:
        wrapped: Isaac Lab's wrapper.
    """

    def __init__(self, wrapped: Any) -> None:
        self.wrapped = wrapped
        self.num_envs, self.num_actions, self.device = wrapped.num_envs, wrapped.num_actions, wrapped.device
        self.max_episode_length, self.cfg = wrapped.max_episode_length, wrapped.cfg

    @property
    def episode_length_buf(self) -> Tensor:
        """(N,) int64, steps of the present episodes; may be assigned to."""
        lengths: Tensor = self.wrapped.episode_length_buf
        return lengths

    @episode_length_buf.setter
    def episode_length_buf(self, lengths: Tensor) -> None:
        self.wrapped.episode_length_buf = lengths

    def reset(self, seed: int | None = None) -> tuple[Any, Any]:
        """Begin every episode anew; what the simulator computes from a seed may still differ from run to run."""
        observations, extras = self.wrapped.env.reset(seed=seed)
        return observations, extras

    def get_observations(self) -> Any:
        """The groups of observations."""
        return self.wrapped.get_observations()

    def step(self, actions: Tensor) -> Any:
        """Apply actions (N, A)."""
        return self.wrapped.step(actions)

    def render(self) -> NDArray[np.uint8] | None:
        """A picture, (H, W, 3)."""
        frame: NDArray[np.uint8] | None = self.wrapped.env.render()
        return frame

    def close(self) -> None:
        """Close the environment."""
        self.wrapped.close()


def check_installed() -> None:
    """Refuse to go on without Isaac Lab.

    Raises:
        UserError: says what is missing, and how to get it.
    """
    missing = [package for package in PACKAGES if importlib.util.find_spec(package) is None]
    if missing:
        raise UserError(
            f"Isaac Lab is not installed in this Python ({', '.join(missing)} missing): install it as "
            "https://isaac-sim.github.io/IsaacLab says, pip install raptor-python there, and run "
            "./isaaclab.sh -p -m raptor distill-isaac; any other environment goes with raptor distill"
        )


def launcher_arguments(words: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """What of a command line is meant for the simulator's launcher, and the rest.

    Raises:
        UserError: an argument of the launcher has an impossible value.
    """
    from isaaclab.app import AppLauncher

    parser = argparse.ArgumentParser(add_help=False, exit_on_error=False, allow_abbrev=False)
    AppLauncher.add_app_launcher_args(parser)
    try:
        arguments, rest = parser.parse_known_args(list(words))
    except argparse.ArgumentError as error:
        raise UserError(f"Isaac Lab's launcher refuses its arguments: {error}") from error
    return arguments, rest


@contextlib.contextmanager
def isaac_env(task: IsaacTask, arguments: argparse.Namespace, headless: bool = True) -> Iterator[IsaacVecEnv]:
    """Start the simulator and make the task's environment.

    Simulator and environment are closed when the block ends well. Closing the simulator may end the process, so that an
    error is left to whoever tells it.

    Args:
        task: what is wanted.
        arguments: of the launcher, see `launcher_arguments`.
        headless: without a window.

    Raises:
        UserError: there is no such task, or it has no such setting; names what comes near.
    """
    from isaaclab.app import AppLauncher

    arguments.headless, arguments.device = headless, task.device
    if task.film:
        arguments.enable_cameras = True
    app = AppLauncher(arguments).app
    env = _make(task)
    yield env
    env.close()
    app.close()


def _make(task: IsaacTask) -> IsaacVecEnv:
    """Make the environment; the simulator runs by now."""
    import gymnasium
    import isaaclab_tasks  # noqa: F401 - registers the tasks
    from isaaclab.envs import DirectMARLEnv, multi_agent_to_single_agent
    from isaaclab_rl.rsl_rl import RslRlVecEnvWrapper
    from isaaclab_tasks.utils import parse_env_cfg

    name = _registered(task.name)
    cfg = parse_env_cfg(name, device=task.device, num_envs=task.num_envs)
    cfg.seed = task.seed
    for key, value in task.settings.items():
        override(cfg, key, value)
    if task.num_envs is not None:  # as in Isaac Lab, the flag counts over the settings
        cfg.scene.num_envs = task.num_envs
    env = gymnasium.make(name, cfg=cfg, render_mode="rgb_array" if task.film else None)
    if isinstance(env.unwrapped, DirectMARLEnv):
        env = multi_agent_to_single_agent(env)
    return IsaacVecEnv(RslRlVecEnvWrapper(env, clip_actions=_clip_actions(name)))


def _registered(name: str) -> str:
    """The name of a task that Isaac Lab knows, without the module that may stand before it."""
    import gymnasium

    short = import_registered(name)
    if short not in gymnasium.registry:
        known = [task for task in gymnasium.registry if "env_cfg_entry_point" in gymnasium.registry[task].kwargs]
        near = difflib.get_close_matches(short, known, n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(near)}?" if near else f"it knows {', '.join(sorted(known)) or 'none'}"
        raise UserError(f"Isaac Lab knows no task {short!r}: {hint}")
    return short


def _clip_actions(name: str) -> float | None:
    """The bound on actions that the task's rsl_rl agent is trained with, if there is one."""
    from isaaclab_tasks.utils import load_cfg_from_registry

    try:
        agent = load_cfg_from_registry(name, RSL_RL_SETTINGS)
    except ValueError:
        return None
    clip: float | None = agent.get("clip_actions") if isinstance(agent, dict) else getattr(agent, "clip_actions", None)
    return clip


def override(cfg: Any, key: str, value: Any) -> None:
    """Set one setting of a task's configuration, as Hydra does.

    Args:
        cfg: nested objects, dictionaries and lists.
        key: dotted; a number picks an entry of a list.
        value: of the type that the setting has, or None; of a group, settings by name, or None to have none of it.

    Raises:
        UserError: there is no such setting, it is a group, or the value is of another type.
    """
    *path, last = key.split(".")
    inner, before = cfg, ""
    for name in path:
        inner, before = _entry(inner, name, before, key), f"{before}{name}."
    now = _entry(inner, last, before, key)
    if value is not None and (isinstance(now, Mapping) or hasattr(now, "__dataclass_fields__")):
        if isinstance(value, Mapping):
            for name, part in value.items():
                override(cfg, f"{key}.{name}", part)
            return
        raise UserError(f"{key} is a group of the task's settings: give one of {_names(now, f'{key}.')}")
    new = _as(now, value, key)
    if isinstance(inner, Mapping):
        inner[last] = new  # type: ignore[index]
    elif isinstance(inner, list):
        inner[int(last)] = new
    else:
        setattr(inner, last, new)


def _entry(group: Any, name: str, before: str, key: str) -> Any:
    if isinstance(group, Mapping) and name in group:
        return group[name]
    if isinstance(group, list) and name.isdigit() and int(name) < len(group):
        return group[int(name)]
    if not isinstance(group, (Mapping, list, tuple)) and not name.startswith("_") and hasattr(group, name):
        return getattr(group, name)
    near = difflib.get_close_matches(name, _keys(group), n=1)
    hint = f"did you mean {before}{near[0]}?" if near else f"there are {_names(group, before)}"
    raise UserError(f"the task has no setting {key}: {hint} Settings of the training begin with agent.")


def _keys(group: Any) -> list[str]:
    if isinstance(group, Mapping):
        return [str(key) for key in group]
    if isinstance(group, (list, tuple)):
        return [str(number) for number in range(len(group))]
    return [name for name in vars(group) if not name.startswith("_")] if hasattr(group, "__dict__") else []


def _names(group: Any, before: str) -> str:
    return f"{', '.join(f'{before}{name}' for name in _keys(group)) or 'none'}."


def _as(now: Any, value: Any, key: str) -> Any:
    """The value in the type of what is there now."""
    if (
        now is None
        or value is None
        or (isinstance(value, type(now)) and isinstance(value, bool) == isinstance(now, bool))
    ):
        return value
    if isinstance(now, float) and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(now, tuple) and isinstance(value, list):
        return tuple(value)
    if isinstance(now, Tensor) and isinstance(value, (int, float, list)):
        return torch.as_tensor(value, dtype=now.dtype, device=now.device)
    raise UserError(f"{key} must be of the type {type(now).__name__}, as {now!r} is, got {value!r}")
