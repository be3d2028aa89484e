"""RAPTOR's reward, term by term."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch

from raptor.quadrotor import State, from_axis_angle
from raptor.tasks import Reward, reward
from raptor.tasks.reward import heading_angle
from raptor.tasks.views import StepView

NOTHING = Reward(constant=0.0, position=0.0, orientation=0.0, action_rate=0.0)


@pytest.fixture
def rate(level, at_origin):
    """A function that rates one transition of a vehicle that rests at the origin unless said otherwise."""

    def value(config, *, before=None, action=None, last_action=None, after=None, target=None, over=False):
        quadrotors, rest = level(1)
        zero = torch.zeros(1, 4)
        reference = at_origin(1)
        if target is not None:
            reference = dataclasses.replace(reference, **{k: torch.tensor([v]) for k, v in target.items()})
        view = StepView(
            quadrotors,
            rest if before is None else before(rest),
            reference,
            zero if action is None else torch.tensor([action]),
            zero if last_action is None else torch.tensor([last_action]),
            rest if after is None else after(rest),
            reference,
            0.01,
        )
        return reward(config, view, torch.tensor([over]))

    return value


def moved(**parts):
    """A function that replaces parts of a state."""
    return lambda state: dataclasses.replace(state, **{name: torch.tensor([part]) for name, part in parts.items()})


def test_a_vehicle_at_rest_on_its_target_that_changes_nothing_earns_the_constant(rate):
    assert rate(Reward()).item() == 1.5


def test_a_termination_replaces_the_reward(rate):
    assert rate(Reward(), before=moved(position=[0.3, 0.0, 0.0]), over=True).item() == -100.0


@pytest.mark.parametrize(
    ("weight", "transition", "cost"),
    [
        ("position", {"before": moved(position=[0.3, 0.0, 0.4])}, 0.5),
        ("position", {"before": moved(position=[0.3, 0.0, 0.4]), "target": {"position": [0.3, 0.0, 0.0]}}, 0.4),
        ("position", {"after": moved(position=[0.3, 0.0, 0.4])}, 0.0),
        ("orientation", {"before": moved(orientation=[0.8, 0.0, 0.0, 0.6])}, 2 * math.acos(0.4)),
        ("orientation", {"before": moved(orientation=[0.8, 0.0, 0.0, -0.6])}, 2 * math.acos(0.4)),
        ("orientation", {"before": moved(orientation=[0.8, 0.6, 0.0, 0.0])}, 0.0),
        ("action_rate", {"action": [0.1, 0.2, 0.2, 0.0], "last_action": [0.1, 0.0, 0.0, 0.1]}, 0.3),
        ("action_rate", {"action": [2.0, 0.0, 0.0, 0.0]}, 2.0),
        ("linear_velocity", {"before": moved(linear_velocity=[0.0, 3.0, 4.0])}, 5.0),
        (
            "linear_velocity",
            {"before": moved(linear_velocity=[0.0, 3.0, 4.0]), "target": {"velocity": [0.0, 3.0, 0.0]}},
            4.0,
        ),
        ("angular_velocity", {"before": moved(angular_velocity=[2.0, 1.0, 2.0])}, 3.0),
        ("linear_acceleration", {"after": moved(linear_velocity=[0.0, 0.03, 0.04])}, 5.0),
        ("angular_acceleration", {"after": moved(angular_velocity=[0.01, 0.0, 0.0])}, 1.0),
    ],
)
def test_each_weight_multiplies_its_own_cost(rate, weight, transition, cost):
    assert rate(dataclasses.replace(NOTHING, **{weight: 1.0}), **transition).item() == pytest.approx(-cost, abs=1e-5)
    assert rate(dataclasses.replace(NOTHING, **{weight: 0.25}), **transition).item() == pytest.approx(
        -0.25 * cost, abs=1e-5
    )


def test_the_action_costs_its_squared_distance_from_hover(rate, level):
    hover = level(1)[0].hover_throttle.item()
    config = dataclasses.replace(NOTHING, action=1.0)
    assert rate(config, action=[2 * hover - 1] * 4).item() == pytest.approx(0, abs=1e-6)
    assert rate(config, action=[1.0] * 4).item() == pytest.approx(-4 * (1 - hover) ** 2, abs=1e-5)


def test_scale_clip_and_floor(rate):
    far = {"before": moved(position=[3.0, 0.0, 0.0])}
    assert rate(Reward(scale=0.5), **far).item() == pytest.approx(0.0)
    assert rate(Reward(position_clip=1.0), **far).item() == pytest.approx(0.5)
    assert rate(Reward(), **far).item() == pytest.approx(-1.5)
    assert rate(Reward(non_negative=True), **far).item() == 0.0


def test_yaw_is_what_the_heading_term_measures():
    yaw = from_axis_angle(torch.tensor([[0.0, 0.0, 1.0]]), torch.tensor([0.5]))
    assert heading_angle(yaw).item() == pytest.approx(2 * math.acos(1 - math.sin(0.25)), abs=1e-6)


@pytest.mark.parametrize("z", [0.0, 1e-38, 1e-12, 1e-9, 5e-8, 1e-3, 1.0, -1.0])
def test_the_heading_has_a_finite_gradient_at_every_yaw(z):
    orientation = torch.tensor([[math.sqrt(1 - z * z), 0.0, 0.0, z]], requires_grad=True)
    heading_angle(orientation).backward()
    assert orientation.grad.isfinite().all()


def test_the_gradient_is_finite_where_every_error_is_zero(level, at_origin):
    quadrotors, rest = level(2)
    parts = [part.clone().requires_grad_() for part in rest.parts()]
    action = torch.zeros(2, 4, requires_grad=True)
    everything = Reward(**{f.name: 1.0 for f in dataclasses.fields(Reward) if f.name not in ("non_negative",)})
    state = State(*parts)
    over = torch.tensor([False, True])
    target = at_origin(2)
    view = StepView(quadrotors, state, target, action, torch.zeros(2, 4), state, target, 0.01)
    value = reward(everything, view, over)
    gradients = torch.autograd.grad(value.sum(), [*parts[:4], action])
    assert all(gradient.isfinite().all() for gradient in gradients)


@pytest.mark.parametrize("part", ["position", "orientation"])
def test_a_vehicle_whose_state_is_not_finite_does_not_earn_what_one_on_target_does(rate, part):
    lost = moved(**{part: [math.nan] * (4 if part == "orientation" else 3)})
    assert math.isnan(rate(Reward(), before=lost).item())
    assert rate(Reward(), before=lost, over=True).item() == -100.0


def test_the_gradient_points_away_from_the_target(level, at_origin):
    quadrotors, rest = level(1)
    position = torch.tensor([[0.3, 0.0, 0.4]], requires_grad=True)
    state = dataclasses.replace(rest, position=position)
    zero = torch.zeros(1, 4)
    view = StepView(quadrotors, state, at_origin(1), zero, zero, state, at_origin(1), 0.01)
    reward(Reward(), view, torch.tensor([False])).backward()
    torch.testing.assert_close(position.grad, torch.tensor([[-0.6, 0.0, -0.8]]))
