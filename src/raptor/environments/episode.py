"""Episodes of N vehicles: a task and the dynamics, as pure functions.

A step is: observe, act, move, rate. Only `begin_episode` and `draw_noise` are random; all else is differentiable.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from raptor.core.compilation import register
from raptor.quadrotor.dynamics import WITH_EXACT_ROTORS, Method, step
from raptor.quadrotor.parameters import Quadrotors
from raptor.quadrotor.state import State, component_major, components, from_components
from raptor.tasks.components import compose
from raptor.tasks.imperfections import (
    Imperfections,
    Shares,
    biased,
    drag_force,
    draw_first_action,
    draw_imperfections,
    draw_steps,
    limited,
    next_gust,
    thrust_factor,
)
from raptor.tasks.initial_state import sample_disturbance, sample_initial_state, uniform
from raptor.tasks.observation import (
    NUM_SENSED,
    scaled_rotor_speed,
    sense,
    split_sensed,
    student_observation,
    teacher_observation,
)
from raptor.tasks.reference import Reference, advance_reference, look_ahead, sample_reference, start_with_target
from raptor.tasks.reward import reward, terminated
from raptor.tasks.task import Task
from raptor.tasks.terms import WEIGHTED, Use
from raptor.tasks.views import DisturbanceView, ObservationView, StepView


class Own(NamedTuple):
    """What terms of one's own, and observations other than the default, carry from step to step; empty without."""

    observation: tuple[Tensor, ...] = ()  # (..., D) what the policy observes, alone
    past: tuple[Tensor, ...] = ()  # (..., K) each; components that are observed late, newest first
    memory: tuple[Tensor, ...] = ()  # (..., M) of each term that remembers
    draws: tuple[Tensor, ...] = ()  # (..., K) of each term that has draws; constant


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
    sensed: tuple[Tensor, ...]
    """(..., 18) each: what was sensed at this step and before, newest first; then (..., 3): older linear velocities."""
    commanded: tuple[Tensor, ...]  # (..., 4) each; actions that have not reached the motors, newest first
    own: Own = Own()
    imperfections: Imperfections = Imperfections()


class Noise(NamedTuple):
    """Standard normal numbers that one step consumes."""

    reference: Tensor  # (..., 3)
    sensor: Tensor | None = None  # (..., 18); None where the sensors are perfect
    lost: Tensor | None = None  # (..., 1), of samples; None where none is lost
    gust: Tensor | None = None  # (..., 3); None where the air does not change
    terms: Tensor | None = None  # (..., K), of the terms that have noise, one after the other; None where none has

    @classmethod
    def of(cls, task: Task, tensors: Sequence[Tensor]) -> Noise:
        """The noise whose tensors, without None, are these."""
        remaining = iter(tensors)
        reference, *others = (next(remaining) if size else None for size in cls.sizes(task))
        assert reference is not None
        return cls(reference, *others)

    @staticmethod
    def sizes(task: Task) -> tuple[int, ...]:
        """Width of each field."""
        sensing = task.sensing
        sensor, lost = NUM_SENSED * sensing.noisy, int(sensing.lost[1] > 0)
        return 3, sensor, lost, 3 * task.gusty, sum(use.term.noise for use in task.stateful)


class StepOutcome(NamedTuple):
    """Reward and termination of one step."""

    reward: Tensor  # (...)
    terminated: Tensor  # (...) bool
    terms: tuple[Tensor, ...] = ()  # (...) of each cost and reward term of one's own, unweighted


def draw_noise(task: Task, like: Tensor, generator: torch.Generator, num_steps: int = 1) -> list[Noise]:
    """Draw the noise of so many steps for a population shaped as `like` (...)."""

    def normal(size: int) -> Tensor | list[None]:
        if not size:
            return [None] * num_steps
        draw = torch.randn((num_steps, size, *like.shape), generator=generator, dtype=like.dtype, device=like.device)
        return draw.movedim(1, -1)

    return [Noise(*draws) for draws in zip(*map(normal, Noise.sizes(task)), strict=True)]


def _measure(
    task: Task, state: State, reference: Reference, noise_scale: Tensor, imperfections: Imperfections, noise: Noise
) -> Tensor:
    """What the flight controller makes of a sample of the sensors, (..., 18)."""
    sensed = biased(sense(state, reference, task.target_visible), imperfections)
    if noise.sensor is not None:
        deviations = task.sensing.standard_deviations
        parts = zip(components(sensed), deviations, components(noise.sensor), strict=True)
        sensed = from_components([x + noise_scale * deviation * n for x, deviation, n in parts])
    return limited(sensed, imperfections)


