"""Rollouts that are made to be looked at."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import torch

from raptor.environments.collectors import Recorder, Recording
from raptor.environments.controllers import Policy
from raptor.evaluation.evaluator import fly
from raptor.evaluation.suites import FIGURE_EIGHT_INTERVALS, begin_together, conditions, figure_eight
from raptor.quadrotor.platforms import PLATFORMS
from raptor.quadrotor.state import component_major, from_axis_angle
from raptor.tasks.initial_state import InitialStates
from raptor.tasks.observation import sense
from raptor.tasks.reference import Lissajous, References

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
    """Record the ramp and one whole figure of each speed (s for a figure) with each of the nine platforms.

    Vehicles are in the order of `PLATFORMS`; `pad_to` as in `raptor.environments.rollout`.
    """
    group = [figure_eight(interval, 1, seed, torch.device(device)) for interval in intervals]
    dt, places = group[0].task.dt, len(PLATFORMS)
    longest = round((RAMP + max(intervals)) / dt)
    recorder = Recorder(dt, places * len(group))
    fly(policy, group[0].task, begin_together(group), (longest, 0), pad_to, compile, recorder)
    whole = recorder.recording
    return {
        interval: whole[: round((RAMP + interval) / dt) + 1, index * places : (index + 1) * places]
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

    The seed is that of the quadrotors, and of the horizontal axis that each is tilted about.
    """
    (condition,) = conditions("unseen", num, 1, seed, torch.device(device))
    at_rest = InitialStates(guidance=1.0)
    starts = dataclasses.replace(condition.starts, initial_states=at_rest, references=References(langevin_share=0.0))
    start, generator = dataclasses.replace(condition, starts=starts).begin()
    task, quadrotors = condition.task, condition.quadrotors
    azimuth = 2 * math.pi * torch.rand(num, generator=generator, device=quadrotors.device)
    axis = torch.stack([azimuth.cos(), azimuth.sin(), torch.zeros_like(azimuth)], dim=-1)
    low, high = quadrotors.action_limit.unbind(-1)
    hover = quadrotors.hover_throttle
    state = dataclasses.replace(
        start.state,
        orientation=component_major(from_axis_angle(axis, torch.full_like(azimuth, math.pi / 2))),
        rotor_speed=component_major((low + (high - low) * hover).unsqueeze(-1).expand(-1, 4)),
    )
    held = component_major((2 * hover - 1).unsqueeze(-1).expand(-1, 4))
    seen = sense(state, start.reference, task.target_visible)
    sensed, commanded = (seen,) * len(start.sensed), (held,) * len(start.commanded)
    start = dataclasses.replace(start, state=state, previous_action=held, sensed=sensed, commanded=commanded)
    recorder = Recorder(task.dt, num)
    fly(policy, task, (quadrotors, start, generator), (condition.num_steps, 0), pad_to, compile, recorder)
    return recorder.recording
