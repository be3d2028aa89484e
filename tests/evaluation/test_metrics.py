"""Position errors are of those who made it, and steady only where the target stands."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from raptor.evaluation import METRICS, Flights
from raptor.evaluation.metrics import table
from raptor.tasks import References, sample_reference


@pytest.fixture
def flights():
    return Flights(
        returns=torch.tensor([700.0, -50.0, 650.0]),
        terminated=torch.tensor([False, True, False]),
        lengths=torch.tensor([500.0, 40.0, 500.0]),
        position_rmse=torch.tensor([0.1, 9.0, 0.2]),
        offset=torch.tensor([[0.03, 0.0, 0.04], [1.0, 1.0, 1.0], [0.0, 0.0, 0.1]]),
    )


@pytest.fixture
def reference(generator):
    still = sample_reference((3,), References(langevin_share=0.0), torch.zeros(3), generator)
    return dataclasses.replace(still, langevin_sigma=torch.tensor([0.0, 0.0, 0.5]))


def row(flights, reference, index, **options):
    return dict(zip(METRICS, table(flights, reference, **options)[index].tolist(), strict=True))


def test_a_vehicle_that_held_its_position_has_every_metric(flights, reference):
    expected = {"return": 700, "terminated": 0, "length": 500, "position_rmse": 0.1, "steady_offset": 0.05}
    assert row(flights, reference, 0) == pytest.approx(expected)


def test_a_vehicle_that_was_lost_has_no_position_error(flights, reference):
    expected = {"return": -50, "terminated": 1, "length": 40, "position_rmse": torch.nan, "steady_offset": torch.nan}
    assert row(flights, reference, 1) == pytest.approx(expected, nan_ok=True)
    assert row(flights, reference, 1, survivors_only=False)["position_rmse"] == pytest.approx(9.0)


def test_a_vehicle_that_followed_a_moving_target_has_no_steady_offset(flights, reference):
    found = row(flights, reference, 2)
    assert found["position_rmse"] == pytest.approx(0.2)
    assert found["steady_offset"] != found["steady_offset"]