def begin_episode(task: Task, quadrotors: Quadrotors, generator: torch.Generator) -> Episode:
    """Start one episode for each vehicle.

    Unless the task says otherwise, the first observed previous action would hold the rotors' initial speed; the first
    one that the reward compares with is zero. Source: l2f `sample_initial_state`.
    """
    like, shape, episode_s = quadrotors.mass, tuple(quadrotors.shape), task.episode_steps * task.dt
    state = sample_initial_state(quadrotors, task.initial_states, generator)
    reference = sample_reference(shape, task.references, like, generator, episode_s)
    state = start_with_target(state, reference)
    force, torque = sample_disturbance(quadrotors, task.disturbances, generator)

    sensing, shares = task.sensing, Shares(like, generator, task.clean_share, task.each_share)
    noise_scale = shares.among(uniform(shape, like, generator, *sensing.noise_scale), 0.0, task.noise_share)
    noise = draw_noise(task, like, generator)[0]
    held = from_components(scaled_rotor_speed(state.rotor_speed, quadrotors))
    seen_late, moved_late = (
        shares.among(draw_steps(shares, *delay), 0.0) for delay in (sensing.observation_delay, sensing.action_delay)
    )
    settings = sensing, task.motors, task.air, task.deployment
    imperfections = draw_imperfections(*settings, quadrotors, shares, task.dt, episode_s)
    measured = _measure(task, state, reference, noise_scale, imperfections, noise)
    velocity = from_components(components(measured)[12:15])

    def drawn(size: int) -> Tensor:
        draw = torch.randn((size, *shape), generator=generator, dtype=like.dtype, device=like.device)
        return draw.movedim(0, -1)

    episode = Episode(
        state=state,
        reference=reference,
        force=force,
        torque=torque,
        previous_action=draw_first_action(task.deployment, held, shares),
        last_action=component_major(torch.zeros_like(held)),
        noise_scale=noise_scale,
        observation_delay=seen_late,
        action_delay=moved_late,
        sensed=(measured,) * (sensing.observation_delay[1] + 1) + (velocity,) * sensing.velocity_delay[1],
        commanded=(held,) * sensing.action_delay[1],
        own=Own(
            memory=tuple(_nothing(like, use.term.memory) for use in task.stateful if use.term.memory),
            draws=tuple(drawn(use.term.draws) for use in task.stateful if use.term.draws),
        ),
        imperfections=imperfections,
    )
    return dataclasses.replace(episode, own=look(task, quadrotors, episode, noise, None))


def _nothing(like: Tensor, size: int) -> Tensor:
    return component_major(like.new_zeros(*like.shape, size))


class _Slot(NamedTuple):
    """What a term is given of its own, see the views."""

    memory: Tensor
    noise: Tensor
    draws: Tensor


def _slots(task: Task, own: Own, noise: Noise, like: Tensor) -> dict[Use, _Slot]:
    """The slot of each term; what it has none of is of width zero."""
    uses, memory, draws, first = task.stateful, iter(own.memory), iter(own.draws), 0
    nothing, slots = like.new_zeros(*like.shape, 0), {}
    for use in uses:
        last = first + use.term.noise
        of_step = nothing if noise.terms is None else noise.terms[..., first:last]
        kept, constant = (
            next(of) if num else nothing for of, num in ((memory, use.term.memory), (draws, use.term.draws))
        )
        slots[use], first = _Slot(kept, of_step, constant), last
    return slots


def look(task: Task, quadrotors: Quadrotors, episode: Episode, noise: Noise, past: tuple[Tensor, ...] | None) -> Own:
    """What `own` is where the vehicles are now; `past` is None at the start of an episode."""
    if task.observes_default:
        return episode.own
    position, rotation, velocity, rates = split_sensed(_seen(episode))
    exact = (quadrotors, episode.state, episode.reference, task.dt)
    slots = _slots(task, episode.own, noise, quadrotors.mass)
    measured = (position, rotation, velocity, rates, episode.previous_action)
    views = {use: ObservationView(*measured, *exact, *slots[use]) for use in task.layout.uses}

    def ahead(steps: int) -> Reference:
        return look_ahead(episode.reference, task.references, steps * task.dt)

    looked = compose(task.layout, views, past, ahead)
    return episode.own._replace(
        observation=(looked.observation,),
        past=looked.past,
        memory=_remembered(task, slots, looked.memory),
    )


def _remembered(task: Task, slots: Mapping[Use, _Slot], new: Mapping[Use, Tensor]) -> tuple[Tensor, ...]:
    """The memories of all terms, some of them new."""
    kept = {use: new.get(use, slots[use].memory) for use in task.stateful if use.term.memory}
    return tuple(from_components(components(memory)) for memory in kept.values())


