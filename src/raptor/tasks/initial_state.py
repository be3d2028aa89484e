"""What an episode begins with: initial states, and the constant force and torque that disturb it."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from raptor.config.settings import Settings, ascending, between, not_negative, optional, setting
from raptor.quadrotor.parameters import Quadrotors
from raptor.quadrotor.state import State, component_major, components, from_axis_angle


@dataclasses.dataclass(frozen=True)
class InitialStates(Settings):
    """Distribution of starts. The defaults are those of RAPTOR's post-training."""

    guidance: float = setting(0.1, "fraction of episodes that start at the origin, level and at rest", between(0, 1))
    max_position: float | None = setting(0.5, "m per axis; null: the vehicle's `max_position`", optional(not_negative))
    max_angle: float = setting(1.0, "rad, largest angle of rotation, about a random axis", not_negative)
    max_linear_velocity: float = setting(1.0, "m/s per axis", not_negative)
    max_angular_velocity: float = setting(1.0, "rad/s per axis", not_negative)
    rotor_speed: tuple[float, float] = setting((0.0, 0.5), "0 to 1 of the range, per rotor", ascending(between(0, 1)))


def uniform(
    shape: tuple[int, ...], like: Tensor, generator: torch.Generator, low: float = 0, high: float = 1
) -> Tensor:
    """Uniform numbers in [low, high) with the type and device of `like`."""
    return low + (high - low) * torch.rand(shape, generator=generator, dtype=like.dtype, device=like.device)


def sample_initial_state(quadrotors: Quadrotors, config: InitialStates, generator: torch.Generator) -> State:
    """Draw one start for each vehicle of a population, with a generator on its device.

    Source: l2f `sample_initial_state`, which ignores its own `max_angle` and draws the angle from 0 to 1 rad.
    """
    like, shape = quadrotors.mass, tuple(quadrotors.shape)

    def symmetric(*size: int) -> Tensor:
        return uniform((*shape, *size), like, generator, -1, 1)

    flying = (uniform(shape, like, generator) >= config.guidance).to(like.dtype).unsqueeze(-1)
    box = quadrotors.max_position.unsqueeze(-1) if config.max_position is None else config.max_position
    cos_polar, azimuth = symmetric(), torch.pi * symmetric()
    sin_polar = torch.sqrt((1 - cos_polar**2).clamp(min=0))
    axis = torch.stack([sin_polar * torch.cos(azimuth), sin_polar * torch.sin(azimuth), cos_polar], dim=-1)
    angle = config.max_angle * uniform(shape, like, generator) * flying.squeeze(-1)
    low, high = (limit.unsqueeze(-1) for limit in components(quadrotors.action_limit))
    fraction = uniform((*shape, 4), like, generator, *config.rotor_speed)
    return State(
        position=component_major(flying * box * symmetric(3)),
        orientation=component_major(from_axis_angle(axis, angle)),
        linear_velocity=component_major(flying * config.max_linear_velocity * symmetric(3)),
        angular_velocity=component_major(flying * config.max_angular_velocity * symmetric(3)),
        rotor_speed=component_major(low + (high - low) * fraction),
    )


@dataclasses.dataclass(frozen=True)
class Disturbances(Settings):
    """Scale of the disturbances, whose distribution is the vehicle's own."""

    force: float = setting(1.0, "factor on the vehicle's `random_force`; 0: none", not_negative)
    torque: float = setting(1.0, "factor on the vehicle's `random_torque`; 0: none", not_negative)


def sample_disturbance(
    quadrotors: Quadrotors, config: Disturbances, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Draw the constant force (..., 3) N, world, and torque (..., 3) N m, body, of one episode for each vehicle.

    Source: l2f; the standard deviation of the torque about z is a hundredth of that about x and y.
    """
    like = quadrotors.mass

    def normal(mean_and_std: Tensor, spread: list[float]) -> Tensor:
        draw = torch.randn((*quadrotors.shape, 3), generator=generator, dtype=like.dtype, device=like.device)
        return component_major(mean_and_std[..., :1] + mean_and_std[..., 1:] * like.new_tensor(spread) * draw)

    force = normal(quadrotors.random_force, [1.0, 1.0, 1.0])
    return config.force * force, config.torque * normal(quadrotors.random_torque, [1.0, 1.0, 0.01])
