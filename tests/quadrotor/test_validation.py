"""Every number that no vehicle can have is refused, with its field, vehicle, file and value."""

from __future__ import annotations

import dataclasses
import json
import math
import warnings

import pytest
import torch

from raptor.core.errors import UserError
from raptor.quadrotor import (
    Distribution,
    Quadrotors,
    QuadrotorWarning,
    from_description,
    load_platform,
    load_platforms,
    sample_quadrotors,
    validate,
)
from raptor.quadrotor.validation import CHARACTERISTICS


def changed(field, index, value, quadrotors=None):
    quadrotors = load_platforms(torch.float64) if quadrotors is None else quadrotors
    tensor = getattr(quadrotors, field).clone()
    tensor[index] = torch.as_tensor(value, dtype=tensor.dtype)
    return dataclasses.replace(quadrotors, **{field: tensor})


@pytest.mark.filterwarnings("error")
def test_good_vehicles_pass_unchanged():
    for quadrotors in (load_platforms(), load_platforms(torch.float64), sample_quadrotors(100, seed=0)):
        assert validate(quadrotors) is quadrotors


@pytest.mark.parametrize("field", load_platforms().tensors())
def test_a_number_that_is_not_finite_is_refused_in_every_field(field):
    for value in (math.nan, math.inf):
        with pytest.raises(UserError, match=rf"^{field}.* must be a finite number, got (nan|inf).*\(vehicle mrs\)$"):
            validate(changed(field, 3, value))


@pytest.mark.parametrize(
    ("field", "index", "value", "message"),
    [
        ("mass", 3, -0.1, "mass must be positive, got -0.1 kg (vehicle mrs)"),
        ("mass", 3, 0.0, "mass must be positive, got 0 kg (vehicle mrs)"),
        (
            "rotor_time_constants_rising",
            (3, 2),
            0.0,
            "rotor_time_constants_rising[2] must be positive, got 0 s (vehicle mrs)",
        ),
        (
            "rotor_time_constants_falling",
            (3, 0),
            -0.02,
            "rotor_time_constants_falling[0] must be positive, got -0.02 s (vehicle mrs)",
        ),
        ("action_limit", 3, [1, 1], "action_limit must be two numbers, the lower one first, got [1, 1] (vehicle mrs)"),
        (
            "rotor_thrust_directions",
            (3, 1),
            [0, 0, 2],
            "rotor_thrust_directions[1] must be a unit vector, got [0, 0, 2] (vehicle mrs)",
        ),
        (
            "rotor_torque_directions",
            (3, 1),
            [0, 0, 0],
            "rotor_torque_directions[1] must be a unit vector, got [0, 0, 0] (vehicle mrs)",
        ),
        ("rotor_torque_constants", (3, 1), -0.01, "rotor_torque_constants[1] must not be negative"),
        (
            "random_force",
            3,
            [0, -1],
            "random_force[1] has a standard deviation (std) that must not be negative, got -1 N",
        ),
        (
            "random_torque",
            3,
            [0, -1],
            "random_torque[1] has a standard deviation (std) that must not be negative, got -1 N m",
        ),
        ("position_threshold", 3, 0.0, "position_threshold must be positive, got 0 m (vehicle mrs)"),
        ("max_position", 3, -1.0, "max_position must not be negative, got -1 m (vehicle mrs)"),
        ("gravity", 3, [0, 0, 9.81], "gravity must point down, along negative z, got [0, 0, 9.81] m/s^2 (vehicle mrs)"),
        ("inertia", 3, torch.zeros(3, 3), "inertia (dynamics.J) must be symmetric, positive definite and invertible"),
        (
            "inertia_inverse",
            3,
            torch.zeros(3, 3),
            "inertia_inverse (dynamics.J_inv) must be symmetric, positive definite and invertible, "
            "got [[0, 0, 0], [0, 0, 0], [0, 0, 0]] 1/(kg m^2) (vehicle mrs)",
        ),
        ("inertia", 3, torch.ones(3, 3), "inertia (dynamics.J) must be symmetric, positive definite and invertible"),
        ("inertia_inverse", 3, -torch.eye(3), "inertia_inverse (dynamics.J_inv) must be symmetric, positive definite"),
        ("inertia_inverse", (3, 0, 1), 5.0, "inertia_inverse (dynamics.J_inv) must be symmetric"),
        (
            "inertia",
            (3, 0, 0),
            0.02,
            "inertia (dynamics.J)[0, 0] is 0.02 kg m^2, but inertia_inverse (dynamics.J_inv) says 0.00791138: "
            "correct the one that is wrong (vehicle mrs)",
        ),
    ],
)
def test_an_impossible_number_is_refused(field, index, value, message):
    with pytest.raises(UserError) as error:
        validate(changed(field, index, value))
    assert str(error.value).startswith(message)