def _delayed(history: tuple[Tensor, ...], delay: Tensor) -> Tensor:
    """Pick, for each vehicle, the entry of `history` (newest first) that is `delay` steps old."""
    if len(history) == 1:
        return history[0]
    chosen = components(history[0])
    for age, entry in enumerate(history[1:], start=1):
        late = delay >= age
        chosen = tuple(torch.where(late, old, new) for old, new in zip(components(entry), chosen, strict=True))
    return from_components(chosen)


def _seen(episode: Episode) -> Tensor:
    """What of the sensors has arrived, (..., 18)."""
    whole = tuple(entry for entry in episode.sensed if entry.shape[-1] == NUM_SENSED)
    seen = _delayed(whole, episode.observation_delay)
    if not episode.imperfections.velocity_delay:
        return seen
    velocities = tuple(from_components(components(entry)[12:15]) for entry in whole) + episode.sensed[len(whole) :]
    late = _delayed(velocities, episode.observation_delay + episode.imperfections.velocity_delay[0])
    parts = components(seen)
    return from_components([*parts[:12], *components(late), *parts[15:]])


def _shifted(sensed: tuple[Tensor, ...], newest: Tensor) -> tuple[Tensor, ...]:
    """What was sensed, one step later."""
    whole = sum(entry.shape[-1] == NUM_SENSED for entry in sensed)
    velocities = sensed[whole:]
    if velocities:
        velocities = (from_components(components(sensed[whole - 1])[12:15]), *velocities[:-1])
    return (newest, *sensed[: whole - 1], *velocities)


def observe(episode: Episode) -> Tensor:
    """What the policy observes, (..., D): the components of `task.observation`, by default 22 numbers."""
    if episode.own.observation:
        return episode.own.observation[0]
    return student_observation(_seen(episode), episode.previous_action)


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
    force, torque, own = _disturbed(task, quadrotors, episode, motors, noise)
    imperfections = episode.imperfections
    dt = imperfections.dt[0] if imperfections.dt else task.dt
    thrust = thrust_factor(imperfections, episode.reference.time)
    more = {} if thrust is None else {"thrust": thrust}
    state = simulate(quadrotors, episode.state, motors, dt, force=force, torque=torque, method=method, **more)
    reference = advance_reference(episode.reference, task.references, noise.reference, dt)
    before, after = (episode.state, episode.reference), (state, reference)
    rated = StepView(quadrotors, *before, fed_back, episode.last_action, *after, task.dt)
    ends = [
        terminated(task.termination, quadrotors, state, reference),
        *(use(rated) for use in task.own("termination")),
    ]
    over = functools.reduce(torch.logical_or, ends)
    measured = _measure(task, state, reference, episode.noise_scale, imperfections, noise)
    if noise.lost is not None:
        is_lost = components(noise.lost)[0] < imperfections.lost[0]
        pairs = zip(components(episode.sensed[0]), components(measured), strict=True)
        measured = from_components([torch.where(is_lost, old, new) for old, new in pairs])
    moved = dataclasses.replace(
        episode,
        state=state,
        reference=reference,
        previous_action=fed_back,
        last_action=fed_back,
        sensed=_shifted(episode.sensed, measured),
        commanded=commanded[: len(episode.commanded)],
        own=own,
        imperfections=next_gust(task.air, imperfections, noise.gust, task.dt),
    )
    looked = dataclasses.replace(moved, own=look(task, quadrotors, moved, noise, own.past))
    terms = tuple(use(rated) for use in task.own(*WEIGHTED))
    return looked, StepOutcome(reward(task.reward, rated, over, task.own("reward")), over, terms)


def _disturbed(
    task: Task, quadrotors: Quadrotors, episode: Episode, motors: Tensor, noise: Noise
) -> tuple[Tensor, Tensor, Own]:
    """Force and torque on the vehicles in this step, and what the disturbances of one's own remember."""
    force, torque, uses = episode.force, episode.torque, task.own("disturbance")
    if episode.imperfections.drag:
        drag = drag_force(quadrotors, episode.state, episode.imperfections)
        force = from_components([f + d for f, d in zip(components(force), drag, strict=True)])
    if not uses:
        return force, torque, episode.own
    slots, memory = _slots(task, episode.own, noise, quadrotors.mass), dict[Use, Tensor]()
    for use in uses:
        view = DisturbanceView(quadrotors, episode.state, episode.reference, motors, task.dt, *slots[use])
        wrench = use(view)
        force = force if wrench.force is None else force + wrench.force
        torque = torque if wrench.torque is None else torque + wrench.torque
        memory |= {} if wrench.memory is None else {use: wrench.memory}
    return force, torque, episode.own._replace(memory=_remembered(task, slots, memory))
