"""References: where the vehicle is asked to be, at each time.

A target is the sum of a point, a Langevin walk, a Lissajous figure and a path through way-points. Each of them is zero
unless an episode asks for it, so one formula serves every vehicle of a population, whatever it tracks.
"""

from __future__ import annotations

import dataclasses
import itertools

import torch
from torch import Tensor

from raptor.config.settings import Settings, ascending, between, not_negative, positive, setting
from raptor.core.compilation import register
from raptor.core.errors import UserError
from raptor.quadrotor.state import component_major, components, from_components
from raptor.tasks.initial_state import uniform


@dataclasses.dataclass(frozen=True)
class Langevin(Settings):
    """A damped, randomly driven oscillator per axis, smoothed. Source: l2f `langevin`."""

    gamma: float = setting(1.0, "1/s, damping", not_negative)
    omega: float = setting(2.0, "rad/s, natural frequency", not_negative)
    sigma: float = setting(0.5, "m s^-3/2, drive", not_negative)
    alpha: float = setting(0.01, "smoothing of the velocity per step", between(0, 1))


@dataclasses.dataclass(frozen=True)
class Lissajous(Settings):
    """Ranges from which a figure is drawn: A sin(a phi), with phi running through 2 pi in `interval`."""

    amplitude: tuple[tuple[float, float, float], tuple[float, float, float]] = setting(
        ((0.5, 1.0, 0.0), (0.5, 1.0, 0.0)), "m"
    )
    frequency: tuple[float, float, float] = setting((2.0, 1.0, 1.0), "turns per interval")
    interval: tuple[float, float] = setting((10.0, 10.0), "s", ascending(positive))
    ramp: tuple[float, float] = setting((3.0, 3.0), "s, to full speed", ascending(not_negative))


@dataclasses.dataclass(frozen=True)
class WayPoints(Settings):
    """A path of straight legs at constant speed, starting at the origin."""

    points: tuple[tuple[float, float, float], ...] = setting((), "m, world")
    speed: float = setting(0.5, "m/s", positive)


@dataclasses.dataclass(frozen=True)
class References(Settings):
    """Mixture of references: the shares say how many episodes track which; the rest hold the origin."""

    langevin_share: float = setting(0.5, "of episodes, that follow a Langevin walk", between(0, 1))
    lissajous_share: float = setting(0.0, "of episodes, that follow a Lissajous figure", between(0, 1))
    way_points_share: float = setting(0.0, "of episodes, that follow the way-points", between(0, 1))
    langevin: Langevin = Langevin()
    lissajous: Lissajous = Lissajous()
    way_points: WayPoints = WayPoints()

    def __post_init__(self) -> None:
        super().__post_init__()
        shares = (self.langevin_share, self.lissajous_share, self.way_points_share)
        if min(shares) < 0 or sum(shares) > 1 + 1e-9:
            raise UserError(f"shares of references must be >= 0 and sum to at most 1, got {shares}")


@register()
@dataclasses.dataclass(frozen=True)
class Reference:
    """The references of N vehicles at one moment, and what they need to go on."""

    position: Tensor  # (..., 3) m, world; the target
    velocity: Tensor  # (..., 3) m/s, world; its velocity
    time: Tensor  # (...) s since the start
    langevin_sigma: Tensor  # (...) drive; 0 where no Langevin walk is asked for
    walk: Tensor  # (..., 12) smoothed position, smoothed velocity, raw position, raw velocity
    amplitude: Tensor  # (..., 3) m; 0 where no figure is asked for
    rate: Tensor  # (..., 3) rad/s at full speed, per axis
    ramp: Tensor  # (...) s
    legs: Tensor  # (..., 3 L) m; displacement of each leg of the way-point path; 0 where none is asked for


def leg_durations(config: WayPoints) -> list[float]:
    """Seconds spent on each leg between consecutive way-points, the first one starting at the origin."""
    points = [(0.0, 0.0, 0.0), *config.points]
    return [
        max(sum((b - a) ** 2 for a, b in zip(p, q, strict=True)) ** 0.5 / config.speed, 1e-6)
        for p, q in itertools.pairwise(points)
    ]


