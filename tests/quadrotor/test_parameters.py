"""A population of vehicles and its derived quantities."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from raptor.quadrotor import Quadrotors, State, load_platform, load_platforms, sample_quadrotors
from raptor.quadrotor.state import component_major, components, from_components


def same(a, b):
    return all(torch.equal(x, y) for x, y in zip(a.tensors().values(), b.tensors().values(), strict=True))


def test_an_integer_index_keeps_the_population_axis():
    quadrotors = load_platforms()
    assert len(quadrotors[-1]) == 1
    assert quadrotors[-1].names == ("soft_rigid",)
    assert len(quadrotors[torch.tensor(2)]) == 1
    with pytest.raises(IndexError):
        quadrotors[9]


@pytest.mark.parametrize(
    ("index", "names"),
    [
        (slice(1, 3), ("x500_real", "x500_sim")),
        ([0, 3], ("crazyflie", "mrs")),
        (torch.tensor([3, 0, 3]), ("mrs", "crazyflie", "mrs")),
        (torch.tensor([True] + [False] * 7 + [True]), ("crazyflie", "soft_rigid")),
        ([], ()),
    ],
)
def test_indexing_takes_tensors_names_and_documents_along(index, names):
    chosen = load_platforms()[index]
    assert chosen.names == names
    assert len(chosen) == len(chosen.documents) == len(names)
    if names:
        assert same(chosen, Quadrotors.concatenate(load_platform(name) for name in names))


def test_repeating_puts_copies_side_by_side():
    assert load_platforms()[:2].repeat_interleave(2).names == ("crazyflie", "crazyflie", "x500_real", "x500_real")


def test_concatenation_undoes_splitting():
    quadrotors = sample_quadrotors(7, seed=0)
    assert same(Quadrotors.concatenate([quadrotors[:3], quadrotors[3], quadrotors[4:]]), quadrotors)
    with pytest.raises(ValueError, match="at least one"):
        Quadrotors.concatenate([])


def test_concatenation_of_named_and_unnamed_vehicles_has_no_names():
    assert Quadrotors.concatenate([load_platforms(), sample_quadrotors(2, seed=0)]).names is None


def test_conversion_reaches_every_tensor():
    quadrotors = sample_quadrotors(3, seed=0).to("meta", torch.float64)
    assert quadrotors.device.type == "meta"
    assert {(t.dtype, t.device.type) for t in quadrotors.tensors().values()} == {(torch.float64, "meta")}


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_population_moves_to_the_gpu_and_back():
    quadrotors = sample_quadrotors(3, seed=0)
    assert quadrotors.to("cuda").device.type == "cuda"
    assert same(quadrotors.to("cuda").to("cpu"), quadrotors)
    assert quadrotors.to("cuda")[[0, 2]].mass.tolist() == quadrotors[[0, 2]].mass.tolist()


@pytest.mark.parametrize("tensor", [torch.ones(8, 1), torch.ones(1, 3), torch.ones(9, 1)[2:5], torch.ones(1, 1)])
def test_component_major_has_the_strides_of_tensors_that_were_put_together(tensor):
    assert component_major(tensor).stride() == from_components(components(tensor)).stride()


def test_component_major_changes_the_memory_and_not_the_numbers():
    quadrotors = sample_quadrotors(5, seed=0)
    moved = quadrotors.component_major()
    assert same(moved, quadrotors)
    assert moved.rotor_positions.stride() == (1, 15, 5)


def test_hover_throttle_solves_the_thrust_curve():
    sampled = sample_quadrotors(500, seed=1, dtype=torch.float64)
    quadrotors = Quadrotors.concatenate([load_platforms(torch.float64), sampled])
    low, high = quadrotors.action_limit.unbind(-1)
    speed = low + (high - low) * quadrotors.hover_throttle
    thrust = quadrotors.thrust(speed[:, None].expand(-1, 4)).sum(-1)
    assert torch.allclose(thrust, quadrotors.mass * 9.81, rtol=1e-9)


def test_hover_throttle_is_on_the_branch_where_more_speed_gives_more_thrust():
    # -u^2 + 1.6 u carries 0.15 * 4 N at u = 0.1 and at u = 1.5.
    quadrotors = load_platform("crazyflie", torch.float64)
    curve = torch.tensor([0.0, 1.6, -1.0], dtype=torch.float64).expand(1, 4, 3)
    falling = dataclasses.replace(
        quadrotors,
        rotor_thrust_coefficients=curve,
        mass=torch.tensor([0.6 / 9.81], dtype=torch.float64),
        action_limit=torch.tensor([[0.0, 2.0]], dtype=torch.float64),
    )
    assert falling.hover_throttle.item() == pytest.approx(0.05)


def test_hover_throttle_of_a_linear_thrust_curve_is_the_share_of_full_thrust():
    quadrotors = load_platform("crazyflie", torch.float64)
    linear = torch.tensor([0.0, 0.3, 0.0], dtype=torch.float64).expand(1, 4, 3)
    vehicle = dataclasses.replace(quadrotors, rotor_thrust_coefficients=linear)
    assert vehicle.hover_throttle.item() == pytest.approx(0.0306 * 9.81 / 1.2)


def test_hover_throttle_is_not_a_number_where_no_speed_carries_the_weight():
    quadrotors = load_platform("crazyflie")
    assert torch.isnan(quadrotors.with_thrust_scaled(0.5).hover_throttle).all()


def test_scaling_the_thrust_scales_thrust_to_weight():
    quadrotors = sample_quadrotors(4, seed=0)
    assert torch.allclose(quadrotors.with_thrust_scaled(1.5).thrust_to_weight, 1.5 * quadrotors.thrust_to_weight)


def test_a_state_survives_the_way_through_one_tensor():
    tensor = torch.arange(34.0).reshape(2, 17)
    state = State.from_tensor(tensor)
    assert torch.equal(state.as_tensor(), tensor)
    assert state.rotor_speed.tolist() == [[13, 14, 15, 16], [30, 31, 32, 33]]
    assert state[1].position.tolist() == [17, 18, 19]
    with pytest.raises(ValueError, match="17 components"):
        State.from_tensor(tensor[:, :16])


def test_printed_vehicles_say_in_five_lines_what_they_are():
    lines = str(load_platforms()).splitlines()
    assert len(lines) == 5
    assert lines[0] == "Quadrotors: 9 (crazyflie, x500_real, x500_sim, ...), torch.float32 on cpu"
    assert lines[1] == "  mass 0.0306 to 3.35 kg; arm length 0.0396 to 0.3187 m"
    assert "  mass 0.782 kg; arm length 0.125 m" in str(load_platform("race"))


def test_vehicles_without_numbers_can_be_printed():
    assert str(load_platforms()[:0]) == "Quadrotors: 0, torch.float32 on cpu"
    assert "meta" in str(sample_quadrotors(2, seed=0).to("meta"))
