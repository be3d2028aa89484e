"""Thrust and torque follow from the parts of a vehicle, within what data sheets and test stands measured."""

from __future__ import annotations

import math

import pytest
import torch

from raptor.core.errors import UserError
from raptor.quadrotor import QuadrotorWarning, from_description
from raptor.quadrotor.units import KGF

MEASURED = [  # KV, cells, propeller, grams of thrust: test stand of CTU Prague's MRS group, batteries full
    (920, 4, "9.4x5", 1024),
    (920, 4, "9.4 x 5 in", 989),
    (920, 4, "8x4.5", 891),
    (320, 6, "15x5.5", 2545),
    (320, 6, "15x7.5", 2373),
    (780, 4, "11x4.7", 1876),
    (780, 4, "11x5.5", 1576),
    (780, 4, "11x5", 1538),
    (780, 4, "10x4.5", 1546),
]
ADVERTISED = [  # a 2207 and an RS2205 by their data sheets; an X500 as the platform `x500_real` has it
    (1750, 6, "5.1x4.3x3", 1700),
    (2300, 4, "5x4.5", 1024),
    (920, 4, "10x4.5", 1624),
]
MULTISTAR = {50: 482, 60: 669, 70: 871, 80: 1055, 90: 1321, 100: 1546}  # throttle in % and grams of 780 KV with 10x4.5


def describe(**content):
    vehicle, estimates = from_description({"mass": 0.65, **content}, torch.float64)
    return vehicle, {estimate.field: estimate for estimate in estimates}


def full_thrust(**content):
    return describe(**content)[0].full_thrust[0, 0].item()


@pytest.mark.filterwarnings("ignore::raptor.quadrotor.QuadrotorWarning")
@pytest.mark.parametrize(("kv", "cells", "propeller", "grams"), MEASURED + ADVERTISED)
def test_motor_battery_and_propeller_give_the_thrust_within_a_factor_of_1_4(kv, cells, propeller, grams):
    thrust = full_thrust(motor_kv=kv, battery_cells=cells, propeller=propeller)
    assert 1 / 1.4 < thrust / (grams * KGF / 1000) < 1.4


def test_the_thrust_of_a_racer_is_estimated_with_every_formula_said():
    vehicle, estimates = describe(motor_kv="1750 KV", battery_cells="6S", propeller="5.1x4.3x3")
    assert 1.6 < vehicle.full_thrust[0, 0].item() / KGF < 1.8
    assert str(estimates["battery_voltage"]) == "battery_voltage = 22.2 V (3.7 V for each of 6 cells)"
    assert "0.77 x 1750 x 22.2 = 29915 rpm" in str(estimates["max_rotor_speed"])
    assert "C_T = (0.05 + 0.11 pitch / diameter) x (3 blades / 2)^0.7" in str(estimates["thrust_coefficient"])
    assert "thrust_coefficient max_rotor_speed^2" in str(estimates["max_thrust_per_motor"])
    assert vehicle.documents[0]["uncertainty"]["thrust"] == 0.3


def test_the_reaction_torque_of_a_racer_is_that_of_momentum_theory():
    vehicle, _ = describe(max_thrust_per_motor="1.6 kgf", propeller="5.1x4.3x3")
    thrust, radius, c_t = 15.0, 0.0254 * 5.1 / 2, 0.19
    turns = math.sqrt(thrust / (c_t * 1.225 * (2 * radius) ** 4))
    power = thrust * math.sqrt(thrust / (2 * 1.225 * math.pi * radius**2)) / 0.6
    assert vehicle.rotor_torque_constants[0, 0].item() == pytest.approx(
        power / (2 * math.pi * turns) / thrust, rel=1e-2
    )


@pytest.mark.parametrize("speed", ["18000 rpm", "1884.96 rad/s", 1884.96])
def test_coefficients_and_the_highest_speed_give_thrust_and_torque(speed):
    vehicle, _ = describe(thrust_coefficient=1.5e-6, torque_coefficient="1.8e-8 N m s^2", max_rotor_speed=speed)
    assert vehicle.full_thrust[0, 0].item() == pytest.approx(1.5e-6 * 1884.96**2, rel=1e-4)
    assert vehicle.rotor_torque_constants[0, 0].item() == pytest.approx(0.012)


@pytest.mark.parametrize("thrust", ["1600 g", "1.6 kgf", "15.69 N", "1600 gf", 15.69])
def test_thrust_may_be_given_in_any_unit_of_force(thrust):
    assert full_thrust(max_thrust_per_motor=thrust) == pytest.approx(15.69, rel=1e-3)


