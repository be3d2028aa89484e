"""A validation flies its vehicles in batches of its own."""

from __future__ import annotations

import pytest

from raptor.environments.rollout import VEHICLES_AT_ONCE
from raptor.nn import RaptorPolicy
from raptor.tasks import Task
from raptor.training.validation import Validation


class Asked(RaptorPolicy):
    """A policy that notes how many vehicles it begins with."""

    def __init__(self) -> None:
        super().__init__(hidden_dim=5)
        self.nums: list[int] = []

    def initial_hidden_state(self, *shape: int):
        self.nums += shape
        return super().initial_hidden_state(*shape)


def test_more_vehicles_than_it_pays_to_fly_at_once_fly_batch_after_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(VEHICLES_AT_ONCE, "cpu", 3)
    policy, task = Asked(), Task(episode_steps=4)
    figures = Validation(task, 8, compile=False)(policy)
    assert policy.nums == [3, 3, 2]
    assert figures["mean_length"] == 4
    assert Validation(task, 8, compile=False)(policy) == figures
