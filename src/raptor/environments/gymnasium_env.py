"""The environment behind Gymnasium's interfaces, one vehicle or many, numpy in and out.

There is no second simulator here: a single vehicle is a population of one.
"""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from raptor.environments.quadrotor_env import QuadrotorEnv, Simulator
from raptor.errors import UserError
from raptor.quadrotor.dynamics import STATE_LIMIT
from raptor.quadrotor.parameters import Quadrotors
from raptor.quadrotor.platforms import PLATFORMS, platform
from raptor.quadrotor.sampling import sample_quadrotors
from raptor.tasks.observation import STUDENT_DIM
from raptor.tasks.reference import Lissajous, References
from raptor.tasks.task import Task
from raptor.tasks.termination import Termination

Floats = NDArray[np.float32]
Source = str | os.PathLike[str] | Quadrotors

TASKS = {
    "hover": Task(references=References(langevin_share=0.0)),
    "track": Task(
        references=References(
            langevin_share=0.5,
            lissajous_share=0.5,
            lissajous=Lissajous(amplitude=((0.0, 0.0, 0.0), (0.5, 1.0, 0.3)), interval=(6.5, 11.0), ramp=(1.0, 3.0)),
        ),
        termination=Termination(about_target=True),
    ),
    "paper": Task.paper(),
}
"""Tasks by name: hold the origin; follow random walks and figure eights; RAPTOR's own training task."""

SIMULATORS = ("raptor", "l2f")

OBSERVATION_SPACE = gymnasium.spaces.Box(-2 * STATE_LIMIT, 2 * STATE_LIMIT, (STUDENT_DIM,), np.float32)
"""Bounds that no observation exceeds: the simulator's own limits, not a scale to normalise by."""

ACTION_SPACE = gymnasium.spaces.Box(-1.0, 1.0, (4,), np.float32)


def make_task(task: str | Task, overrides: dict[str, Any]) -> Task:
    """A task by name or as it is, with some of its fields replaced.

    Raises:
        UserError: there is no such task, or no such field.
    """
    if isinstance(task, str):
        if task not in TASKS:
            raise UserError(f"there is no task {task!r}: choose one of {', '.join(TASKS)}, or give a Task")
        task = TASKS[task]
    allowed = [field.name for field in dataclasses.fields(Task)]
    for name in overrides:
        if name not in allowed:
            raise UserError(
                f"{name} is neither a keyword argument of the environment nor a field of the task: the fields are "
                f"{', '.join(allowed)}"
            )
    return dataclasses.replace(task, **overrides)


def load_quadrotors(source: Source, num: int) -> Quadrotors:
    """`num` vehicles: a platform's name, a JSON file or folder, a population, or "random".

    Fewer vehicles than asked for are repeated in turn. What "random" gives is a placeholder: a new vehicle is drawn for
    each episode.

    Raises:
        UserError: the name is unknown, a file cannot be read, or there are more vehicles than can fly.
    """
    if isinstance(source, Quadrotors):
        quadrotors = source
    elif source == "random":
        quadrotors = sample_quadrotors(num)
    elif source in PLATFORMS:
        quadrotors = platform(str(source))
    elif Path(source).exists():
        quadrotors = Quadrotors.from_json(source)
    else:
        raise UserError(
            f"there is no quadrotor {os.fspath(source)!r}: give a JSON file, a folder of them, \"random\", or one of "
            f"{', '.join(PLATFORMS)}"
        )
    if len(quadrotors) > num:
        raise UserError(
            f"{len(quadrotors)} quadrotors were given, but the environment flies {num}: choose one, or make as many "
            "environments with gymnasium.make_vec(..., num_envs=...)"
        )
    return quadrotors[torch.arange(num) % len(quadrotors)]


def make_env(
    num: int,
    quadrotor: Source,
    task: Task,
    auto_reset: bool,
    compile: bool,
    simulator: str,
    device: torch.device | str | None,
) -> QuadrotorEnv:
    """The batched environment behind both interfaces."""
    if simulator not in SIMULATORS:
        raise UserError(f"simulator must be one of {', '.join(SIMULATORS)}, got {simulator!r}")
    other: Simulator | None = None
    if simulator == "l2f":
        from raptor.environments.l2f import L2FSimulator

        other = L2FSimulator(num, task)
    return QuadrotorEnv(
        load_quadrotors(quadrotor, num),
        task,
        device=device,
        compile=compile,
        auto_reset=auto_reset,
        resample=isinstance(quadrotor, str) and quadrotor == "random",
        simulator=other,
    )