def test_a_vehicle_that_cannot_hover_is_refused_with_its_weight():
    weak = load_platform("mrs").with_thrust_scaled(0.9 / load_platform("mrs").thrust_to_weight.item())
    message = r"mass 1.7 kg \(weight 16.68 N, thrust_to_weight 0.9\) cannot hover.*vehicle mrs"
    with pytest.raises(UserError, match=message):
        validate(weak)


def test_a_vehicle_whose_lowest_thrust_exceeds_its_weight_is_refused():
    with pytest.raises(UserError, match="cannot hover"):
        validate(changed("rotor_thrust_coefficients", (3, slice(None), 0), 10.0))


def test_unnamed_vehicles_are_called_by_their_index():
    quadrotors = sample_quadrotors(5, seed=0)
    with pytest.raises(UserError, match=r"\(vehicle 4\)$"):
        validate(changed("mass", 4, -1.0, quadrotors))


def test_the_file_is_named():
    quadrotors = changed("mass", 1, -1.0)
    with pytest.raises(UserError, match=r"\(vehicle x500_real, fleet.json\)$"):
        validate(quadrotors, "fleet.json")
    with pytest.raises(UserError, match=r"\(vehicle x500_real, b.json\)$"):
        validate(quadrotors[:2], ["a.json", "b.json"])


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("mass", -0.1, "mass must be positive, got -0.1 kg"),
        ("mass", 100.0, "cannot hover"),
        ("J", [[0.0] * 3] * 3, r"inertia \(dynamics.J\) must be symmetric, positive definite and invertible"),
        ("J_inv", [[0.0] * 3] * 3, r"inertia_inverse \(dynamics.J_inv\) must be symmetric"),
        ("rotor_time_constants_rising", [0.1, 0.1, 0.0, 0.1], r"rotor_time_constants_rising\[2\] must be positive"),
        ("action_limit", {"min": 1.0, "max": 0.0}, r"action_limit must be two numbers, .* got \[1, 0\]"),
    ],
)
def test_an_impossible_number_in_a_file_is_refused_with_the_file(tmp_path, key, value, message):
    document = load_platform("mrs").to_dicts()[0]
    document["dynamics"][key] = value
    file = tmp_path / "drone.json"
    file.write_text(json.dumps(document))
    with pytest.raises(UserError, match=message) as error:
        Quadrotors.from_json(file)
    assert f"(vehicle drone, {file})" in str(error.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rotor_positions": torch.zeros(9, 3, 3)}, r"rotor_positions must have shape \(9, 4, 3\), got \(9, 3, 3\)"),
        ({"inertia": torch.zeros(3, 3)}, r"inertia must have shape \(9, 3, 3\), got \(3, 3\)"),
        ({"mass": torch.tensor(1.0)}, r"mass must have shape \(N,\), got \(\)"),
        ({"mass": torch.ones(9, dtype=torch.int64)}, "mass must hold floating-point numbers, got torch.int64"),
        ({"names": ("a",)}, "names must be one for each of the 9 vehicles, got 1"),
    ],
)
def test_wrong_shapes_and_types_are_refused(change, message):
    with pytest.raises(UserError, match=message):
        validate(dataclasses.replace(load_platforms(), **change))


def test_the_inverse_is_the_authority_where_the_inertia_was_truncated():
    quadrotors = load_platforms(torch.float64)
    truncated = dataclasses.replace(quadrotors, inertia=(quadrotors.inertia * 1e6).round() / 1e6)
    with pytest.warns(QuadrotorWarning, match=r"rounded, as by writing six decimals; rebuilt .* \(vehicle crazyflie\)"):
        mended = validate(truncated)
    assert torch.allclose(mended.inertia, quadrotors.inertia, rtol=1e-4, atol=0)
    assert torch.allclose(mended.inertia[0], quadrotors.inertia[0], rtol=1e-9, atol=0)
    assert not torch.allclose(truncated.inertia[0], quadrotors.inertia[0], rtol=1e-2, atol=0)
    assert mended.inertia_inverse is quadrotors.inertia_inverse


