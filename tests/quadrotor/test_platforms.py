"""The named platforms are those of the published registry, mended."""

from __future__ import annotations

import pytest
import torch

from raptor.core.errors import UserError
from raptor.quadrotor import PLATFORMS, load_platform, load_platforms
from raptor.quadrotor.parameters import DEFAULT_GROUPS

# Thrust-to-weight and hover throttle as computed independently from the registry's thrust curves.
REGISTRY = {
    "crazyflie": (1.467, 0.806),
    "x500_real": (3.247, 0.555),
    "x500_sim": (1.782, 0.749),
    "mrs": (2.692, 0.558),
    "fs": (3.401, 0.437),
    "race": (3.937, 0.281),
    "flightmare": (12.125, 0.246),
    "soft": (3.311, 0.429),
    "soft_rigid": (3.316, 0.362),
}


def test_all_nine_are_there_in_the_order_of_the_registry():
    assert tuple(REGISTRY) == PLATFORMS == load_platforms().names


@pytest.mark.parametrize("name", REGISTRY)
def test_thrust_to_weight_and_hover_throttle_are_those_of_the_registry(name):
    quadrotors = load_platform(name)
    thrust_to_weight, hover_throttle = REGISTRY[name]
    assert quadrotors.names == (name,)
    assert quadrotors.thrust_to_weight.item() == pytest.approx(thrust_to_weight, abs=6e-4)
    assert quadrotors.hover_throttle.item() == pytest.approx(hover_throttle, abs=6e-4)


@pytest.mark.parametrize("name", REGISTRY)
def test_files_are_complete_and_carry_their_true_hover_throttle(name):
    quadrotors = load_platform(name, torch.float64)
    document = quadrotors.documents[0]
    assert document["dynamics"]["hovering_throttle_relative"] == quadrotors.hover_throttle.item()
    assert {group: document[group] for group in DEFAULT_GROUPS} == DEFAULT_GROUPS
    assert quadrotors.to_dicts() == [document]


@pytest.mark.parametrize("name", REGISTRY)
def test_inertia_and_its_inverse_agree_to_nine_digits(name):
    quadrotors = load_platform(name, torch.float64)
    identity = quadrotors.inertia @ quadrotors.inertia_inverse
    assert torch.allclose(identity[0], torch.eye(3, dtype=torch.float64), rtol=0, atol=1e-9)


def test_mended_numbers_are_mended_and_noted():
    x500 = load_platform("x500_real", torch.float64)
    assert x500.inertia[0, 0, 0] == 0.021705
    assert any("0.1705" in note for note in x500.documents[0]["notes"])
    assert any(
        "stored" in note or "the source has 0.5" in note for note in load_platform("flightmare").documents[0]["notes"]
    )


def test_the_mrs_keeps_its_rotor_unit():
    assert load_platform("mrs").action_limit.tolist() == [[0, 2000]]


def test_boxes_are_those_of_the_registry():
    assert load_platforms().position_threshold.tolist() == [1.0] * 9
    assert load_platforms().max_position.tolist() == [0.5] * 9


def test_a_known_torque_to_inertia():
    assert load_platform("crazyflie").torque_to_inertia.item() == pytest.approx(463, abs=0.5)


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(UserError, match="there is no platform 'x500': choose one of crazyflie, x500_real"):
        load_platform("x500")
