"""Constant forces and torques of an episode."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from raptor.config.settings import Settings, not_negative, setting
from raptor.quadrotor.parameters import Quadrotors
from raptor.quadrotor.state import component_major


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
    like, shape = quadrotors.mass, tuple(quadrotors.shape)

    def normal(mean_and_std: Tensor, spread: Tensor) -> Tensor:
        draw = torch.randn((*shape, 3), generator=generator, dtype=like.dtype, device=like.device)
        return component_major(mean_and_std[..., :1] + mean_and_std[..., 1:] * spread * draw)

    force = normal(quadrotors.random_force, like.new_tensor([1.0, 1.0, 1.0]))
    torque = normal(quadrotors.random_torque, like.new_tensor([1.0, 1.0, 0.01]))
    return config.force * force, config.torque * torque
