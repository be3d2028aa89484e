"""Evaluation under terms of one's own."""

from __future__ import annotations

import pytest

import raptor
from raptor.tasks import Wrench, terms
from raptor.tasks.terms import term


@pytest.fixture(autouse=True)
def registry(monkeypatch):
    """Each test declares its own terms."""
    monkeypatch.setattr(terms, "_registered", dict(terms._registered))


def test_disturbances_of_ones_own_act_in_every_suite_and_are_recorded():
    def steady(view, weights: float = 0.3):
        weight = 9.81 * view.quadrotors.mass.unsqueeze(-1)
        return Wrench(force=weights * weight + 0.0 * view.state.position)

    blows = term("disturbance", "blows")(steady)
    policies = {"default": raptor.load_policy("default")}
    calm, windy = (
        raptor.evaluate(policies, ["platforms"], 8, compile=False, extra=extra) for extra in ((), [blows(weights=0.3)])
    )
    returns = [found.policies["default"]["platforms"]["return"].value for found in (calm, windy)]
    assert returns[1] < returns[0] - 5
    assert windy.settings["extra"] == {"blows": {"weights": 0.3}}
    assert "extra" not in calm.settings