def test_an_inertia_with_three_digits_is_rebuilt_too():
    coarse = changed("inertia", (3, 0, 0), 0.00791)
    with pytest.warns(QuadrotorWarning, match="vehicle mrs"):
        assert validate(coarse).inertia[3, 0, 0].item() == pytest.approx(0.007911375, rel=1e-9)


def test_an_inertia_that_was_truncated_to_zero_is_rebuilt():
    inverse = torch.diag(torch.tensor([3e6, 3e6, 2e6], dtype=torch.float64))
    tiny = dataclasses.replace(
        load_platform("crazyflie", torch.float64), inertia=torch.zeros(1, 3, 3).double(), inertia_inverse=inverse[None]
    )
    with pytest.warns(QuadrotorWarning, match="rounded"):
        mended = validate(tiny)
    assert torch.allclose(mended.inertia[0] @ inverse, torch.eye(3, dtype=torch.float64))


def test_one_warning_covers_a_whole_population():
    quadrotors = sample_quadrotors(200, seed=0, distribution="published", dtype=torch.float64)
    truncated = dataclasses.replace(quadrotors, inertia=(quadrotors.inertia * 1e6).round() / 1e6)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        validate(truncated)
    assert len(caught) == 1
    assert "more vehicles" in str(caught[0].message)


def test_rotors_in_another_order_are_called_out():
    quadrotors = load_platform("mrs")
    px4 = dataclasses.replace(
        quadrotors,
        rotor_positions=quadrotors.rotor_positions[:, [0, 2, 3, 1]],
        rotor_torque_directions=quadrotors.rotor_torque_directions[:, [0, 2, 3, 1]],
    )
    with pytest.warns(QuadrotorWarning, match="rotor_positions are not in the order front-right, back-right") as caught:
        validate(px4)
    assert len(caught) == 1


def test_rotors_that_turn_the_other_way_are_called_out():
    quadrotors = load_platform("mrs")
    reversed_ = dataclasses.replace(quadrotors, rotor_torque_directions=-quadrotors.rotor_torque_directions)
    with pytest.warns(QuadrotorWarning, match="rotor_torque_directions along z are not -1, 1, -1, 1"):
        validate(reversed_)


@pytest.mark.parametrize("field", ["rotor_time_constants_rising", "rotor_time_constants_falling"])
def test_rotors_too_fast_for_one_step_are_said_to_be_integrated_exactly_and_impossible_ones_are_refused(field):
    with pytest.warns(
        QuadrotorWarning, match=r"below 0.0125 s are too fast.*integrated exactly.*vehicle mrs"
    ) as caught:
        validate(changed(field, (3, 0), 5e-3))
    assert len(caught) == 1
    with pytest.raises(UserError, match=rf"{field}\[2\] must be at least 0.001 s.*got 0.0001 s \(vehicle mrs\)"):
        validate(changed(field, (3, 2), 1e-4))


def test_a_measured_inertia_may_exceed_the_triangle_inequality_by_a_few_percent_and_no_more():
    def measured(*moments):
        inertia = torch.diag(torch.tensor(moments, dtype=torch.float64))[None]
        return dataclasses.replace(
            load_platform("mrs", torch.float64), inertia=inertia, inertia_inverse=torch.linalg.inv(inertia)
        )

    trifilar = measured(0.0176, 0.0176, 0.0362)
    with pytest.warns(QuadrotorWarning, match=r"inertia \(dynamics.J\) is of no rigid body: the largest.*vehicle mrs"):
        assert validate(trifilar) is trifilar
    with pytest.raises(UserError, match=r"inertia.*is of no rigid body.*by more than 5 %, got .*vehicle mrs"):
        validate(measured(0.0176, 0.0176, 0.0380))


def test_rounded_thrust_coefficients_are_called_out_with_the_possible_error():
    document = load_platform("mrs").to_dicts()[0]
    rows = document["dynamics"]["rotor_thrust_coefficients"]
    document["dynamics"]["rotor_thrust_coefficients"] = [[float(f"{c:.6f}") for c in row] for row in rows]
    with pytest.warns(QuadrotorWarning, match=r"rotor_thrust_coefficients.*were rounded.*off by 20 %") as caught:
        rounded = Quadrotors.from_dicts([document], names=["mrs"])
    assert len(caught) == 1
    assert rounded.thrust_to_weight.item() == pytest.approx(2.38, abs=0.01)
    for row in document["dynamics"]["rotor_thrust_coefficients"]:
        row[1:] = [0.0, 0.0]
    with pytest.raises(
        UserError, match=r"cannot hover.*a coefficient of 0 may have been smaller than the six decimals"
    ):
        Quadrotors.from_dicts([document])


