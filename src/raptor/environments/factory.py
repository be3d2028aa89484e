"""What the keyword arguments of the Gymnasium environments stand for: tasks and quadrotors by name."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any

import torch

from raptor.core.errors import UserError
from raptor.environments.quadrotor_env import QuadrotorEnv, Simulator
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

SIMULATORS = ("raptor", "l2f")


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

    Fewer vehicles than asked for are repeated in turn. With "random", the environment draws a new vehicle for each
    episode; what is returned here only says how many fly.

    Raises:
        UserError: the name is unknown, a file cannot be read, or there are more vehicles than can fly.
    """
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
        from raptor.interop.l2f import L2FSimulator

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
