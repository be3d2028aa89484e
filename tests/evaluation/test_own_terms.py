"""Evaluation under terms of one's own."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

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


def test_the_mean_of_each_cost_and_reward_is_a_metric():
    climb = term("cost", "climb", weight=7.0)(lambda step: step.next_state.linear_velocity[..., 2] ** 2)
    two = term("reward", "two")(lambda step: 2 + 0 * step.action[..., 0])
    policies = {name: raptor.load_policy(name) for name in ("default", "large")}
    found = raptor.evaluate(policies, ["figure-eight", "platforms"], 8, compile=False, extra=[climb, two])
    plain = raptor.evaluate(policies, ["platforms"], 8, compile=False)
    for name in policies:
        platforms, figures = (found.policies[name][suite] for suite in ("platforms", "figure-eight"))
        assert platforms["extra.two"].value == platforms["x500_real/extra.two"].value == 2
        assert platforms["extra.climb"].value > 0
        assert figures["10s/extra.climb"].value > 0
        length, before = platforms["length"].value, plain.policies[name]["platforms"]["return"].value
        assert platforms["return"].value == pytest.approx(before + 2 * length, rel=1e-4)  # the reward counts, too
    file = io.StringIO()
    Console(file=file, width=120).print(found.table())
    assert "climb (mean)" in file.getvalue()
