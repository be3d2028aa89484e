"""Vehicles around given ones: every quantity within its spread, consistent, and drawn by the generator alone."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from raptor.config import load_config
from raptor.core.errors import UserError
from raptor.quadrotor import Quadrotors, load_platform
from raptor.quadrotor.around import Around, Spread, draw_vehicles, sample_around
from raptor.quadrotor.population import QUANTITIES, Distribution, sample_quadrotors
from raptor.training import TrainDirectConfig

NUM = 400
FIELDS = {
    "mass": lambda q: q.mass,
    "arm_length": lambda q: q.arm_length,
    "inertia": lambda q: q.inertia[:, 0, 0],
    "thrust": lambda q: q.full_thrust.mean(-1),
    "motor_time_constant": lambda q: q.rotor_time_constants_rising.mean(-1),
    "torque_constant": lambda q: q.rotor_torque_constants.mean(-1),
}


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def race() -> Quadrotors:
    return load_platform("race")


@pytest.mark.parametrize("quantity", QUANTITIES)
def test_a_quantity_fills_its_range_and_the_others_stay(race: Quadrotors, quantity: str) -> None:
    spread = dataclasses.replace(Spread(every=0.0), **{quantity: 0.3})
    around = sample_around(race, spread, NUM, generator())
    for name, read in FIELDS.items():
        ratio = read(around) / read(race)
        low, high = (0.7, 1.3) if name == quantity else (1.0, 1.0)
        assert ratio.min().item() == pytest.approx(low, abs=0.02)
        assert ratio.max().item() == pytest.approx(high, abs=0.02)


def test_inertia_and_its_inverse_agree(race: Quadrotors) -> None:
    around = sample_around(race, Spread(every=0.4), NUM, generator())
    torch.testing.assert_close(around.inertia @ around.inertia_inverse, torch.eye(3).expand(NUM, 3, 3))


def test_disturbance_and_boxes_follow_the_vehicle_as_in_training_for_all(race: Quadrotors) -> None:
    around = sample_around(race, Spread(), NUM, generator())
    torch.testing.assert_close(around.position_threshold, 20 * around.arm_length)
    torch.testing.assert_close(around.max_position, 10 * around.arm_length)
    assert around.random_force[:, 1].min() >= 0
    assert 0.1 < around.disturbance_to_weight.max() < 0.21


def test_a_vehicle_keeps_half_of_its_surplus_of_thrust(race: Quadrotors) -> None:
    weak = race.with_thrust_scaled(1.3 / race.thrust_to_weight.item())
    around = sample_around(weak, Spread(every=0.5), NUM, generator())
    assert around.thrust_to_weight.min().item() == pytest.approx(1.15, abs=1e-3)
    assert around.hover_throttle.isfinite().all()


def test_the_document_says_how_uncertain_a_quantity_is_unless_the_settings_do() -> None:
    document = {**load_platform("race").documents[0], "uncertainty": {"mass": 0.05, "thrust": 0.1}}  # type: ignore[index]
    known = Quadrotors.from_dicts([document])
    assert [Spread().of(known)[name].item() for name in QUANTITIES] == pytest.approx([0.05, 0.2, 0.2, 0.1, 0.2, 0.2])
    assert [Spread(every=0.3).of(known)[name].item() for name in QUANTITIES] == pytest.approx([0.3] * 6)
    assert Spread(every=0.3, mass=0.0).of(known)["mass"].item() == 0.0
    assert Spread(inertia=0.5).of(known)["mass"].item() == pytest.approx(0.05)


def test_several_vehicles_take_turns_from_one_that_is_drawn() -> None:
    three = Quadrotors.concatenate(load_platform(name) for name in ("crazyflie", "race", "x500_sim"))
    none = Spread(every=0.0)
    masses = sample_around(three, none, 7, generator(1)).mass.tolist()
    assert masses[:3] == masses[3:6]
    assert set(masses) == set(three.mass.tolist())
    firsts = {sample_around(three, none, 1, generator(seed)).mass.item() for seed in range(20)}
    assert firsts == set(three.mass.tolist())


def test_a_seed_gives_the_same_vehicles_and_another_one_others(race: Quadrotors) -> None:
    a, b, c = (sample_around(race, Spread(), 5, generator(seed)).mass for seed in (4, 4, 5))
    assert torch.equal(a, b)
    assert not torch.equal(a, c)


def test_the_shortest_time_constant_is_that_of_the_fastest_that_can_be_drawn(race: Quadrotors) -> None:
    around = Around(race, Spread(motor_time_constant=0.5))
    drawn = draw_vehicles(around, NUM, generator()).shortest_time_constant.min().item()
    assert around.shortest_time_constant == pytest.approx(race.shortest_time_constant.item() / 2)
    assert around.shortest_time_constant <= drawn < 1.05 * around.shortest_time_constant


def test_a_distribution_is_drawn_from_as_ever() -> None:
    drawn = draw_vehicles(Distribution(), 3, generator(7))
    assert torch.equal(drawn.mass, sample_quadrotors(3, 7).mass)


def test_a_spread_can_be_given_in_percent_for_all_or_for_one() -> None:
    spread = load_config(TrainDirectConfig, None, ["spread=20%", "spread.mass=2.5 %"]).spread
    assert spread == Spread(every=0.2, mass=0.025)


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ("spread=150%", "spread.every must be at least 0 and below 1, such as 0.2 or 20%"),
        ("spread=much", "spread.every must be a number or null"),
        ("spread.weight=5%", "spread.weight is unknown"),
        ("spread.mass=-5%", "spread.mass must be a number or null"),
    ],
)
def test_a_spread_that_cannot_be_is_refused(setting: str, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        load_config(TrainDirectConfig, None, [setting])