def sample_reference(shape: tuple[int, ...], config: References, like: Tensor, generator: torch.Generator) -> Reference:
    """Draw the references of one episode each for a population of the given leading shape."""

    def between(low: float, high: float) -> Tensor:
        return low + (high - low) * uniform(shape, like, generator)

    kind = uniform(shape, like, generator)
    langevin = (kind < config.langevin_share).to(like.dtype)
    lissajous_end = config.langevin_share + config.lissajous_share
    lissajous = ((kind >= config.langevin_share) & (kind < lissajous_end)).to(like.dtype)
    way_points = ((kind >= lissajous_end) & (kind < lissajous_end + config.way_points_share)).to(like.dtype)
    figure = config.lissajous
    interval = between(*figure.interval)
    amplitude = [lissajous * between(low, high) for low, high in zip(*figure.amplitude, strict=True)]
    points = [(0.0, 0.0, 0.0), *config.way_points.points]
    legs = [way_points * (b - a) for p, q in itertools.pairwise(points) for a, b in zip(p, q, strict=True)]
    zero = torch.zeros((*shape, 3), dtype=like.dtype, device=like.device)
    return _targets(
        Reference(
            position=zero,
            velocity=zero,
            time=torch.zeros(shape, dtype=like.dtype, device=like.device),
            langevin_sigma=config.langevin.sigma * langevin,
            walk=component_major(torch.zeros((*shape, 12), dtype=like.dtype, device=like.device)),
            amplitude=from_components(amplitude),
            rate=from_components([2 * torch.pi * turns / interval for turns in figure.frequency]),
            ramp=between(*figure.ramp),
            legs=from_components(legs) if legs else zero[..., :0],
        ),
        config,
    )


def advance_reference(reference: Reference, config: References, noise: Tensor, dt: float) -> Reference:
    """Move the references on by one step of dt seconds; `noise` is (..., 3) standard normal."""
    langevin = config.langevin
    walk = components(reference.walk)
    smoothed_position, smoothed_velocity, position, velocity = [], [], [], []
    for x, v, raw_x, raw_v, n in zip(walk[:3], walk[3:6], walk[6:9], walk[9:], components(noise), strict=True):
        drift = -langevin.gamma * raw_v - langevin.omega**2 * raw_x
        next_raw_v = raw_v + drift * dt + reference.langevin_sigma * dt**0.5 * n
        next_v = langevin.alpha * next_raw_v + (1 - langevin.alpha) * v
        smoothed_position.append(x + next_v * dt)
        smoothed_velocity.append(next_v)
        position.append(raw_x + next_raw_v * dt)
        velocity.append(next_raw_v)
    moved = dataclasses.replace(
        reference,
        time=reference.time + dt,
        walk=from_components([*smoothed_position, *smoothed_velocity, *position, *velocity]),
    )
    return _targets(moved, config)


def _targets(reference: Reference, config: References) -> Reference:
    """Fill in position and velocity of the target at the reference's time."""
    walk = components(reference.walk)
    position, velocity = list(walk[:3]), list(walk[3:6])
    t, ramp = reference.time, reference.ramp
    if config.lissajous_share > 0:
        # The figure's clock runs up to full speed within the ramp. Source: rl-tools' Lissajous trajectory.
        ramped = torch.minimum(t, ramp)
        speed = torch.where(ramp > 0, ramped / ramp.clamp(min=1e-9), torch.ones_like(t))
        progress = speed * ramped / 2 + (t - ramp).clamp(min=0)
        for i, (a, rate) in enumerate(zip(components(reference.amplitude), components(reference.rate), strict=True)):
            position[i] = position[i] + a * torch.sin(rate * progress)
            velocity[i] = velocity[i] + a * rate * speed * torch.cos(rate * progress)
    start = 0.0
    legs = components(reference.legs)
    for leg, duration in enumerate(leg_durations(config.way_points)):
        share = ((t - start) / duration).clamp(0, 1)
        moving = ((t >= start) & (t < start + duration)).to(t.dtype) / duration
        for i in range(3):
            position[i] = position[i] + legs[3 * leg + i] * share
            velocity[i] = velocity[i] + legs[3 * leg + i] * moving
        start += duration
    return dataclasses.replace(reference, position=from_components(position), velocity=from_components(velocity))
