"""Frames: where the motors are for what people know of theirs, and what follows for the inertia."""

from __future__ import annotations

import math

import pytest
import torch

from raptor.core.errors import UserError
from raptor.quadrotor import QuadrotorWarning, from_description

KNOWN = {"mass": 0.65, "thrust_to_weight": 4.0}


def positions(**content):
    vehicle, _ = from_description({**KNOWN, **content}, torch.float64)
    return vehicle.rotor_positions[0, :, :2].tolist()


@pytest.mark.parametrize(
    "content", [{"wheelbase": "220 mm"}, {"diagonal": "22 cm"}, {"arm_length": 0.11}, {"wheelbase": 0.22, "frame": "x"}]
)
def test_the_diagonal_or_the_arm_makes_an_x_frame(content):
    half = 0.11 / math.sqrt(2)
    corners = positions(**content)
    assert corners == [pytest.approx([x * half, y * half]) for x, y in ((1, -1), (-1, -1), (-1, 1), (1, 1))]


def test_a_plus_frame_has_its_motors_on_the_axes():
    corners = positions(wheelbase="220 mm", frame="plus")
    assert corners == [pytest.approx(corner) for corner in ([0.11, 0], [0, -0.11], [-0.11, 0], [0, 0.11])]


@pytest.mark.parametrize("frame", ["plus", "Deadcat", "wide x", "+", "dead_cat"])
def test_the_size_says_how_large_any_frame_is(frame):
    corners = positions(frame=frame, size=[0.2, 0.24, 0.05])
    assert max(x for x, _ in corners) == pytest.approx(0.1)


def test_a_wide_frame_is_wider_than_long_and_a_deadcat_wider_in_front():
    (front, _, back, left), (d_front, _, d_back, d_left) = (
        positions(wheelbase=0.45, frame=frame) for frame in ("wide-x", "deadcat")
    )
    assert left[1] == pytest.approx(1.2 * left[0])
    assert d_left[1] == pytest.approx(2.45 / 1.875 * d_back[1])
    assert math.dist(front, back) == pytest.approx(0.45) == math.dist(d_front, d_back)


def test_a_description_of_a_wide_frame_says_where_it_puts_the_motors():
    _, estimates = from_description({**KNOWN, "wheelbase": 0.45, "frame": "deadcat"})
    assert "typical proportions of deadcat, scaled to the diagonal" in str(estimates[0])


def test_units_stand_beside_positions_and_sizes():
    corners = {"front_right": ["80 mm", "-10 cm"], "back_right": ["-80 mm", -0.1]}
    corners |= {"back_left": [-0.08, 0.1, "1 cm"], "front_left": ["3.1496 in", 0.1]}
    assert positions(motor_positions=corners)[0] == pytest.approx([0.08, -0.1])
    assert positions(size="16 x 20 x 5 cm")[0] == pytest.approx([0.08, -0.1])
    assert positions(arm_offset=["80 mm", "100 mm"])[0] == pytest.approx([0.08, -0.1])


def test_the_centre_of_mass_moves_the_motors():
    vehicle, _ = from_description(
        {**KNOWN, "wheelbase": "220 mm", "centre_of_mass": ["10 mm", 0, "-5 mm"]}, torch.float64
    )
    assert vehicle.rotor_positions[0].mean(0).tolist() == pytest.approx([-0.01, 0, 0.005])


def test_a_centre_of_mass_that_the_strongest_motor_cannot_hold_is_refused():
    from_description({**KNOWN, "wheelbase": "220 mm", "centre_of_mass": ["60 mm", 0]})
    with pytest.raises(
        UserError, match=r"hover level, front_(left|right) must give 2.82 N, but motors give 0 to 1.91 N"
    ):
        from_description({**KNOWN, "wheelbase": "220 mm", "thrust_to_weight": 1.2, "centre_of_mass": ["60 mm", 0]})


@pytest.mark.parametrize(
    "inertia", [["15 kg cm^2", "16 kg cm^2", "28 kg cm^2"], ["15000 g cm²", 1.6e-3, "2800 kg mm^2"]]
)
def test_inertia_may_be_given_in_the_units_of_a_cad_program(inertia):
    vehicle, _ = from_description({**KNOWN, "wheelbase": "220 mm", "inertia": inertia}, torch.float64)
    assert vehicle.inertia[0].diagonal().tolist() == pytest.approx([1.5e-3, 1.6e-3, 2.8e-3])