@pytest.mark.filterwarnings("ignore::raptor.quadrotor.QuadrotorWarning")
@pytest.mark.parametrize(
    "table",
    [
        [[throttle / 100, grams * KGF / 1000] for throttle, grams in MULTISTAR.items()],
        [[f"{throttle} %", f"{grams} g"] for throttle, grams in MULTISTAR.items()],
        {f"{throttle} %": f"{grams / 1000} kgf" for throttle, grams in MULTISTAR.items()},
    ],
    ids=["SI", "units", "mapping"],
)
def test_a_thrust_table_becomes_the_curve_nearest_to_it(table):
    vehicle, estimates = describe(thrust_table=table)
    for throttle, grams in MULTISTAR.items():
        thrust = vehicle.thrust(torch.full((1, 4), throttle / 100, dtype=torch.float64))[0, 0].item()
        assert thrust == pytest.approx(grams * KGF / 1000, abs=0.25)
    assert vehicle.rotor_thrust_coefficients[0, 0, 0] == 0
    assert "least squares through 6 points; they are off by 0.1" in str(estimates["thrust"])
    assert vehicle.documents[0]["uncertainty"]["thrust"] == 0.05


@pytest.mark.filterwarnings("ignore::raptor.quadrotor.QuadrotorWarning")
@pytest.mark.parametrize(
    "text",
    [
        "throttle,thrust\n" + "".join(f"{u / 100},{g * KGF / 1000}\n" for u, g in MULTISTAR.items()),
        "".join(f"{u / 100},{g * KGF / 1000}\n" for u, g in MULTISTAR.items()),
        "RPM;Thrust (g);Throttle [%]\n" + "".join(f"9000;{g},0;{u}\n" for u, g in MULTISTAR.items()),
        "ESC signal (µs)\tThrust (kgf)\n" + "".join(f"{1000 + 10 * u}\t{g / 1000}\n" for u, g in MULTISTAR.items()),
    ],
    ids=["named", "plain", "semicolons", "signal"],
)
def test_a_table_may_be_a_csv_file_beside_the_description(tmp_path, text):
    (tmp_path / "bench.csv").write_text(text, encoding="utf-8")
    (tmp_path / "drone.yaml").write_text("mass: 650 g\nthrust_table: bench.csv\n")
    vehicle, _ = from_description(tmp_path / "drone.yaml", torch.float64)
    expected, _ = describe(thrust_table=[[u / 100, g * KGF / 1000] for u, g in MULTISTAR.items()])
    torch.testing.assert_close(vehicle.rotor_thrust_coefficients, expected.rotor_thrust_coefficients)


