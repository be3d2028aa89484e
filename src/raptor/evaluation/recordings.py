"""Rollouts that are made to be looked at."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from raptor.environments.collectors import PositionErrors, Recorder, Recording
from raptor.environments.controllers import Policy, controller_of
from raptor.environments.episode import Episode
from raptor.environments.rollout import rollout
from raptor.evaluation.suites import FIGURE_EIGHT_INTERVALS, Condition, begin_together, conditions, figure_eight
from raptor.quadrotor.parameters import PLATFORMS, Quadrotors
from raptor.quadrotor.state import component_major, from_axis_angle
from raptor.tasks.initial_state import InitialStates
from raptor.tasks.observation import sense
from raptor.tasks.reference import Lissajous, References
from raptor.tasks.task import Task

RAMP = Lissajous().ramp[1]
"""s; the figure eights reach their full speed after this time."""


def record_figure_eights(
    policy: Policy,
    intervals: Sequence[float] = FIGURE_EIGHT_INTERVALS,
    seed: int = 0,
    device: torch.device | str = "cpu",
    pad_to: int | None = None,
    compile: bool = True,
) -> dict[float, Recording]:
    """Record the ramp and one whole figure of each speed with each of the nine platforms.

    Args:
        policy: to be recorded.
        intervals: s for a figure.
        seed: of the starts.
        device: of the simulation.
        pad_to: see `raptor.environments.rollout`.
        compile: False runs eagerly.

    Returns:
        Recordings by interval; vehicles are in the order of `PLATFORMS`.
    """
    group = [figure_eight(interval, 1, seed, torch.device(device)) for interval in intervals]
    quadrotors, start, generator = begin_together(group)
    task, places = group[0].task, len(PLATFORMS)
    longest = round((RAMP + max(intervals)) / task.dt)
    whole = _record(policy, task, quadrotors, start, generator, longest, pad_to, compile)
    return {
        interval: whole[: round((RAMP + interval) / task.dt) + 1, index * places : (index + 1) * places]
        for index, interval in enumerate(intervals)
    }


def record_recovery(
    policy: Policy,
    num: int = 50,
    seed: int = 0,
    device: torch.device | str = "cpu",
    pad_to: int | None = None,
    compile: bool = True,
) -> Recording:
    """Drop sampled quadrotors at the origin, at rest and tilted by 90°, with rotors at the speed that would carry them.

    Args:
        policy: to be recorded.
        num: quadrotors.
        seed: of the quadrotors, and of the horizontal axis that each is tilted about.
        device: of the simulation.
        pad_to: see `raptor.environments.rollout`.
        compile: False runs eagerly.
    """
    (condition,) = conditions("unseen", num, 1, seed, torch.device(device))
    at_rest = InitialStates(guidance=1.0)
    starts = dataclasses.replace(condition.starts, initial_states=at_rest, references=References(langevin_share=0.0))
    condition = dataclasses.replace(condition, starts=starts)
    start, generator = condition.begin()
    azimuth = 2 * math.pi * torch.rand(num, generator=generator, device=condition.quadrotors.device)
    start = _tilted(condition, start, azimuth)
    return _record(policy, condition.task, condition.quadrotors, start, generator, condition.num_steps, pad_to, compile)


def _record(
    policy: Policy,
    task: Task,
    quadrotors: Quadrotors,
    start: Episode,
    generator: torch.Generator,
    num_steps: int,
    pad_to: int | None,
    compile: bool,
) -> Recording:
    recorder = Recorder(task.dt, len(quadrotors))
    rollout(
        *controller_of(policy, len(quadrotors)),
        task,
        quadrotors,
        generator,
        start=start,
        num_steps=num_steps,
        collectors=[PositionErrors.begin(quadrotors.mass, 0)],  # as in an evaluation, whose compiled step this is
        watch=recorder,
        pad_to=pad_to,
        compile=compile,
    )
    return recorder.recording


def _tilted(condition: Condition, start: Episode, azimuth: Tensor) -> Episode:
    """The same start, but turned by 90° about a horizontal axis at `azimuth` (N,), and with rotors as in hover."""
    quadrotors = condition.quadrotors
    axis = torch.stack([azimuth.cos(), azimuth.sin(), torch.zeros_like(azimuth)], dim=-1)
    low, high = quadrotors.action_limit.unbind(-1)
    hover = quadrotors.hover_throttle
    state = dataclasses.replace(
        start.state,
        orientation=component_major(from_axis_angle(axis, torch.full_like(azimuth, math.pi / 2))),
        rotor_speed=component_major((low + (high - low) * hover).unsqueeze(-1).expand(-1, 4)),
    )
    held = component_major((2 * hover - 1).unsqueeze(-1).expand(-1, 4))
    seen = sense(state, start.reference, condition.task.target_visible)
    return dataclasses.replace(
        start,
        state=state,
        previous_action=held,
        sensed=(seen,) * len(start.sensed),
        commanded=(held,) * len(start.commanded),
    )
