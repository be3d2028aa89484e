"""References: the targets' statistics and formulas."""

from __future__ import annotations

import dataclasses
import math

import pytest
import scipy.stats
import torch

from raptor.core.errors import UserError
from raptor.tasks import Langevin, Lissajous, References, WayPoints, advance_reference, sample_reference

DT = 0.01
LANGEVIN = References(langevin_share=1.0)


def begin(num, config, dtype=torch.float32, seed=0):
    return sample_reference((num,), config, torch.zeros(num, dtype=dtype), torch.Generator().manual_seed(seed))


def follow(reference, config, num_steps, seed=0):
    """The reference after each of `num_steps` steps."""
    generator = torch.Generator().manual_seed(seed)
    shape, dtype = reference.position.shape, reference.position.dtype
    for _ in range(num_steps):
        noise = torch.randn(shape, generator=generator, dtype=dtype)
        reference = advance_reference(reference, config, noise, DT)
        yield reference


def test_langevin_targets_spread_as_measured_in_l2f():
    path = list(follow(begin(10_000, LANGEVIN), LANGEVIN, 500))
    for seconds, spread in ((0.5, 0.015), (1.0, 0.053), (2.0, 0.098), (5.0, 0.102)):
        assert path[round(seconds / DT) - 1].position.std().item() == pytest.approx(spread, rel=0.04)
    assert path[-1].velocity.std().item() == pytest.approx(0.14, rel=0.04)
    assert path[-1].position.mean().abs() < 0.005


def test_langevin_targets_start_at_rest_at_the_origin():
    reference = begin(5, LANGEVIN)
    assert (reference.position == 0).all()
    assert (reference.velocity == 0).all()


def test_one_langevin_step_follows_the_formula():
    config = References(langevin_share=1.0, langevin=Langevin(gamma=0.7, omega=3.0, sigma=0.4, alpha=0.2))
    walk = torch.arange(1.0, 13.0, dtype=torch.float64)[None] / 10
    x, v, raw_x, raw_v = walk.split(3, dim=-1)
    noise = torch.tensor([[0.5, -1.0, 2.0]], dtype=torch.float64)
    reference = dataclasses.replace(begin(1, config, torch.float64), walk=walk)
    after = advance_reference(reference, config, noise, DT)
    raw_v = raw_v + (-0.7 * raw_v - 9.0 * raw_x) * DT + 0.4 * math.sqrt(DT) * noise
    v = 0.2 * raw_v + 0.8 * v
    expected = torch.cat([x + v * DT, v, raw_x + raw_v * DT, raw_v], dim=-1)
    torch.testing.assert_close(after.walk, expected)
    torch.testing.assert_close(after.position, expected[:, :3])
    torch.testing.assert_close(after.velocity, expected[:, 3:6])


def figure(**settings):
    defaults = {"amplitude": ((0.5, 1.0, 0.2), (0.5, 1.0, 0.2)), "interval": (6.5, 6.5), "ramp": (3.0, 3.0)}
    return References(langevin_share=0.0, lissajous_share=1.0, lissajous=Lissajous(**{**defaults, **settings}))


@pytest.mark.parametrize("ramp", [3.0, 0.0])
def test_a_lissajous_figure_follows_the_formula(ramp):
    config = figure(ramp=(ramp, ramp), frequency=(2.0, 1.0, 3.0))
    for step, reference in enumerate(follow(begin(1, config, torch.float64), config, 500), start=1):
        t = step * DT
        speed = min(t, ramp) / ramp if ramp else 1.0
        phase = (speed * min(t, ramp) / 2 + max(0.0, t - ramp)) * 2 * math.pi / 6.5
        expected = [a * math.sin(f * phase) for a, f in ((0.5, 2), (1.0, 1), (0.2, 3))]
        torch.testing.assert_close(reference.position[0], torch.tensor(expected, dtype=torch.float64))


