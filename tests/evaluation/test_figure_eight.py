"""The published policy on figure eights, in compiled rollouts."""

from __future__ import annotations

import pytest
import torch
from rollouts import fly

from raptor.evaluation import evaluate
from raptor.evaluation.suites import FIGURE_EIGHT_INTERVALS, figure_eight
from raptor.quadrotor import PLATFORMS, load_platforms

MEANS = {"10s": 0.074, "6.5s": 0.132, "5s": 0.197}  # m, over the nine platforms; measured independently
VEHICLES_AT_ONCE = len(FIGURE_EIGHT_INTERVALS) * len(PLATFORMS)


@pytest.fixture(scope="module")
def metrics(published):
    return evaluate({"published": published}, ["figure-eight"], num_quadrotors=32).policies["published"]["figure-eight"]


@pytest.mark.parametrize("speed", MEANS)
def test_the_published_policy_is_as_far_off_as_it_is_known_to_be(metrics, speed):
    assert metrics[f"{speed}/position_rmse"].value == pytest.approx(MEANS[speed], abs=1e-3)
    assert metrics[f"{speed}/terminated"].value == 0
    assert metrics[f"{speed}/length"].value == 3000


def test_small_and_nervous_vehicles_are_further_off_than_large_calm_ones(metrics):
    for speed in MEANS:
        rmse = {name: metrics[f"{speed}/{name}/position_rmse"].value for name in PLATFORMS}
        assert rmse["crazyflie"] > rmse["x500_sim"] > rmse["x500_real"] > 0.7 * MEANS[speed]
        assert sum(rmse.values()) / 9 == pytest.approx(metrics[f"{speed}/position_rmse"].value)


def test_the_whole_is_the_mean_of_the_speeds(metrics):
    values = [metrics[f"{speed}/position_rmse"].value for speed in MEANS]
    assert metrics["position_rmse"].value == pytest.approx(sum(values) / 3)


def test_compiled_rollouts_are_those_of_the_eager_simulator_and_padding_only_fills_up(published):
    condition = figure_eight(5.0, 1, 0, load_platforms())
    flown = {}
    for compile in (False, True):
        start, generator = condition.begin()
        flown[compile] = fly(
            published,
            condition.task,
            condition.quadrotors,
            generator,
            100,
            start=start,
            pad_to=VEHICLES_AT_ONCE,
            compile=compile,
        )
    assert flown[True][0].returns.shape == (9,)
    torch.testing.assert_close(flown[True][0].returns, flown[False][0].returns, atol=1e-2, rtol=0)
    torch.testing.assert_close(flown[True][2].position, flown[False][2].position, atol=1e-4, rtol=0)
