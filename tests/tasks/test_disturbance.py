"""Constant forces and torques of an episode."""

from __future__ import annotations

import dataclasses

import torch

from raptor.quadrotor import sample_quadrotors
from raptor.tasks import Disturbances, sample_disturbance


def vehicles(num: int, force: tuple[float, float], torque: tuple[float, float]):
    return dataclasses.replace(
        sample_quadrotors(1, seed=0).repeat_interleave(num),
        random_force=torch.tensor(force).repeat(num, 1),
        random_torque=torch.tensor(torque).repeat(num, 1),
    )


def test_force_and_torque_have_the_vehicles_own_spread_and_torque_about_z_a_hundredth(generator):
    force, torque = sample_disturbance(vehicles(20_000, (1.0, 0.5), (0.0, 0.2)), Disturbances(), generator)
    torch.testing.assert_close(force.mean(0), torch.ones(3), atol=0.02, rtol=0)
    torch.testing.assert_close(force.std(0), torch.full((3,), 0.5), atol=0.01, rtol=0)
    torch.testing.assert_close(torque.std(0), torch.tensor([0.2, 0.2, 0.002]), atol=0, rtol=0.03)
    assert torch.corrcoef(torch.cat([force, torque], -1).mT).sub(torch.eye(6)).abs().max() < 0.03


def test_each_vehicle_has_its_own_spread(generator):
    quadrotors = sample_quadrotors(20_000, seed=3)
    force, torque = sample_disturbance(quadrotors, Disturbances(), generator)
    scaled = force / quadrotors.random_force[:, 1:]
    torch.testing.assert_close(scaled.std(0), torch.ones(3), atol=0.03, rtol=0)
    assert (torque == 0).all()  # the published distribution has none


def test_the_configuration_scales_both(generator):
    quadrotors = vehicles(10, (1.0, 0.5), (0.1, 0.2))
    plain = sample_disturbance(quadrotors, Disturbances(), torch.Generator().manual_seed(1))
    scaled = sample_disturbance(quadrotors, Disturbances(force=2.0, torque=0.0), torch.Generator().manual_seed(1))
    torch.testing.assert_close(scaled[0], 2 * plain[0])
    assert (scaled[1] == 0).all()
