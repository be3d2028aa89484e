"""Sampled vehicles follow the stated distributions."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import scipy.stats
import torch

from raptor.core.errors import UserError
from raptor.quadrotor import Distribution, load_platform, sample_quadrotors, validate

NUM = 20_000
NOMINAL = load_platform("crazyflie", torch.float64)
FALSE_ALARM = 1e-3  # of one test, with a fixed seed


@pytest.fixture(scope="module", params=["published", "paper"])
def sample(request):
    return request.param, sample_quadrotors(NUM, seed=7, distribution=request.param, dtype=torch.float64)


@pytest.fixture(scope="module")
def published():
    return sample_quadrotors(NUM, seed=11, dtype=torch.float64)


@pytest.fixture(scope="module")
def paper():
    return sample_quadrotors(NUM, seed=11, distribution="paper", dtype=torch.float64)


def assert_uniform(values, low, high):
    values = np.asarray(values, dtype=float)
    assert values.min() >= low - 1e-9 * abs(low)
    assert values.max() <= high + 1e-9 * abs(high)
    assert scipy.stats.kstest(values, "uniform", args=(low, high - low)).pvalue > FALSE_ALARM
    counts = np.histogram(values, bins=50, range=(low, high))[0]
    assert scipy.stats.chisquare(counts).pvalue > FALSE_ALARM


def size_factor(quadrotors):
    relative_size = quadrotors.rotor_positions[:, 0, 0] / NOMINAL.rotor_positions[0, 0, 0]
    return relative_size / (quadrotors.mass / NOMINAL.mass) ** (1 / 3)


def size_deviation(quadrotors):
    factor = size_factor(quadrotors)
    return torch.where(factor >= 1, factor - 1, 1 - 1 / factor)


def disturbance_share(quadrotors, unit):
    return quadrotors.random_force[:, 1] * 3 / ((quadrotors.thrust_to_weight - 1) * quadrotors.mass * unit)


def test_thrust_to_weight_is_uniform(sample):
    assert_uniform(sample[1].thrust_to_weight, 1.5, 5)


def test_the_cube_root_of_the_mass_is_uniform(sample):
    assert_uniform(sample[1].mass ** (1 / 3), 0.02 ** (1 / 3), 5 ** (1 / 3))


def test_torque_to_inertia_is_uniform(sample):
    assert_uniform(sample[1].torque_to_inertia, 40, 1200)


def test_torque_constants_and_time_constants_are_uniform_and_equal_on_all_rotors(sample):
    quadrotors = sample[1]
    for values, low, high in (
        (quadrotors.rotor_torque_constants, 0.005, 0.05),
        (quadrotors.rotor_time_constants_rising, 0.03, 0.10),
        (quadrotors.rotor_time_constants_falling, 0.03, 0.30),
    ):
        assert (values == values[:, :1]).all()
        assert_uniform(values[:, 0], low, high)


def test_falling_may_be_quicker_than_rising(published):
    assert (published.rotor_time_constants_falling < published.rotor_time_constants_rising).any()


def test_the_published_size_deviation_is_normal_about_minus_its_width(published):
    assert scipy.stats.kstest(size_deviation(published), "norm", args=(-0.1, 0.1)).pvalue > FALSE_ALARM
    factor = size_factor(published)
    assert factor.mean().item() == pytest.approx(0.916, abs=0.003)
    assert (factor < 1).double().mean().item() == pytest.approx(0.841, abs=0.01)


def test_the_papers_size_deviation_is_uniform(paper):
    assert_uniform(size_deviation(paper), -0.1, 0.1)


def test_the_published_disturbance_counts_thrust_to_weight_twice_and_gravity_never(published):
    assert_uniform(disturbance_share(published, published.thrust_to_weight), 0, 0.3)
    relative = published.random_force[:, 1] / (published.mass * 9.81)
    assert np.quantile(relative, [0.05, 0.5, 0.95]) == pytest.approx([0.002, 0.028, 0.131], abs=0.002)


def test_the_papers_disturbance_is_a_share_of_the_surplus_thrust(paper):
    assert_uniform(disturbance_share(paper, 9.81), 0, 0.3)


def test_what_is_drawn_is_drawn_independently(published):
    draws = torch.stack(
        [
            published.thrust_to_weight,
            published.mass,
            published.torque_to_inertia,
            size_factor(published),
            published.rotor_torque_constants[:, 0],
            disturbance_share(published, published.thrust_to_weight),
            published.rotor_time_constants_rising[:, 0],
            published.rotor_time_constants_falling[:, 0],
        ]
    )
    correlation = scipy.stats.spearmanr(draws.numpy(), axis=1).statistic - np.eye(8)
    assert np.abs(correlation).max() < 4.5 / math.sqrt(NUM)


def test_torque_to_inertia_is_exactly_what_was_drawn():
    distribution = Distribution(torque_to_inertia=(300.0, 300.0))
    q = sample_quadrotors(100, seed=0, distribution=distribution, dtype=torch.float64)
    full_thrust = q.thrust_to_weight * q.mass * 9.81 / 4
    ratio = math.sqrt(2) * q.rotor_positions[:, 0, 0].abs() * full_thrust / q.inertia[:, 0, 0]
    assert torch.allclose(ratio, torch.full_like(ratio, 300), rtol=1e-12)
    assert torch.allclose(q.torque_to_inertia, ratio, rtol=1e-9)  # as exact as the Crazyflie's two matrices agree


def test_vehicles_are_rescaled_crazyflies(published):
    nominal_curve = NOMINAL.rotor_thrust_coefficients / NOMINAL.rotor_thrust_coefficients[..., 2:]
    curve = published.rotor_thrust_coefficients / published.rotor_thrust_coefficients[..., 2:]
    assert torch.allclose(curve, nominal_curve.expand_as(curve), rtol=1e-12)
    shape = published.inertia / published.inertia[:, :1, :1]
    assert torch.allclose(shape, (NOMINAL.inertia / NOMINAL.inertia[0, 0, 0]).expand_as(shape), rtol=1e-12)
    identity = torch.eye(3, dtype=torch.float64).expand(NUM, 3, 3)
    assert torch.allclose(published.inertia @ published.inertia_inverse, identity, atol=1e-9)


def test_boxes_are_scaled_to_the_arms(published):
    arm = published.rotor_positions.norm(dim=-1).amax(-1)
    assert torch.allclose(published.position_threshold, 20 * arm)
    assert torch.allclose(published.max_position, 10 * arm)


def test_known_quantiles_of_the_published_distribution(published):
    assert np.quantile(published.mass, [0.05, 0.5, 0.95]) == pytest.approx([0.040, 0.972, 4.40], rel=0.05)
    assert np.quantile(published.arm_length, [0.01, 0.5, 0.99]) == pytest.approx([0.032, 0.114, 0.215], rel=0.03)
    assert np.quantile(published.inertia[:, 0, 0], [0.01, 0.5, 0.99]) == pytest.approx(
        [7.2e-6, 1.55e-3, 6.3e-2], rel=0.1
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_every_sampled_vehicle_passes_the_door(sample, dtype):
    quadrotors = sample[1].to(dtype=dtype)
    assert validate(quadrotors) is quadrotors


def test_the_seed_decides_and_the_generator_goes_on():
    def generator():
        return torch.Generator().manual_seed(5)

    a, b = sample_quadrotors(4, seed=5), sample_quadrotors(4, generator=generator())
    assert torch.equal(a.mass, b.mass)
    assert not torch.equal(a.mass, sample_quadrotors(4, seed=6).mass)
    going_on = generator()
    assert not torch.equal(sample_quadrotors(4, generator=going_on).mass, sample_quadrotors(4, generator=going_on).mass)


def test_global_randomness_is_neither_used_nor_changed():
    before = torch.get_rng_state()
    sample_quadrotors(4, seed=0)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_larger_population_begins_with_the_smaller_one():
    small, large = sample_quadrotors(5, seed=2), sample_quadrotors(5000, seed=2)[:5]
    assert all(torch.equal(a, b) for a, b in zip(small.tensors().values(), large.tensors().values(), strict=True))


def test_the_precision_does_not_change_the_vehicles():
    single, double = sample_quadrotors(50, seed=2), sample_quadrotors(50, seed=2, dtype=torch.float64)
    for a, b in zip(single.tensors().values(), double.tensors().values(), strict=True):
        assert torch.equal(a, b.float())


def test_ranges_of_ones_own_are_kept():
    distribution = Distribution(mass=(1.0, 2.0), thrust_to_weight=(2.0, 2.0), mass_size_deviation=0.0)
    quadrotors = sample_quadrotors(NUM, seed=3, distribution=distribution, dtype=torch.float64)
    assert_uniform(quadrotors.mass ** (1 / 3), 1, 2 ** (1 / 3))
    assert torch.allclose(quadrotors.thrust_to_weight, torch.full((NUM,), 2.0).double())
    assert torch.allclose(size_factor(quadrotors), torch.ones(NUM).double())
    assert_uniform(quadrotors.torque_to_inertia, 40, 1200)


def test_ranges_may_come_as_lists_from_a_configuration():
    assert Distribution(mass=[1, 2]) == Distribution(mass=(1, 2))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mass": (2.0, 1.0)}, r"mass must be \(low, high\) with low <= high, each positive, got \(2.0, 1.0\)"),
        ({"mass": (-1.0, 1.0)}, "mass must be .* each positive"),
        ({"mass": (0.0, 1.0)}, "mass must be .* each positive"),
        ({"mass": (1.0, math.inf)}, "mass must be .* each positive"),
        ({"mass": (1.0, math.nan)}, "mass must be .* each positive"),
        ({"mass": 1.0}, "mass must be .* each positive, got 1.0"),
        ({"mass": (1.0,)}, r"mass must be \(low, high\)"),
        ({"mass": ("light", "heavy")}, r"mass must be .* each positive, got \('light', 'heavy'\)"),
        ({"thrust_to_weight": (0.9, 2.0)}, "thrust_to_weight must be .* each above 1"),
        ({"thrust_to_weight": (2.0, 40.0)}, "thrust_to_weight must not exceed 31.24"),
        ({"rotor_time_constant_rising": (0.0001, 0.1)}, "rotor_time_constant_rising must be .* each at least 0.001"),
        ({"rotor_time_constant_falling": (0.0, 0.1)}, "rotor_time_constant_falling must be .* each at least 0.001"),
        ({"mass_size_deviation": -0.1}, "mass_size_deviation must be at least 0, got -0.1"),
        ({"disturbance_force": "strong"}, "disturbance_force must be at least 0, got 'strong'"),
        ({"size_law": "cauchy"}, "size_law must be one of normal, uniform, got 'cauchy'"),
        ({"disturbance_law": "none"}, "disturbance_law must be one of published, surplus, got 'none'"),
    ],
)
def test_an_impossible_distribution_is_refused(change, message):
    with pytest.raises(UserError, match=message):
        dataclasses.replace(Distribution(), **change)


@pytest.mark.filterwarnings("ignore::raptor.quadrotor.QuadrotorWarning")
def test_the_largest_allowed_thrust_to_weight_can_hover():
    quadrotors = sample_quadrotors(10, seed=0, distribution=Distribution(thrust_to_weight=(31.0, 31.2)))
    assert validate(quadrotors) is quadrotors


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num": 0}, "num must be a positive integer, got 0"),
        ({"num": 2.5}, "num must be a positive integer, got 2.5"),
        ({"num": 2, "seed": 1, "generator": torch.Generator()}, "a seed or a generator, got both"),
        ({"num": 2, "distribution": "RAPTOR"}, "distribution must be published, paper or a Distribution, got 'RAPTOR'"),
    ],
)
def test_impossible_requests_are_refused(arguments, message):
    with pytest.raises(UserError, match=message):
        sample_quadrotors(**arguments)