@pytest.mark.parametrize(
    "config",
    [
        figure(),
        References(
            langevin_share=0.0,
            way_points_share=1.0,
            way_points=WayPoints(points=((0.5, 0.0, 0.5), (0.5, 1.0, 0.5)), speed=0.4),
        ),
    ],
    ids=["lissajous", "way_points"],
)
def test_the_targets_velocity_is_the_derivative_of_its_position(config):
    path = [begin(1, config, torch.float64), *follow(begin(1, config, torch.float64), config, 600)]
    positions = torch.cat([reference.position for reference in path])
    velocities = torch.cat([reference.velocity for reference in path])
    assert velocities.abs().max() > 0.3
    central = (positions[2:] - positions[:-2]) / (2 * DT)
    differing = (central - velocities[1:-1]).norm(dim=-1) > 2e-3
    assert differing.sum() <= 4  # the corners of a way-point path


def test_a_figure_is_drawn_within_its_ranges(generator):
    config = figure(amplitude=((0.1, 0.0, 0.0), (0.6, 1.0, 0.0)), interval=(4.0, 8.0), ramp=(1.0, 2.0))
    reference = begin(4000, config)
    for values, low, high in (
        (reference.amplitude[:, 0], 0.1, 0.6),
        (reference.amplitude[:, 1], 0.0, 1.0),
        (2 * math.pi / reference.rate[:, 1], 4.0, 8.0),
        (reference.ramp, 1.0, 2.0),
    ):
        assert scipy.stats.kstest(values.double().numpy(), "uniform", args=(low, high - low)).pvalue > 1e-4
    assert (reference.amplitude[:, 2] == 0).all()
    torch.testing.assert_close(reference.rate[:, 0], 2 * reference.rate[:, 1])


def test_a_way_point_path_runs_at_constant_speed_and_ends_at_its_last_point():
    points = ((1.0, 0.0, 0.0), (1.0, 0.0, 2.0))
    config = References(langevin_share=0.0, way_points_share=1.0, way_points=WayPoints(points=points, speed=0.5))
    path = list(follow(begin(1, config), config, 700))
    for seconds, expected in ((1.0, [0.5, 0.0, 0.0]), (2.0, [1.0, 0.0, 0.0]), (4.0, [1.0, 0.0, 1.0])):
        torch.testing.assert_close(path[round(seconds / DT) - 1].position, torch.tensor([expected]), atol=1e-4, rtol=0)
    assert path[100].velocity.norm().item() == pytest.approx(0.5)
    assert path[-1].position.tolist() == [[1.0, 0.0, 2.0]]
    assert path[-1].velocity.tolist() == [[0.0, 0.0, 0.0]]


def test_the_shares_say_how_many_track_what():
    config = References(
        langevin_share=0.5,
        lissajous_share=0.2,
        way_points_share=0.1,
        way_points=WayPoints(points=((0.0, 0.0, 1.0),)),
    )
    reference = begin(10_000, config)
    langevin = reference.langevin_sigma > 0
    lissajous = (reference.amplitude > 0).any(-1)
    way_points = (reference.legs != 0).any(-1)
    assert ((langevin.int() + lissajous.int() + way_points.int()) <= 1).all()
    for chosen, share in ((langevin, 0.5), (lissajous, 0.2), (way_points, 0.1)):
        assert scipy.stats.binomtest(int(chosen.sum()), 10_000, share).pvalue > 1e-4
    *_, after = follow(reference, config, 20)
    holding = ~(langevin | lissajous | way_points)
    assert (after.position[holding] == 0).all()
    assert (after.velocity[holding] == 0).all()
    assert (after.position[~holding].norm(dim=-1) > 0).all()


def test_the_default_is_the_mixture_of_raptors_training():
    assert (References().langevin_share, References().lissajous_share, References().way_points_share) == (0.5, 0.0, 0.0)


@pytest.mark.parametrize("shares", [{"langevin_share": -0.1}, {"langevin_share": 0.7, "lissajous_share": 0.7}])
def test_impossible_shares_are_refused(shares):
    with pytest.raises(UserError, match="share"):
        References(**shares)