@pytest.mark.parametrize(
    ("factor", "unit"), [(1e7, "g cm"), (1e6, "kg mm"), (1e4, "kg cm"), (1e3, "g m"), (1e-1, None), (10, None)]
)
def test_an_inertia_of_another_order_is_refused_or_doubted_with_the_unit_that_it_has(factor, unit):
    content = {**KNOWN, "wheelbase": "220 mm", "inertia": [1.4e-3 * factor, 1.3e-3 * factor, 2.4e-3 * factor]}
    if unit:
        with pytest.raises(UserError, match=rf"what the mass and the motors' positions suggest; given in {unit}"):
            from_description(content)
    else:
        with pytest.warns(QuadrotorWarning, match=r"inertia .* times what the mass and the motors' positions suggest"):
            from_description(content)


def test_uncertainties_are_those_written_and_larger_for_estimates():
    (document,) = from_description(
        {
            "mass": "650 g ± 5 %",
            "wheelbase": "220 +- 11 mm",
            "max_thrust_per_motor": "1.6 kgf ± 20 %",
            "motor_time_constant": {"rising": "22 ms ± 30 %"},
        }
    )[0].documents
    assert document["uncertainty"] == {
        "mass": 0.05,
        "arm_length": 0.05,
        "inertia": 0.4,
        "thrust": 0.2,
        "motor_time_constant": 0.3,
        "torque_constant": 0.5,
    }
    (given,) = from_description({**KNOWN, "wheelbase": 0.22, "inertia": [1.4e-3, 1.3e-3, 2.4e-3]})[0].documents
    assert given["uncertainty"]["inertia"] < document["uncertainty"]["inertia"]
    assert "motor_time_constant = 0.04 s ± 50 % (median of the packaged platforms)" in given["estimates"]


PARTS = {"motor_kv": 1750, "battery_voltage": 22.2, "propeller_diameter": "5 in"}
COEFFICIENTS = {"thrust_coefficient": 1.5e-6, "max_rotor_speed": "20000 rpm"}


@pytest.mark.filterwarnings("ignore::raptor.quadrotor.QuadrotorWarning")
@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ({"arm_offset": ["80 mm ± 4 %", "80 mm ± 1 %"]}, {"arm_length": 0.04}),
        ({"size": "220 x 180 x 60 mm ± 20 %"}, {"arm_length": 0.2, "inertia": 0.4}),
        ({"inertia": ["14 kg cm^2 ± 4 %", "13 kg cm^2", "24 kg cm^2"]}, {"inertia": 0.04}),
        ({"motor_time_constant": "22 ms ± 45 %"}, {"motor_time_constant": 0.45}),
        ({"motor_time_constant": {"rising": "22 ms ± 4 %", "falling": "30 ms ± 6 %"}}, {"motor_time_constant": 0.06}),
        ({"thrust_to_weight": "4 ± 4 %"}, {"thrust": 0.04}),
        ({"hover_throttle": "35 % ± 4 %"}, {"thrust": 0.25}),
        ({"hover_throttle": "35 % ± 20 %"}, {"thrust": 0.4}),
        ({"thrust_table": [["50 % ± 1 %", "230 g"], ["100 %", "765 g ± 4 %"]]}, {"thrust": 0.04}),
        ({**PARTS, "motor_kv": "1750 ± 15 %", "battery_voltage": "22 V ± 5 %"}, {"thrust": 0.4}),
        ({**PARTS, "propeller_diameter": "5 in ± 10 %"}, {"thrust": 0.4, "torque_constant": 0.3}),
        ({**COEFFICIENTS, "max_rotor_speed": "20000 rpm ± 4 %"}, {"thrust": 0.08}),
        ({**COEFFICIENTS, "torque_coefficient": "1.4e-8 ± 20 %"}, {"thrust": 0.1, "torque_constant": 0.2}),
        ({"propeller_diameter": "5 in", "propeller_pitch": "4 in ± 40 %"}, {"torque_constant": 0.4}),
    ],
)
def test_what_is_stated_about_a_key_counts_for_what_follows_from_it(content, expected):
    (document,) = from_description({"mass": 0.65, **content})[0].documents
    assert {name: document["uncertainty"][name] for name in expected} == expected


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (
            {"centre_of_mass": ["5 mm ± 4 %", 0]},
            "the uncertainty of centre_of_mass has no effect: no quantity that var",
        ),
        ({"hover_throttle": "50 % ± 4 %"}, "the uncertainty of hover_throttle has no effect"),
        ({"thrust_to_weight": None, "hover_throttle": "50 % ± 60 %"}, "hover_throttle leave thrust uncertain by 120%"),
    ],
)
def test_a_stated_uncertainty_that_cannot_be_used_is_refused(content, complaint):
    given = {"wheelbase": 0.22, **KNOWN, **content}
    with pytest.raises(UserError, match=complaint):
        from_description({key: value for key, value in given.items() if value is not None})
