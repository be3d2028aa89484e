"""References: the target of each vehicle at each time.

A target is the sum of a Langevin walk, a Lissajous figure, a path through way-points and a trajectory, each of them
zero unless the episode has one, so that one formula serves every vehicle of a population.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence

import torch
from torch import Tensor

from raptor.config.settings import Settings, ascending, between, not_negative, positive, setting
from raptor.core.compilation import register
from raptor.core.errors import UserError
from raptor.quadrotor.state import State, component_major, components, from_components, rotation_matrix
from raptor.tasks.initial_state import uniform
from raptor.tasks.terms import Terms
from raptor.tasks.trajectories import Course, Trajectory

Axes = tuple[float, float, float]  # x, y, z


@dataclasses.dataclass(frozen=True)
class Langevin(Settings):
    """A damped oscillator per axis, driven by noise and smoothed. Source: l2f `langevin`."""

    gamma: float = setting(1.0, "1/s, damping", not_negative)
    omega: float = setting(2.0, "rad/s, natural frequency", not_negative)
    sigma: float = setting(0.5, "m s^-3/2, intensity of the noise", not_negative)
    alpha: float = setting(0.01, "weight of the new velocity in the smoothed one, per step", between(0, 1))


@dataclasses.dataclass(frozen=True)
class Lissajous(Settings):
    """Ranges of the figures A sin(a phi), with phi from 0 to 2 pi in `interval`."""

    amplitude: tuple[Axes, Axes] = setting(((0.5, 1.0, 0.0), (0.5, 1.0, 0.0)), "m; lowest and highest of each axis")
    frequency: Axes = setting((2.0, 1.0, 1.0), "oscillations per interval, of each axis")
    interval: tuple[float, float] = setting((10.0, 10.0), "s, duration of a figure", ascending(positive))
    ramp: tuple[float, float] = setting((3.0, 3.0), "s, until full speed", ascending(not_negative))


@dataclasses.dataclass(frozen=True)
class WayPoints(Settings):
    """A path of straight legs at constant speed, starting at the origin."""

    points: tuple[Axes, ...] = setting((), "m, world")
    speed: float = setting(0.5, "m/s", positive)

    def legs(self) -> list[tuple[Axes, float]]:
        """Displacement (m) and duration (s) of each leg."""
        places = itertools.pairwise([(0.0, 0.0, 0.0), *self.points])
        legs: list[Axes] = [(q[0] - p[0], q[1] - p[1], q[2] - p[2]) for p, q in places]
        return [(leg, max(sum(x**2 for x in leg) ** 0.5 / self.speed, 1e-6)) for leg in legs]


@dataclasses.dataclass(frozen=True)
class References(Settings):
    """Which episodes track which reference; the others hold the origin."""

    langevin_share: float = setting(0.5, "fraction of episodes that follow a Langevin walk", between(0, 1))
    lissajous_share: float = setting(0.0, "fraction of episodes that follow a Lissajous figure", between(0, 1))
    way_points_share: float = setting(0.0, "fraction of episodes that follow the way-points", between(0, 1))
    trajectory_share: float = setting(
        0.5,
        "fraction of episodes that follow the trajectory, if there is one; the others divide the rest",
        between(0, 1),
    )
    langevin: Langevin = Langevin()
    lissajous: Lissajous = Lissajous()
    way_points: WayPoints = WayPoints()
    trajectory: Trajectory = Trajectory()

    def __post_init__(self) -> None:
        super().__post_init__()
        shares = (self.langevin_share, self.lissajous_share, self.way_points_share)
        if sum(shares) > 1 + 1e-9:
            raise UserError(f"shares of references must sum to at most 1, got {shares}")

    def with_settings(self, extra: Terms) -> References:
        """The same with the settings that terms of one's own give the trajectory's function."""
        trajectory = self.trajectory.with_settings(extra)
        return self if trajectory is self.trajectory else dataclasses.replace(self, trajectory=trajectory)


@register()
@dataclasses.dataclass(frozen=True)
class Reference:
    """The references of N vehicles at one moment."""

    position: Tensor  # (..., 3) m, world; of the target
    velocity: Tensor  # (..., 3) m/s, world; of the target
    time: Tensor  # (...) s since the start
    langevin_sigma: Tensor  # (...) m s^-3/2, intensity of the noise; 0 without a Langevin walk
    walk: Tensor  # (..., 12) smoothed position, smoothed velocity, raw position, raw velocity
    amplitude: Tensor  # (..., 3) m; 0 without a figure
    rate: Tensor  # (..., 3) rad/s at full speed, per axis
    ramp: Tensor  # (...) s
    legs: Tensor  # (..., 3 L) m; displacement of each leg of the way-point path; 0 without one
    course: tuple[Course, ...] = ()  # how the trajectory is followed, where the task has one

    @property
    def yaw(self) -> Tensor | None:
        """(...) rad; of the target, or None where the task has no yaw."""
        return self.course[0].heading[0] if self.course and self.course[0].heading else None

    @property
    def yaw_rate(self) -> Tensor | None:
        """(...) rad/s; of the target, or None where the task has no yaw."""
        return self.course[0].heading[1] if self.course and self.course[0].heading else None

    def from_world(self, vector: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Components (...) of a vector in the world, as they are in the frame that is turned by the target's yaw."""
        if self.yaw is None:
            return tuple(vector)
        (x, y, z), cos, sin = vector, torch.cos(self.yaw), torch.sin(self.yaw)
        return cos * x + sin * y, cos * y - sin * x, z

    def orientation_from_world(self, orientation: Tensor) -> Tensor:
        """Quaternions (..., 4), body -> world, as they are in the frame that is turned by the target's yaw."""
        if self.yaw is None:
            return orientation
        (w, x, y, z), cos, sin = components(orientation), torch.cos(self.yaw / 2), torch.sin(self.yaw / 2)
        return from_components([cos * w + sin * z, cos * x + sin * y, cos * y - sin * x, cos * z - sin * w])