@pytest.mark.filterwarnings("ignore::raptor.quadrotor.QuadrotorWarning")
def test_a_curve_that_would_fall_is_level_at_its_end():
    (_, linear, square), *_ = (
        describe(thrust_table=[[0.3, 4], [0.6, 8], [1, 8]])[0].rotor_thrust_coefficients[0].tolist()
    )
    assert linear + 2 * square == pytest.approx(0)
    (_, linear, square), *_ = describe(thrust_table=[[0.5, 0.5], [1, 8]])[0].rotor_thrust_coefficients[0].tolist()
    assert linear == 0 < square


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "throttle,thrust\n0.5,4\n50,8\n",
            r"bench\.csv, line 3 must have a throttle from 0 to 1.* got '50': write 50 %",
        ),
        ("throttle,thrust\n0.5,4\n1.0,much\n", r"bench\.csv, line 3 must have a thrust in N, .* got 'much'"),
        ("throttle,thrust\n0.5,4\n1.0\n", r"bench\.csv, line 3 has 1 columns, but 2 are needed"),
        ("throttle,rpm\n0.5,4\n", r"bench\.csv has no column thrust in its first line"),
        ("0.1,4\n0.2,8\n", r"needs two points above zero, one of them at 50% .* \(.*drone\.yaml, line 2\)"),
        ("0.5,0\n1,0\n", "holds no thrust above zero"),
        ("0.5,-4\n1,8\n", r"bench\.csv, line 1 must have a thrust in N, .* not below zero, got '-4'"),
        ("0.5,4\n1,8\n\n50%,5\n", r"bench\.csv, line 4 has the throttle 0.5 a second time: keep one point"),
        ("0.5,4\n1,8\n0.8,9\n", r"line 2 has less thrust \(8 N at 100%\) than at 80% \(9 N\): it must grow"),
        ("", "is empty"),
        (f"throttle,thrust\n0.5,{'4' * 200_000}\n", "cannot read the thrust_table .*bench.csv: field larger than"),
        (None, "cannot read the thrust_table"),
    ],
)
def test_a_table_that_is_none_is_refused_with_its_line(tmp_path, text, message):
    if text is not None:
        (tmp_path / "bench.csv").write_text(text)
    (tmp_path / "drone.yaml").write_text("mass: 650 g\nthrust_table: bench.csv\n")
    with pytest.raises(UserError, match=message):
        from_description(tmp_path / "drone.yaml")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"motor_kv": 1750}, "motor_kv alone does not give the thrust: it takes thrust_coefficient or propeller, and"),
        ({"thrust_coefficient": 1.5e-6}, "thrust_coefficient alone does not give the thrust"),
        (
            {"thrust_coefficient": 1.5e-6, "max_rotor_speed": 18000},
            "gives a motor 486 N, but 0.65 kg fly with 1.594 to 79.7.*: was max_rotor_speed in rpm",
        ),
        ({"thrust_coefficient": 1.6e-8, "max_rotor_speed": 1885}, r": was thrust_coefficient in N/rpm\^2\?"),
        ({"max_thrust_per_motor": 1.5}, "gives a motor 1.5 N, but 0.65 kg fly with 1.594 to .*: was thrust in kgf"),
        ({"max_thrust_per_motor": 1600}, "gives a motor 1600 N, .*: was thrust in g"),
        ({"thrust_table": [[0.5, 480], [1, 1546]]}, "thrust_table gives a motor .*: was thrust in g"),
        ({"max_rotor_speed": 30000, "propeller": "5x4.3"}, ": was max_rotor_speed in rpm"),
        ({"hover_throttle": 0.05}, "hover_throttle gives a motor 637.6 N, but .*: correct one of them"),
        (
            {"max_thrust_per_motor": 12, "thrust_table": [[0.5, 4], [1, 8]]},
            "max_thrust_per_motor is 12 N, but thrust_tab",
        ),
        (
            {"max_thrust_per_motor": "1.6 kgf", "thrust_to_weight": 4.9},
            "thrust_to_weight is 4.9, but max_thrust_per_motor and mass make it 9.843: correct one of them or leave",
        ),
        ({"thrust_table": [[50, 4], [100, 8]]}, r"thrust_table\[0\] must have a throttle from 0 to 1.*: write 50 %"),
        ({"thrust_table": [[0.5, 4], [1, 8], [0.5, 4]]}, r"thrust_table\[2\] has the throttle 0.5 a second time"),
        ({"max_thrust_per_motor": "1600 oz"}, "gives a motor 444.8 N, .*: correct its number or unit"),
        ({"thrust_table": 7}, "thrust_table must be pairs of throttle and thrust"),
    ],
)
def test_what_contradicts_or_does_not_suffice_is_a_sentence(content, message):
    with pytest.raises(UserError, match=message):
        describe(**content)


def test_a_contradiction_names_the_line(tmp_path):
    file = tmp_path / "racer.yaml"
    file.write_text("# thrust_to_weight: 9.8\nmass: 650 g\nmax_thrust_per_motor: 1.6 kgf\nthrust_to_weight: 4.9\n")
    with pytest.raises(UserError, match=r"\(.*racer\.yaml, line 4\): correct one of them"):
        from_description(file)


def test_what_is_given_twice_and_agrees_is_fine():
    vehicle, _ = describe(max_thrust_per_motor="1.6 kgf", thrust_to_weight=9.8, motor_kv=1750, battery_voltage="22.2 V")
    assert vehicle.thrust_to_weight.item() == pytest.approx(9.843, rel=1e-3)
    assert full_thrust(max_thrust_per_motor="1.5 kgf ± 10 %", thrust_to_weight="9.8 ± 10 %") == pytest.approx(1.5 * KGF)


def test_a_table_that_does_not_explain_the_hover_throttle_is_doubted():
    with pytest.warns(QuadrotorWarning, match=r"hover_throttle is 0.3, but by thrust_table it hovers at 0.44"):
        describe(hover_throttle=0.3, thrust_table=[[0.5, 2], [1, 8]])


def test_thrust_of_newtons_that_were_kilograms_is_doubted():
    with pytest.warns(
        QuadrotorWarning, match=r"thrust-to-weight 1.004 \(1.5 to 5 in training; thrust given in kgf\?\)"
    ):
        describe(max_thrust_per_motor=1.6)


def test_thrust_that_the_parts_do_not_explain_is_doubted():
    parts = {"motor_kv": 1750, "battery_cells": 6, "propeller": "5.1x4.3x3"}
    with pytest.warns(QuadrotorWarning, match="gives 2.94 N a motor, but motor, battery and propeller suggest 16.3 N"):
        describe(max_thrust_per_motor="300 g", **parts)
