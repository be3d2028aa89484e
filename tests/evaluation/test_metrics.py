"""Position errors are of those who made it, and steady only where the target stands; actions are of all who fly."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from raptor.environments.collectors import ActionChanges, Episodes, PositionErrors
from raptor.evaluation import METRICS, bootstrap_means
from raptor.evaluation.statistics import metrics_of
from raptor.tasks import References, sample_reference


@pytest.fixture
def flown():
    offset = torch.tensor([[0.03, 0.0, 0.04], [1.0, 1.0, 1.0], [0.0, 0.0, 0.1]])
    count, rmse = torch.full((3,), 250.0), torch.tensor([0.1, 9.0, 0.2])
    errors = PositionErrors(torch.zeros(3), count, count * rmse.square(), 250 * offset)
    changes = ActionChanges(torch.zeros(3), count, torch.tensor([2.5, 0.0, 5.0]))
    terminated, lengths = torch.tensor([False, True, False]), torch.tensor([500.0, 40.0, 500.0])
    return Episodes(torch.tensor([700.0, -50.0, 650.0]), lengths, terminated), errors, changes


@pytest.fixture
def reference(generator):
    still = sample_reference((3,), References(langevin_share=0.0), torch.zeros(3), generator)
    return dataclasses.replace(still, langevin_sigma=torch.tensor([0.0, 0.0, 0.5]))


def row(flown, reference, index, **options):
    return dict(zip(METRICS, metrics_of(*flown, reference, **options)[index].tolist(), strict=True))


def test_a_vehicle_that_held_its_position_has_every_metric(flown, reference):
    expected = {"return": 700, "terminated": 0, "length": 500, "position_rmse": 0.1, "steady_offset": 0.05}
    expected["action_change"] = 0.01
    assert row(flown, reference, 0) == pytest.approx(expected)


def test_a_vehicle_that_was_lost_has_no_position_error(flown, reference):
    expected = {"return": -50, "terminated": 1, "length": 40, "position_rmse": torch.nan, "steady_offset": torch.nan}
    expected["action_change"] = 0
    assert row(flown, reference, 1) == pytest.approx(expected, nan_ok=True)
    assert row(flown, reference, 1, survivors_only=False)["position_rmse"] == pytest.approx(9.0)


def test_a_return_that_is_no_number_is_the_worst_and_is_not_left_out(flown, reference):
    episodes, *others = flown
    lost = episodes._replace(returns=torch.tensor([700.0, torch.nan, 650.0])), *others
    assert row(lost, reference, 1)["return"] == -torch.inf
    means = bootstrap_means(metrics_of(*lost, reference).numpy(), [0, 0, 0])
    assert means.estimate(0, METRICS.index("return")).value == -torch.inf
    assert means.estimate(0, METRICS.index("position_rmse")).value == pytest.approx(0.15)


def test_a_vehicle_that_followed_a_moving_target_has_no_steady_offset(flown, reference):
    found = row(flown, reference, 2)
    assert found["position_rmse"] == pytest.approx(0.2)
    assert found["steady_offset"] != found["steady_offset"]
