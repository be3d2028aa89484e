"""Episodes of N vehicles: a task and the dynamics, as pure functions.

A step is: observe, act, move, rate. Only `begin_episode` and `draw_noise` are random; all else is differentiable.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from raptor.core.compilation import register
from raptor.quadrotor.dynamics import WITH_EXACT_ROTORS, Method, step
from raptor.quadrotor.parameters import Quadrotors
from raptor.quadrotor.state import State, component_major, components, from_components
from raptor.tasks.initial_state import sample_disturbance, sample_initial_state, uniform
from raptor.tasks.observation import NUM_SENSED, scaled_rotor_speed, sense, student_observation, teacher_observation
from raptor.tasks.reference import Reference, advance_reference, sample_reference, start_with_target
from raptor.tasks.reward import reward, terminated
from raptor.tasks.task import Task


@register()
@dataclasses.dataclass(frozen=True)
class Episode:
    """State of the episodes of N vehicles."""

    state: State
    reference: Reference
    force: Tensor  # (..., 3) N, world; constant
    torque: Tensor  # (..., 3) N m, body; constant
    previous_action: Tensor  # (..., 4) what the policy observes as its previous action
    last_action: Tensor  # (..., 4) what the reward compares the next action with
    noise_scale: Tensor  # (...) factor on the sensor noise of this vehicle
    observation_delay: Tensor  # (...) steps, as floating-point numbers
    action_delay: Tensor  # (...) steps, as floating-point numbers
    sensed: tuple[Tensor, ...]  # (..., 18) each; what was sensed at this step and at the steps before, newest first
    commanded: tuple[Tensor, ...]  # (..., 4) each; actions that have not reached the motors, newest first


class Noise(NamedTuple):
    """Standard normal numbers that one step consumes."""

    reference: Tensor  # (..., 3)
    sensor: Tensor | None = None  # (..., 18); None where the sensors are perfect


class StepOutcome(NamedTuple):
    """Reward and termination of one step."""

    reward: Tensor  # (...)
    terminated: Tensor  # (...) bool


def draw_noise(task: Task, like: Tensor, generator: torch.Generator, num_steps: int = 1) -> list[Noise]:
    """Draw the noise of so many steps for a population shaped as `like` (...)."""

    def normal(size: int) -> Tensor:
        draw = torch.randn((num_steps, size, *like.shape), generator=generator, dtype=like.dtype, device=like.device)
        return draw.movedim(1, -1)

    reference = normal(3)
    sensor = normal(NUM_SENSED) if task.sensing.noisy else [None] * num_steps
    return [Noise(r, s) for r, s in zip(reference, sensor, strict=True)]


def _measure(task: Task, state: State, reference: Reference, noise_scale: Tensor, noise: Tensor | None) -> Tensor:
    clean = sense(state, reference, task.target_visible)
    if noise is None:
        return clean
    deviations = task.sensing.standard_deviations
    parts = zip(components(clean), deviations, components(noise), strict=True)
    return from_components([x + noise_scale * deviation * n for x, deviation, n in parts])


def begin_episode(task: Task, quadrotors: Quadrotors, generator: torch.Generator) -> Episode:
    """Start one episode for each vehicle.

    The first observed previous action would hold the rotors' initial speed; the first one that the reward compares with
    is zero. Source: l2f `sample_initial_state`.
    """
    like, shape = quadrotors.mass, tuple(quadrotors.shape)
    state = sample_initial_state(quadrotors, task.initial_states, generator)
    reference = sample_reference(shape, task.references, like, generator, task.episode_steps * task.dt)
    state = start_with_target(state, reference)
    force, torque = sample_disturbance(quadrotors, task.disturbances, generator)

    def draw_steps(low: int, high: int) -> Tensor:
        if high == low:
            return torch.full_like(like, low)
        return uniform(shape, like, generator, low, high + 1).floor().clamp(max=high)

    sensing = task.sensing
    noise_scale = uniform(shape, like, generator, *sensing.noise_scale)
    noise = draw_noise(task, like, generator)[0]
    held = from_components(scaled_rotor_speed(state.rotor_speed, quadrotors))
    measured = _measure(task, state, reference, noise_scale, noise.sensor)
    return Episode(
        state=state,
        reference=reference,
        force=force,
        torque=torque,
        previous_action=held,
        last_action=component_major(torch.zeros_like(held)),
        noise_scale=noise_scale,
        observation_delay=draw_steps(*sensing.observation_delay),
        action_delay=draw_steps(*sensing.action_delay),
        sensed=(measured,) * (sensing.observation_delay[1] + 1),
        commanded=(held,) * sensing.action_delay[1],
    )


def _delayed(history: tuple[Tensor, ...], delay: Tensor) -> Tensor:
    """Pick, for each vehicle, the entry of `history` (newest first) that is `delay` steps old."""
    if len(history) == 1:
        return history[0]
    chosen = components(history[0])
    for age, entry in enumerate(history[1:], start=1):
        late = delay >= age
        chosen = tuple(torch.where(late, old, new) for old, new in zip(components(entry), chosen, strict=True))
    return from_components(chosen)


def observe(episode: Episode) -> Tensor:
    """The student's observation, (..., 22)."""
    return student_observation(_delayed(episode.sensed, episode.observation_delay), episode.previous_action)


def observe_as_teacher(quadrotors: Quadrotors, episode: Episode) -> Tensor:
    """The teacher's observation, (..., 26): always the tracking error, on time and without noise."""
    sensed = sense(episode.state, episode.reference, target_visible=True)
    return teacher_observation(sensed, episode.previous_action, episode.state.rotor_speed, quadrotors)


def advance(
    task: Task,
    quadrotors: Quadrotors,
    episode: Episode,
    action: Tensor,
    noise: Noise,
    method: Method = "rk4",
    simulate: Callable[..., State] = step,
) -> tuple[Episode, StepOutcome]:
    """Apply the action (..., 4) for one step and rate it; `simulate` is `step` or takes its arguments.

    The motors get the action clipped to [-1, 1] and after its delay. A terminated episode goes on moving if it is
    advanced further.
    """
    clipped = from_components([a.clamp(-1, 1) for a in components(action)])
    fed_back = clipped if task.clip_previous_action else from_components(components(action))
    commanded = (clipped, *episode.commanded)
    motors = _delayed(commanded, episode.action_delay)
    method = WITH_EXACT_ROTORS.get(method, method) if task.exact_rotors else method
    state = simulate(
        quadrotors, episode.state, motors, task.dt, force=episode.force, torque=episode.torque, method=method
    )
    reference = advance_reference(episode.reference, task.references, noise.reference, task.dt)
    over = terminated(task.termination, quadrotors, state, reference)
    before = episode.state, fed_back, state, episode.last_action, episode.reference
    value = reward(task.reward, quadrotors, *before, over, task.dt)
    measured = _measure(task, state, reference, episode.noise_scale, noise.sensor)
    moved = dataclasses.replace(
        episode,
        state=state,
        reference=reference,
        previous_action=fed_back,
        last_action=fed_back,
        sensed=(measured, *episode.sensed)[: len(episode.sensed)],
        commanded=commanded[: len(episode.commanded)],
    )
    return moved, StepOutcome(value, over)