def doubts(quadrotors):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        validate(quadrotors)
    texts = [str(warning.message) for warning in caught]
    return next((text for text in texts if text.startswith("unusual for a quadrotor, check the units: ")), "")


@pytest.mark.parametrize(
    ("field", "factor", "message"),
    [
        ("rotor_positions", 1e3, "arm length 170 m (0.024 to 0.27 in training; given in mm?)"),
        ("rotor_positions", 1e2, "arm length 17 m (0.024 to 0.27 in training; given in cm?)"),
        (
            "rotor_time_constants_rising",
            1e3,
            "rotor time constant, rising 40 s (0.03 to 0.1 in training; given in ms?)",
        ),
        ("rotor_time_constants_falling", 1e3, "rotor time constant, falling 40 s"),
        ("rotor_torque_constants", 1e3, "rotor torque constant 16 N m per N (0.005 to 0.05 in training; given in N mm"),
        ("rotor_torque_constants", 1e-8, "given in N m s^2 (divide it by the thrust coefficient in N s^2)?"),
        ("rotor_torque_constants", 0.0, "rotor torque constant 0 N m per N (0.005 to 0.05 in training)"),
        (
            "rotor_thrust_coefficients",
            101.97,
            "thrust-to-weight 274.5 (1.5 to 5 in training; thrust given in gram-force?)",
        ),
    ],
)
def test_a_number_in_another_unit_is_called_out_with_the_unit(field, factor, message):
    quadrotors = load_platform("mrs", torch.float64)
    assert message in doubts(dataclasses.replace(quadrotors, **{field: getattr(quadrotors, field) * factor}))


@pytest.mark.parametrize(("factor", "unit"), [(1e3, "g m^2"), (1e7, "g cm^2"), (1e-3, "")])
def test_an_inertia_in_another_unit_shows_in_the_torque_to_inertia(factor, unit):
    quadrotors = load_platform("mrs", torch.float64)
    scaled = {"inertia": quadrotors.inertia * factor, "inertia_inverse": quadrotors.inertia_inverse / factor}
    text = doubts(dataclasses.replace(quadrotors, **scaled))
    assert "torque-to-inertia" in text
    assert "(40 to 1200 in training" in text
    assert (f"inertia given in {unit}" in text) if unit else ("given" not in text)


def test_a_torque_to_inertia_just_below_that_of_training_is_called_out():
    quadrotors = load_platform("mrs", torch.float64)
    factor = quadrotors.torque_to_inertia.item() / 33
    slow = {"inertia": quadrotors.inertia * factor, "inertia_inverse": quadrotors.inertia_inverse / factor}
    assert "torque-to-inertia 33 1/s^2 (40 to 1200 in training)" in doubts(dataclasses.replace(quadrotors, **slow))


def test_the_ranges_of_training_that_are_named_are_those_of_the_distribution():
    ranges = {field.name: field.default for field in dataclasses.fields(Distribution)}
    named = {name: entry.trained for name, entry in CHARACTERISTICS.items() if name in ranges}
    assert len(named) == 6
    assert named == {name: ranges[name] for name in named}


@pytest.mark.filterwarnings("error")
def test_ordinary_quadrotors_are_not_doubted():
    for distribution in ("published", "paper"):
        validate(sample_quadrotors(20_000, seed=3, distribution=distribution))
    for mass in (0.02, 0.035, 0.1, 0.25, 0.6, 1.0, 1.5, 2.5, 4.0, 7.0, 10.0):
        for thrust_to_weight in (1.5, 2.0, 4.0, 10.0):
            for tau in (0.015, 0.05, 0.15):
                known = {"mass": mass, "thrust_to_weight": thrust_to_weight, "motor_time_constant": tau}
                from_description(known)
    from_description({"mass": 0.023, "arm_length": 0.032, "propeller_diameter": 0.031, "thrust_to_weight": 3})
    from_description({"mass": 0.25, "arm_length": 0.07, "thrust_to_weight": 12, "propeller_diameter": 0.076})
    from_description({"mass": 10, "size": [0.8, 0.8, 0.4], "thrust_to_weight": 1.8, "propeller_diameter": 0.55})
