"""Intervals say what they claim."""

from __future__ import annotations

import math

import numpy as np
import pytest

from raptor.evaluation import Estimate, bootstrap_means
from raptor.evaluation.statistics import average


def estimate(values, groups=None, **options):
    values = np.asarray(values, dtype=float).reshape(len(values), -1)
    groups = np.zeros(len(values), dtype=int) if groups is None else groups
    return bootstrap_means(values, groups, **options).over_groups().estimate(0, 0)


def test_interval_of_a_mean_is_that_of_the_normal_distribution():
    values = np.random.default_rng(0).normal(3.0, 2.0, size=1000)
    found = estimate(values)
    half = 1.96 * values.std() / math.sqrt(len(values))
    assert found.value == pytest.approx(values.mean(), abs=1e-12)
    assert found.low == pytest.approx(values.mean() - half, abs=0.1 * half)
    assert found.high == pytest.approx(values.mean() + half, abs=0.1 * half)


def test_interval_of_a_share_is_that_of_the_binomial_distribution():
    found = estimate([1.0] * 80 + [0.0] * 1920)
    half = 1.96 * math.sqrt(0.04 * 0.96 / 2000)
    assert (found.low, found.high) == pytest.approx((0.04 - half, 0.04 + half), abs=0.1 * half)


def test_interval_covers_the_truth_as_often_as_it_says():
    generator = np.random.default_rng(1)
    tables = generator.exponential(size=(300, 60))
    found = [estimate(values, seed=seed, num_resamples=400) for seed, values in enumerate(tables)]
    covered = np.mean([low <= 1.0 <= high for _, low, high in found])
    assert 0.89 <= covered <= 0.98


def test_groups_are_resampled_apart_and_weigh_alike():
    values, groups = [1.0] * 30 + [9.0] * 10, [0] * 30 + [1] * 10
    assert estimate(values, groups) == Estimate(5.0, 5.0, 5.0)
    whole = estimate(values)
    assert whole.value == pytest.approx(3.0)
    assert whole.high - whole.low > 1


def test_each_group_has_its_own_interval():
    values = np.concatenate([np.zeros(20), np.random.default_rng(0).normal(5, 1, 20)])
    means = bootstrap_means(values[:, None], [0] * 20 + [1] * 20)
    assert means.estimate(0, 0) == Estimate(0.0, 0.0, 0.0)
    assert means.estimate(1, 0).low < means.estimate(1, 0).value < means.estimate(1, 0).high


def test_missing_numbers_are_left_out():
    found = estimate([1.0, math.nan, 3.0, math.nan])
    assert found.value == 2.0
    assert (found.low, found.high) == (1.0, 3.0)


def test_nothing_to_average_has_no_number():
    found = estimate([math.nan] * 5)
    assert all(map(math.isnan, found))
    assert found.to_dict() == {"value": None, "low": None, "high": None}


def test_one_group_without_a_number_leaves_the_mean_of_groups_without_one():
    assert math.isnan(estimate([1.0, 2.0, math.nan, math.nan], [0, 0, 1, 1]).value)


def test_the_same_seed_resamples_alike_and_another_does_not():
    values = np.random.default_rng(0).normal(size=50)
    assert estimate(values, seed=3) == estimate(values, seed=3) != estimate(values, seed=4)


def test_tables_of_the_same_vehicles_are_averaged_resample_by_resample():
    values, groups = np.random.default_rng(0).normal(size=(40, 2)), [0] * 40
    opposite = average([bootstrap_means(values, groups, seed=1), bootstrap_means(-values, groups, seed=1)])
    assert opposite.estimate(0, 1) == pytest.approx((0.0, 0.0, 0.0), abs=1e-12)


def test_columns_are_kept_apart():
    means = bootstrap_means([[1.0, 10.0], [3.0, 30.0]], [0, 0], num_resamples=2001)
    assert means.point.tolist() == [[2.0, 20.0]]
    assert means.samples.shape == (2001, 1, 2)
    np.testing.assert_allclose(means.samples[..., 1], 10 * means.samples[..., 0])