def sample_reference(
    shape: tuple[int, ...], config: References, like: Tensor, generator: torch.Generator, episode_s: float = 0.0
) -> Reference:
    """Draw the references of one episode each, of `episode_s` seconds, for a population of the given leading shape."""

    def draw(low: float, high: float) -> Tensor:
        return uniform(shape, like, generator, low, high)

    def chosen(low: float, high: float) -> Tensor:
        return ((kind >= low) & (kind < high)).to(like.dtype)

    kind, figure = draw(0, 1), config.lissajous
    ends = list(itertools.accumulate((config.langevin_share, config.lissajous_share, config.way_points_share)))
    rest = 1.0 if config.trajectory.source is None else 1 - config.trajectory_share
    ends = [rest * end for end in ends]
    langevin, lissajous, way_points = (chosen(low, high) for low, high in itertools.pairwise([0.0, *ends]))
    interval = draw(*figure.interval)
    amplitude = [lissajous * draw(low, high) for low, high in zip(*figure.amplitude, strict=True)]
    legs = [way_points * x for leg, _ in config.way_points.legs() for x in leg]
    zero = like.new_zeros(*shape, 3)
    drawn = Reference(
        position=zero,
        velocity=zero,
        time=like.new_zeros(shape),
        langevin_sigma=config.langevin.sigma * langevin,
        walk=component_major(like.new_zeros(*shape, 12)),
        amplitude=from_components(amplitude),
        rate=from_components([2 * torch.pi * turns / interval for turns in figure.frequency]),
        ramp=draw(*figure.ramp),
        legs=from_components(legs) if legs else zero[..., :0],
    )
    if config.trajectory.source is not None:
        course = Course.draw(config.trajectory, chosen(rest, torch.inf), generator, episode_s)
        drawn = dataclasses.replace(drawn, course=(course,))
    return _targets(drawn, config)


