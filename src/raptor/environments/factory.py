"""Environments by the names of their parts: the keyword arguments that all interfaces share."""

from __future__ import annotations

import dataclasses
import os
import pkgutil
from pathlib import Path
from typing import Any

import torch

from raptor.core.errors import UserError
from raptor.environments.quadrotor_env import QuadrotorEnv
from raptor.quadrotor.parameters import Quadrotors
from raptor.quadrotor.platforms import PLATFORMS, load_platform
from raptor.quadrotor.sampling import sample_quadrotors
from raptor.tasks.reference import Lissajous, References
from raptor.tasks.task import Task
from raptor.tasks.termination import Termination

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

SIMULATORS = {"raptor": None, "l2f": "raptor.interop.l2f:L2FSimulator"}
"""Simulators by name, as import strings; None is the dynamics of this package."""


def make_env(
    num: int,
    quadrotor: Source = "crazyflie",
    task: str | Task = "hover",
    *,
    compile: bool | None = None,
    simulator: str = "raptor",
    device: torch.device | str | None = None,
    auto_reset: bool = True,
    **overrides: Any,
) -> QuadrotorEnv:
    """Make the batched environment behind every interface.

    Args:
        num: N, number of vehicles.
        quadrotor: a platform's name, a JSON file or folder, a population, or "random" for a new vehicle in each
            episode. Fewer vehicles than N fly in turn: vehicle i of V flies in the environments i, i + V, ...
        task: a `Task`, or "hover", "track" or "paper".
        compile: see `QuadrotorEnv`.
        simulator: "raptor", or "l2f" for the original one (extra `l2f`).
        device: of the simulation.
        auto_reset: see `QuadrotorEnv`.
        overrides: fields of the task, for instance `termination=Termination(enabled=False)`.

    Raises:
        UserError: there is no such quadrotor, task, field, simulator or device.
    """
    task = make_task(task, overrides)
    if simulator not in SIMULATORS:
        raise UserError(f"simulator must be one of {', '.join(SIMULATORS)}, got {simulator!r}")
    home = SIMULATORS[simulator]
    return QuadrotorEnv(
        load_quadrotors(quadrotor, num),
        task,
        device=device,
        compile=compile,
        auto_reset=auto_reset,
        resample=isinstance(quadrotor, str) and quadrotor == "random",
        simulator=None if home is None else pkgutil.resolve_name(home)(num, task),
    )


def make_task(task: str | Task, overrides: dict[str, Any]) -> Task:
    """A task by name or as it is, with some of its fields replaced."""
    if isinstance(task, str):
        if task not in TASKS:
            raise UserError(f"there is no task {task!r}: choose one of {', '.join(TASKS)}, or give a Task")
        task = TASKS[task]
    allowed = [field.name for field in dataclasses.fields(Task)]
    for name in overrides.keys() - allowed:
        raise UserError(
            f"{name} is neither a keyword argument of the environment nor a field of the task: the fields are "
            f"{', '.join(allowed)}"
        )
    return dataclasses.replace(task, **overrides)


def load_quadrotors(source: Source, num: int) -> Quadrotors:
    """Load `num` vehicles, see `make_env`; of "random", only the number counts."""
    if isinstance(source, Quadrotors):
        quadrotors = source
    elif source == "random":
        quadrotors = sample_quadrotors(num)
    elif source in PLATFORMS:
        quadrotors = load_platform(str(source))
    elif Path(source).exists():
        quadrotors = Quadrotors.from_json(source)
    else:
        raise UserError(
            f'there is no quadrotor {os.fspath(source)!r}: give a JSON file, a folder of them, "random", or one of '
            f"{', '.join(PLATFORMS)}"
        )
    if len(quadrotors) > num:
        raise UserError(
            f"{len(quadrotors)} quadrotors were given, but the environment flies {num}: choose one, or make as many "
            "environments with gymnasium.make_vec(..., num_envs=...)"
        )
    return quadrotors[torch.arange(num) % len(quadrotors)]
