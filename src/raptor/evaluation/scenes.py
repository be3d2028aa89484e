"""Flights that are made to be looked at."""

from __future__ import annotations

import dataclasses
import math

import torch
from torch import Tensor

from raptor.environments.episode import Episode
from raptor.evaluation.rollout import Policy, Recording, fly
from raptor.evaluation.suites import Condition, conditions, figure_eight
from raptor.quadrotor.rotation import from_axis_angle
from raptor.quadrotor.state import component_major
from raptor.tasks.initial_state import InitialStates
from raptor.tasks.observation import sense
from raptor.tasks.reference import References

RAMP = 3.0
"""s; the figure eights reach their full speed after this time."""


def record_figure_eight(
    policy: Policy,
    interval: float,
    seed: int = 0,
    device: torch.device | str = "cpu",
    lanes: int | None = None,
    compile: bool = True,
) -> Recording:
    """Fly the ramp and one whole figure with each of the nine platforms.

    Args:
        policy: who flies.
        interval: s for the figure.
        seed: of the start.
        device: where to fly.
        lanes: see `raptor.evaluation.fly`.
        compile: False runs eagerly.
    """
    condition = figure_eight(interval, 1, seed, torch.device(device))
    start, generator = condition.begin()
    num_steps = round((RAMP + interval) / condition.task.dt)
    return _record(policy, condition, start, generator, num_steps, lanes, compile)


def record_recovery(
    policy: Policy,
    num: int = 50,
    tilt: float = math.pi / 2,
    seed: int = 0,
    device: torch.device | str = "cpu",
    lanes: int | None = None,
    compile: bool = True,
) -> Recording:
    """Drop sampled quadrotors at the origin, at rest and tilted, with their rotors at the speed that would carry them.

    Args:
        policy: who is to recover.
        num: quadrotors.
        tilt: rad, about a horizontal axis that is different for each of them.
        seed: of quadrotors and axes.
        device: where to fly.
        lanes: see `raptor.evaluation.fly`.
        compile: False runs eagerly.
    """
    (condition,) = conditions("unseen", num, 1, seed, torch.device(device))
    at_rest = InitialStates(guidance=1.0)
    starts = dataclasses.replace(condition.starts, initial_states=at_rest, references=References(langevin_share=0.0))
    condition = dataclasses.replace(condition, starts=starts)
    start, generator = condition.begin()
    azimuth = 2 * math.pi * torch.rand(num, generator=generator, device=condition.quadrotors.device)
    return _record(
        policy, condition, _tilted(condition, start, azimuth, tilt), generator, condition.num_steps, lanes, compile
    )


def _tilted(condition: Condition, start: Episode, azimuth: Tensor, tilt: float) -> Episode:
    """The same start, but turned by `tilt` about a horizontal axis at `azimuth` (N,), and with rotors as in hover."""
    quadrotors = condition.quadrotors
    axis = torch.stack([azimuth.cos(), azimuth.sin(), torch.zeros_like(azimuth)], dim=-1)
    low, high = quadrotors.action_limit.unbind(-1)
    hover = quadrotors.hover_throttle
    state = dataclasses.replace(
        start.state,
        orientation=component_major(from_axis_angle(axis, torch.full_like(azimuth, tilt))),
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


def _record(
    policy: Policy,
    condition: Condition,
    start: Episode,
    generator: torch.Generator,
    num_steps: int,
    lanes: int | None,
    compile: bool,
) -> Recording:
    flights = fly(
        policy,
        condition.task,
        condition.quadrotors,
        generator,
        num_steps,
        start=start,
        lanes=lanes if compile else None,
        record=True,
        compile=compile,
    )
    assert flights.recording is not None
    return flights.recording
