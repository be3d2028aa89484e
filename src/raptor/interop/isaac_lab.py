"""Isaac Lab's tasks as a `VecEnv`.

Isaac Lab is imported within functions: `AppLauncher` starts the simulator, and nothing else may be imported before.
"""

from __future__ import annotations

import argparse
import contextlib
import difflib
import importlib.util
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import gymnasium
import torch
from torch import Tensor

from raptor.core.errors import UserError
from raptor.environments.vec_env import VecEnv
from raptor.interop.from_gymnasium import import_registered
from raptor.training.distillation.config import EnvDistillConfig

PACKAGES = ("isaaclab", "isaaclab_tasks", "isaaclab_rl")
RSL_RL_SETTINGS = "rsl_rl_cfg_entry_point"  # the key under which a task registers the settings of its rsl_rl agent


def check_installed() -> None:
    """Raise a `UserError` that says how to get Isaac Lab if it is not installed."""
    if missing := [package for package in PACKAGES if importlib.util.find_spec(package) is None]:
        raise UserError(
            f"Isaac Lab is not installed in this Python ({', '.join(missing)} missing): install it as "
            "https://isaac-sim.github.io/IsaacLab says, pip install raptor-python there, and run "
            "./isaaclab.sh -p -m raptor distill-isaac; any other environment goes with raptor distill"
        )


def launcher_arguments(words: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """The arguments of the simulator's launcher on a command line, and the rest."""
    from isaaclab.app import AppLauncher

    parser = argparse.ArgumentParser(add_help=False, exit_on_error=False, allow_abbrev=False)
    AppLauncher.add_app_launcher_args(parser)
    try:
        arguments, rest = parser.parse_known_args(list(words))
    except argparse.ArgumentError as error:
        raise UserError(f"Isaac Lab's launcher refuses its arguments: {error}") from error
    return arguments, rest


@contextlib.contextmanager
def isaac_env(
    config: EnvDistillConfig, settings: Mapping[str, Any], arguments: argparse.Namespace, headless: bool = True
) -> Iterator[VecEnv]:
    """Start the simulator and make the task's environment, which also has `reset(seed)`, `render` and `close`.

    Both are closed when the block ends well, not after an error: closing the simulator may end the process before the
    error is reported. The settings of the task are by dotted key; the arguments are those of `launcher_arguments`.
    """
    from isaaclab.app import AppLauncher

    arguments.headless, arguments.device = headless, config.device
    if config.video:
        arguments.enable_cameras = True
    app = AppLauncher(arguments).app
    import isaaclab_tasks  # noqa: F401 - registers the tasks
    from isaaclab.envs import DirectMARLEnv, multi_agent_to_single_agent
    from isaaclab_rl.rsl_rl import RslRlVecEnvWrapper
    from isaaclab_tasks.utils import load_cfg_from_registry, parse_env_cfg

    name = import_registered(str(config.task))
    if name not in gymnasium.registry:
        known = [task for task in gymnasium.registry if "env_cfg_entry_point" in gymnasium.registry[task].kwargs]
        near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(near)}?" if near else f"it knows {', '.join(sorted(known)) or 'none'}"
        raise UserError(f"Isaac Lab knows no task {name!r}: {hint}")
    cfg = parse_env_cfg(name, device=config.device, num_envs=config.num_envs)
    cfg.seed = config.seed
    for key, value in settings.items():
        override(cfg, key, value)
    if config.num_envs is not None:  # as in Isaac Lab, the flag counts over the settings
        cfg.scene.num_envs = config.num_envs
    env = gymnasium.make(name, cfg=cfg, render_mode="rgb_array" if config.video else None)
    if isinstance(env.unwrapped, DirectMARLEnv):
        env = multi_agent_to_single_agent(env)

    class IsaacVecEnv(RslRlVecEnvWrapper):  # type: ignore[misc]  # with a reset that takes a seed, and pictures
        def reset(self, seed: int | None = None) -> Any:
            return self.env.reset(seed=seed)

        def render(self) -> Any:
            return self.env.render()

    agent = {}
    with contextlib.suppress(ValueError):  # a task without settings of an rsl_rl agent
        agent = load_cfg_from_registry(name, RSL_RL_SETTINGS)
    clip = agent.get("clip_actions") if isinstance(agent, dict) else getattr(agent, "clip_actions", None)
    made = IsaacVecEnv(env, clip_actions=clip)
    yield made
    made.close()
    app.close()


def override(cfg: Any, key: str, value: Any) -> None:
    """Set one setting of a task's configuration (nested objects, dictionaries and lists), as Hydra does.

    The key is dotted; a number is the place in a list. The value is of the setting's type, or None; that of a group is
    settings by name, or None to remove it.
    """
    *path, last = key.split(".")
    inner, before = cfg, ""
    for name in path:
        inner, before = _entry(inner, name, before, key), f"{before}{name}."
    now = _entry(inner, last, before, key)
    if value is not None and (isinstance(now, Mapping) or hasattr(now, "__dataclass_fields__")):
        if not isinstance(value, Mapping):
            raise UserError(f"{key} is a group of the task's settings: give one of {_names(now, f'{key}.')}")
        for name, part in value.items():
            override(cfg, f"{key}.{name}", part)
        return
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
        return [str(name) for name in group]
    if isinstance(group, (list, tuple)):
        return [str(number) for number in range(len(group))]
    return [name for name in getattr(group, "__dict__", ()) if not name.startswith("_")]


def _names(group: Any, before: str) -> str:
    return f"{', '.join(f'{before}{name}' for name in _keys(group)) or 'none'}."


def _as(now: Any, value: Any, key: str) -> Any:
    """The value in the type of the present one."""
    same = isinstance(value, type(now)) and isinstance(value, bool) == isinstance(now, bool)
    if now is None or value is None or same:
        return value
    if isinstance(now, float) and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(now, tuple) and isinstance(value, list):
        return tuple(value)
    if isinstance(now, Tensor) and isinstance(value, (int, float, list)):
        return torch.as_tensor(value, dtype=now.dtype, device=now.device)
    raise UserError(f"{key} must be of the type {type(now).__name__}, as {now!r} is, got {value!r}")