class GymnasiumEnv(gymnasium.Env[Floats, Floats]):
    """One quadrotor; `gymnasium.make("raptor/Hover-v0")` and its siblings make it.

    Observation (22,): position and velocity error, rotation matrix, body rates, previous action (docs/conventions.md).
    Action (4,): rotors in the order front-right, back-right, back-left, front-left. Episodes end by the task's own rules
    (`episode_steps`, `termination`); a `TimeLimit` is not needed. `info["position_error"]` is the distance from the
    target in m.

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
        observation = self.batch.reset(_torch_seed(self.np_random) if seed is not None or not self._seeded else None)
        self._seeded = True
        return observation[0].numpy(force=True), {"position_error": self.batch.position_error.item()}

    @torch.no_grad()
    def step(self, action: Floats) -> tuple[Floats, float, bool, bool, dict[str, Any]]:
        """Apply one action."""
        result = self.batch.step(torch.from_numpy(np.asarray(action, np.float32).reshape(1, -1)))
        return (
            result.observation[0].numpy(force=True),
            result.reward.item(),
            bool(result.terminated),
            bool(result.truncated),
            {"position_error": result.position_error.item()},
        )


class GymnasiumVectorEnv(gymnasium.vector.VectorEnv[Floats, Floats, NDArray[Any]]):
    """Many quadrotors, stepped at once; `gymnasium.make_vec("raptor/Hover-v0", num_envs=...)` makes it.

    By default an episode that ends begins anew within the same step: `infos["final_obs"]` then holds the last
    observation and `infos["final_info"]` the last info, as in Gymnasium's `SyncVectorEnv`.

    Args:
        num_envs: number of vehicles.
        quadrotor: as for `GymnasiumEnv`; fewer vehicles than `num_envs` fly in turn.
        task: as for `GymnasiumEnv`.
        compile: as for `GymnasiumEnv`.
        simulator: as for `GymnasiumEnv`.
        device: as for `GymnasiumEnv`.
        autoreset_mode: when an ended episode begins anew: within the same step, instead of the next one
            (`AutoresetMode.NEXT_STEP`, which Gymnasium's vector `NormalizeObservation` insists on), or by
            `reset(options={"reset_mask": ...})` only.
        max_episode_steps: replaces the task's `episode_steps`.
        render_mode: nothing is rendered.
        overrides: fields of the task.
    """

    def __init__(
        self,
        num_envs: int = 1,
        quadrotor: Source = "crazyflie",
        task: str | Task = "hover",
        compile: bool = True,
        simulator: str = "raptor",
        device: torch.device | str | None = None,
        autoreset_mode: AutoresetMode | str = AutoresetMode.SAME_STEP,
        max_episode_steps: int | None = None,
        render_mode: None = None,
        **overrides: Any,
    ) -> None:
        if max_episode_steps is not None:
            overrides["episode_steps"] = max_episode_steps
        self.autoreset_mode = AutoresetMode(autoreset_mode)
        self.metadata = {**GymnasiumEnv.metadata, "autoreset_mode": self.autoreset_mode}
        self.render_mode = render_mode
        self.num_envs = num_envs
        self.single_observation_space, self.single_action_space = OBSERVATION_SPACE, ACTION_SPACE
        self.observation_space = batch_space(OBSERVATION_SPACE, num_envs)
        self.action_space = batch_space(ACTION_SPACE, num_envs)
        auto_reset = self.autoreset_mode is AutoresetMode.SAME_STEP
        task = make_task(task, overrides)
        self.batch = make_env(num_envs, quadrotor, task, auto_reset, compile, simulator, device)
        self._seeded = False
        self._over = np.zeros(num_envs, np.bool_)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Floats, dict[str, Any]]:
        """Begin new episodes; `options={"reset_mask": mask}` says for which vehicles, all by default."""
        super().reset(seed=seed)
        mask = _reset_mask(options, self.num_envs)
        self._over = self._over & ~mask
        new_seed = _torch_seed(self.np_random) if seed is not None or not self._seeded else None
        self._seeded = True
        observation = self.batch.reset(new_seed, None if mask.all() else torch.from_numpy(mask))
        return _array(observation), _infos(_array(self.batch.position_error), mask)

    @torch.no_grad()
    def step(
        self, actions: Floats
    ) -> tuple[Floats, NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_], dict[str, Any]]:
        """Apply one action to each vehicle."""
        result = self.batch.step(torch.from_numpy(np.asarray(actions, np.float32)))
        reward = _array(result.reward).astype(np.float64)
        terminated, truncated = _array(result.terminated), _array(result.truncated)
        everything = np.ones(self.num_envs, np.bool_)
        if self.autoreset_mode is AutoresetMode.NEXT_STEP and self._over.any():
            # What these vehicles just did does not count: this step is their new episode's first moment.
            again = self._over
            reward, terminated, truncated = np.where(again, 0.0, reward), terminated & ~again, truncated & ~again
            observation = self.batch.reset(mask=torch.from_numpy(again))
            self._over = terminated | truncated
            infos = _infos(_array(self.batch.position_error), everything)
            return _array(observation), reward, terminated, truncated, infos
        self._over = terminated | truncated
        if self.autoreset_mode is not AutoresetMode.SAME_STEP or not self._over.any():
            infos = _infos(_array(result.position_error), everything)
            return _array(result.observation), reward, terminated, truncated, infos
        infos = _infos(_array(self.batch.position_error), everything)
        infos.update(
            final_obs=_objects(_array(result.final_observation), self._over),
            _final_obs=self._over.copy(),
            final_info=_infos(_array(result.position_error), self._over),
            _final_info=self._over.copy(),
        )
        return _array(result.observation), reward, terminated, truncated, infos


def _torch_seed(generator: np.random.Generator) -> int:
    return int(generator.integers(2**62))


def _array(tensor: torch.Tensor) -> NDArray[Any]:
    return np.ascontiguousarray(tensor.numpy(force=True))


def _infos(position_error: Floats, mask: NDArray[np.bool_]) -> dict[str, Any]:
    """Infos of the vehicles in `mask`, laid out as Gymnasium's vector environments do."""
    return {"position_error": np.where(mask, position_error, 0.0).astype(np.float64), "_position_error": mask.copy()}


def _objects(rows: Floats, mask: NDArray[np.bool_]) -> NDArray[np.object_]:
    objects = np.full(len(rows), None, dtype=object)
    for index in np.flatnonzero(mask):
        objects[index] = rows[index].copy()
    return objects


def _reset_mask(options: dict[str, Any] | None, num: int) -> NDArray[np.bool_]:
    if options is None or "reset_mask" not in options:
        return np.ones(num, np.bool_)
    mask = options["reset_mask"]
    if not isinstance(mask, np.ndarray) or mask.dtype != np.bool_ or mask.shape != (num,) or not mask.any():
        raise UserError(f"options['reset_mask'] must be a numpy array of {num} booleans, at least one of them True")
    return mask