def start_with_target(state: State, reference: Reference) -> State:
    """States drawn about the origin, moved to be about the motion and the yaw of targets that follow the trajectory."""
    if not reference.course:
        return state
    follows = reference.course[0].scale != 0
    pairs = zip(components(state.linear_velocity), components(reference.velocity), strict=True)
    velocity = from_components([torch.where(follows, v + own, v) for v, own in pairs])
    state = dataclasses.replace(state, linear_velocity=velocity)
    if reference.yaw is None or reference.yaw_rate is None:
        return state
    (w, x, y, z), cos, sin = components(state.orientation), torch.cos(reference.yaw / 2), torch.sin(reference.yaw / 2)
    vertical = components(rotation_matrix(state.orientation))[6:]  # the world's z axis in the body frame
    spun = zip(components(state.angular_velocity), vertical, strict=True)
    return dataclasses.replace(
        state,
        orientation=from_components([cos * w - sin * z, cos * x - sin * y, cos * y + sin * x, cos * z + sin * w]),
        angular_velocity=from_components([rate + reference.yaw_rate * axis for rate, axis in spun]),
    )


def advance_reference(reference: Reference, config: References, noise: Tensor, dt: float | Tensor) -> Reference:
    """Move the references on by one step of dt seconds, or (...) of each; `noise` is (..., 3) standard normal."""
    langevin, walk, axes = config.langevin, components(reference.walk), []
    for x, v, raw_x, raw_v, n in zip(walk[:3], walk[3:6], walk[6:9], walk[9:], components(noise), strict=True):
        drift = -langevin.gamma * raw_v - langevin.omega**2 * raw_x
        next_raw_v = raw_v + drift * dt + reference.langevin_sigma * dt**0.5 * n
        next_v = langevin.alpha * next_raw_v + (1 - langevin.alpha) * v
        axes.append((x + next_v * dt, next_v, raw_x + next_raw_v * dt, next_raw_v))
    parts = [part for column in zip(*axes, strict=True) for part in column]
    return _targets(dataclasses.replace(reference, time=reference.time + dt, walk=from_components(parts)), config)


def look_ahead(reference: Reference, config: References, duration: float) -> Reference:
    """The targets `duration` s later; what a random walk will do is not known, so its part stays where it is."""
    return _targets(dataclasses.replace(reference, time=reference.time + duration), config)


def _targets(reference: Reference, config: References) -> Reference:
    """Position and velocity of the target at the reference's time, filled in."""
    walk, t, ramp = components(reference.walk), reference.time, reference.ramp
    position, velocity = list(walk[:3]), list(walk[3:6])
    if config.lissajous_share > 0:
        # The figure's clock runs up to full speed within the ramp. Source: rl-tools' Lissajous trajectory.
        ramped = torch.minimum(t, ramp)
        speed = torch.where(ramp > 0, ramped / ramp.clamp(min=1e-9), torch.ones_like(t))
        progress = speed * ramped / 2 + (t - ramp).clamp(min=0)
        for i, (a, rate) in enumerate(zip(components(reference.amplitude), components(reference.rate), strict=True)):
            position[i] = position[i] + a * torch.sin(rate * progress)
            velocity[i] = velocity[i] + a * rate * speed * torch.cos(rate * progress)
    start, legs = 0.0, components(reference.legs)
    for leg, (_, duration) in enumerate(config.way_points.legs()):
        flown = ((t - start) / duration).clamp(0, 1)
        moving = ((t >= start) & (t < start + duration)).to(t.dtype) / duration
        for i in range(3):
            position[i] = position[i] + legs[3 * leg + i] * flown
            velocity[i] = velocity[i] + legs[3 * leg + i] * moving
        start += duration
    if reference.course:
        course, place, fast = reference.course[0].at(config.trajectory, t)
        position = [a + b for a, b in zip(position, components(place), strict=True)]
        velocity = [a + b for a, b in zip(velocity, components(fast), strict=True)]
        reference = dataclasses.replace(reference, course=(course,))
    return dataclasses.replace(reference, position=from_components(position), velocity=from_components(velocity))
