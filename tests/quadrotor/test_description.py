"""What an owner knows becomes a full vehicle; what the owner does not know is estimated and said."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st

from raptor.core.errors import UserError
from raptor.environments import QuadrotorEnv
from raptor.quadrotor import Quadrotors, QuadrotorWarning, from_description, load_platforms, validate
from raptor.quadrotor.description import DESCRIPTION_KEYS, ROTORS
from raptor.quadrotor.frames import inertia_of_frame
from raptor.tasks import InitialStates, Task

EXAMPLE = Path(__file__).parents[2] / "examples" / "my_quadrotor.yaml"
KNOWN = {
    "mass": 1.5,
    "arm_length": 0.2,
    "inertia": [0.015, 0.016, 0.028],
    "thrust_to_weight": 2.5,
    "hover_throttle": 0.5,
    "motor_time_constant": {"rising": 0.03, "falling": 0.06},
    "propeller_torque_constant": 0.012,
    "front_right_spin": "counterclockwise",
}


PLUS = {"front_right": [0.17, 0], "back_right": [0, -0.17], "back_left": [-0.17, 0], "front_left": [0, 0.17]}
LAUGHS = "a0: &a0 [1, 1]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 9))


def describe(**changes):
    content = {**KNOWN, **changes}
    return from_description({key: value for key, value in content.items() if value is not None}, torch.float64)


def fields(estimates):
    return [estimate.field for estimate in estimates]


def test_what_is_known_is_taken_over_and_nothing_is_estimated():
    vehicle, estimates = describe()
    assert estimates == ()
    assert vehicle.mass.item() == 1.5
    assert vehicle.arm_length.item() == pytest.approx(0.2)
    assert torch.diagonal(vehicle.inertia[0]).tolist() == [0.015, 0.016, 0.028]
    assert vehicle.thrust_to_weight.item() == pytest.approx(2.5)
    assert vehicle.hover_throttle.item() == pytest.approx(0.5)
    assert vehicle.rotor_time_constants_rising.tolist() == [[0.03] * 4]
    assert vehicle.rotor_time_constants_falling.tolist() == [[0.06] * 4]
    assert vehicle.rotor_torque_constants.tolist() == [[0.012] * 4]
    assert vehicle.rotor_torque_directions[0, :, 2].tolist() == [-1, 1, -1, 1]
    assert vehicle.names == ("my_quadrotor",)


def test_boxes_are_scaled_to_the_arms_as_in_training():
    vehicle, _ = describe()
    assert vehicle.position_threshold.item() == pytest.approx(4.0)
    assert vehicle.max_position.item() == pytest.approx(2.0)


def test_the_example_file_is_read_and_says_what_it_estimates():
    vehicle, estimates = from_description(EXAMPLE)
    assert vehicle.dtype == torch.float32
    assert vehicle.names == ("my_quadrotor",)
    assert fields(estimates) == ["inertia", "hover_throttle", "propeller_torque_constant"]
    assert "kg m^2 ± 35 % (mass spread evenly over a box of the size: 0.78 (0.18^2 + 0.06^2) / 12" in str(estimates[0])
    assert str(estimates[2]) == (
        "propeller_torque_constant = 0.00889 N m per N ± 30 % (0.07 times the diameter of the propeller, 0.127 m)"
    )


def test_the_example_file_mentions_every_key():
    text = EXAMPLE.read_text()
    assert all(f"{key}:" in text for key in DESCRIPTION_KEYS)


def test_the_mass_alone_is_enough():
    vehicle, estimates = from_description({"mass": 1.0}, torch.float64)
    assert fields(estimates) == [
        "arm_length",
        "inertia",
        "thrust_to_weight",
        "hover_throttle",
        "motor_time_constant",
        "propeller_torque_constant",
        "front_right_spin",
    ]
    assert vehicle.arm_length.item() == pytest.approx(0.2)
    assert vehicle.thrust_to_weight.item() == pytest.approx(3.3)
    assert vehicle.rotor_torque_constants[0, 0] == 0.016
    assert vehicle.rotor_time_constants_rising[0, 0] == 0.04


def test_a_described_vehicle_can_be_saved_and_read(tmp_path):
    vehicle, _ = from_description(EXAMPLE, torch.float64)
    (path,) = vehicle.save(tmp_path)
    assert path.name == "my_quadrotor.json"
    again = Quadrotors.from_json(path, torch.float64)
    assert all(torch.equal(a, b) for a, b in zip(vehicle.tensors().values(), again.tensors().values(), strict=True))


def test_the_precision_of_the_tensors_does_not_reach_the_file():
    single, double = from_description(EXAMPLE)[0], from_description(EXAMPLE, torch.float64)[0]
    assert single.dtype == torch.float32
    assert single.to_dicts() == double.to_dicts()
    assert single.to_dicts()[0]["mdp"]["termination"]["position_threshold"] == double.position_threshold.item()


@pytest.mark.parametrize(
    ("geometry", "front_right"),
    [
        ({"arm_length": 0.2 * math.sqrt(2)}, [0.2, -0.2, 0]),
        ({"arm_length": None, "arm_offset": [0.1, 0.2]}, [0.1, -0.2, 0]),
        ({"arm_length": None, "inertia": None, "size": [0.2, 0.4, 0.1]}, [0.1, -0.2, 0]),
        (
            {
                "arm_length": None,
                "motor_positions": {
                    "front_left": [0.3, 0.1],
                    "back_left": [-0.1, 0.1, 0.01],
                    "back_right": [-0.1, -0.1],
                    "front_right": [0.3, -0.1, 0.02],
                },
            },
            [0.3, -0.1, 0.02],
        ),
    ],
)
def test_every_way_to_say_where_the_motors_are(geometry, front_right):
    vehicle, _ = describe(**geometry)
    assert vehicle.rotor_positions[0, 0].tolist() == pytest.approx(front_right)
    assert torch.equal(
        vehicle.rotor_positions[0, :, :2].sign(), torch.tensor([[1, -1], [-1, -1], [-1, 1], [1, 1]]).double()
    )


def test_the_inertia_of_a_box():
    vehicle, estimates = describe(inertia=None, size=[0.3, 0.2, 0.1])
    expected = [1.5 * (0.04 + 0.01) / 12, 1.5 * (0.09 + 0.01) / 12, 1.5 * (0.09 + 0.04) / 12]
    assert torch.diagonal(vehicle.inertia[0]).tolist() == pytest.approx(expected)
    assert fields(estimates) == ["inertia"]


def test_the_inertia_may_be_a_full_matrix():
    matrix = [[0.015, 0.001, 0], [0.001, 0.016, 0], [0, 0, 0.028]]
    assert describe(inertia=matrix)[0].inertia[0].tolist() == matrix


def test_estimated_inertias_are_within_a_factor_of_every_platform():
    for vehicle in (load_platforms(torch.float64)[i] for i in range(9)):
        estimate = inertia_of_frame(vehicle.mass.item(), vehicle.rotor_positions[0].tolist())
        ratio = np.array(estimate) / torch.diagonal(vehicle.inertia[0]).numpy()
        assert (ratio > 0.45).all()
        assert (ratio < 1.5).all()


def test_thrust_is_quadratic_in_the_throttle_where_the_hover_throttle_is_unknown():
    vehicle, estimates = describe(hover_throttle=None)
    assert fields(estimates) == ["hover_throttle"]
    assert vehicle.rotor_thrust_coefficients[0, 0, :2].tolist() == [0, 0]
    assert vehicle.hover_throttle.item() == pytest.approx(estimates[0].value) == pytest.approx(2.5**-0.5)


def test_the_hover_throttle_tells_the_thrust_where_that_is_unknown():
    vehicle, estimates = describe(thrust_to_weight=None)
    assert vehicle.thrust_to_weight.item() == pytest.approx(4.0)
    assert vehicle.hover_throttle.item() == pytest.approx(0.5)
    assert fields(estimates) == ["thrust_to_weight"]


def test_the_thrust_of_a_motor_may_be_given_instead():
    vehicle, _ = describe(thrust_to_weight=None, max_thrust_per_motor=2.5 * 1.5 * 9.81 / 4)
    assert vehicle.thrust_to_weight.item() == pytest.approx(2.5)


def test_a_single_time_constant_serves_for_both_directions():
    for given_ in (0.05, {"falling": 0.05}, {"rising": 0.05}):
        vehicle, estimates = describe(motor_time_constant=given_)
        assert vehicle.rotor_time_constants_rising.tolist() == vehicle.rotor_time_constants_falling.tolist()
        assert vehicle.rotor_time_constants_rising[0, 0] == 0.05
        assert len(estimates) == isinstance(given_, dict)


@pytest.mark.parametrize(
    "inertia", ["[15e-3, 1.6e-2, 28e-3]", "[[15e-3, 0, 0], [0, 1.6e-2, 0], [0, 0, 28e-3]]", "['15e-3', 0.016, 0.028]"]
)
def test_numbers_may_have_an_exponent_wherever_they_stand(tmp_path, inertia):
    file = tmp_path / "drone.yaml"
    corners = ", ".join(
        f"{rotor}: [{x}1e-1, {y}15e-2, 0e0]" for rotor, x, y in zip(ROTORS, "+--+", "--++", strict=True)
    )
    file.write_text(f"mass: 1e0\nmotor_positions: {{{corners}}}\ninertia: {inertia}\n")
    vehicle, _ = from_description(file)
    assert torch.diagonal(vehicle.inertia[0]).tolist() == pytest.approx([0.015, 0.016, 0.028])
    assert vehicle.rotor_positions[0, 0].tolist() == pytest.approx([0.1, -0.15, 0.0])


def test_arrays_and_numbers_of_numpy_are_numbers():
    vehicle, _ = describe(mass=np.float32(1.5), inertia=np.array([0.015, 0.016, 0.028]), thrust_to_weight=np.int64(2))
    assert torch.diagonal(vehicle.inertia[0]).tolist() == [0.015, 0.016, 0.028]
    assert vehicle.thrust_to_weight.item() == pytest.approx(2.0)


@pytest.mark.parametrize("turn", [1, -1])
@pytest.mark.filterwarnings("error")
def test_a_plus_frame_is_described_and_hovers_whichever_way_it_is_turned(turn):
    """The front motor is front_right, or front_left."""
    corners = [PLUS[rotor] for rotor in ROTORS]
    corners = corners if turn == 1 else [*corners[1:], corners[0]]
    known = {"mass": 0.716, "inertia": [0.007, 0.007, 0.012], "max_thrust_per_motor": 6.0}
    vehicle, _ = from_description({**known, "motor_positions": dict(zip(ROTORS, corners, strict=True))})
    assert vehicle.arm_length.item() == pytest.approx(0.17)
    assert vehicle.torque_to_inertia.item() == pytest.approx(2**0.5 * 0.085 * 6 / 0.007)
    env = QuadrotorEnv(vehicle, Task(initial_states=InitialStates(guidance=1.0)), compile=False)
    env.reset(seed=0)
    for _ in range(50):
        result = env.step(2 * vehicle.hover_throttle.expand(1, 4) - 1)
    assert not result.terminated.any()


@pytest.mark.parametrize(
    ("content", "texts"),
    [
        (
            {"mass": 780, "arm_length": 125, "motor_time_constant": 35, "propeller_diameter": 5},
            (
                "mass 780 kg (0.02 to 5 in training; given in g?)",
                "arm length 125 m (0.024 to 0.27 in training; given in mm?)",
                "rotor time constant, rising 35 s (0.03 to 0.1 in training; given in ms?)",
                "propeller_diameter 5 m (0.07 to 0.7 in training; given in inches?)",
            ),
        ),
        (
            {
                "mass": 0.044,
                "arm_length": 0.043,
                "inertia": [3.3e-5, 3.6e-5, 5.9e-5],
                "max_thrust_per_motor": 0.389,
                "motor_time_constant": 0.05,
                "propeller_torque_constant": 7.8e-10,
            },
            ("rotor torque constant 7.8e-10 N m per N (0.005 to 0.05 in training; given in N m s^2",),
        ),
    ],
    ids=["grams", "squared speed"],
)
def test_slipped_units_are_named_with_value_range_and_likely_unit(content, texts):
    with pytest.warns(QuadrotorWarning, match="unusual for a quadrotor, check the units") as caught:
        from_description(content)
    said = " ".join(str(warning.message) for warning in caught)
    assert all(text in said for text in texts)
    assert "torque-to-inertia" not in said  # of what is wrong already


def test_a_length_in_inches_is_called_out():
    with pytest.warns(QuadrotorWarning, match=r"propeller_diameter 5 m \(0.07 to 0.7 in training; given in inches\?\)"):
        describe(propeller_torque_constant=None, propeller_diameter=5)
    with pytest.raises(UserError, match=r"size is 361 m along its diagonal, but the motors are 0.4 m apart.*in mm\?"):
        describe(inertia=None, size=[300, 200, 100])


@pytest.mark.filterwarnings("error")
def test_fast_motors_are_described_and_said_to_be_integrated_exactly():
    with pytest.warns(QuadrotorWarning, match="integrated exactly") as caught:
        vehicle, _ = describe(motor_time_constant=4e-3)
    assert len(caught) == 1
    assert vehicle.shortest_time_constant.item() == 4e-3


@pytest.mark.filterwarnings("ignore::raptor.quadrotor.QuadrotorWarning")
def test_the_sense_of_rotation_mirrors_the_yaw_torque():
    vehicle, _ = describe(front_right_spin="clockwise")
    assert vehicle.rotor_torque_directions[0, :, 2].tolist() == [1, -1, 1, -1]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mass": None}, "mass is missing"),
        ({"mass": -1}, r"mass must be a positive number \(kg\), got -1"),
        ({"mass": "heavy"}, "mass must be a positive number .* got 'heavy'"),
        ({"mass": True}, "mass must be a positive number .* got True"),
        ({"mass": math.nan}, "mass must be a positive number .* got nan"),
        ({"mass": [1]}, r"mass must be a positive number .* got \[1\]"),
        ({"colour": "red"}, "unknown key colour.*: the keys are name, mass, frame, wheelbase"),
        ({"name": 7}, "name must be text, got 7"),
        ({"mas": 1}, "unknown key mas.*: did you mean mass"),
        ({"weight": 1}, "unknown key weight.*: did you mean mass"),
        ({"Inertia": 1}, "unknown key Inertia.*: did you mean inertia"),
        ({"a": 1}, "unknown key a: the keys are name, mass"),
        ({"name": " "}, "name must be a line of text, neither empty nor with control characters, got ' '"),
        ({"name": "a\nb"}, r"name must be a line of text, .*, got 'a\\nb'"),
        (
            {"size": "220 x 180 x 60 mm", "arm_length": "50 mm"},
            "size is 0.284 m along .* motors are 0.1 m apart by the",
        ),
        ({"kv": 1750}, "unknown key kv.*: did you mean motor_kv"),
        ({"arm_offset": [0.1, 0.1]}, "arm_length is 0.2 m, but the other lengths make it 0.1414 m"),
        ({"wheelbase": "220 mm"}, "arm_length is 0.2 m, but the other lengths make it 0.11 m"),
        ({"wheelbase": 0.4, "diagonal": 0.4}, "wheelbase and diagonal exclude each other"),
        ({"frame": "h"}, "frame must be x, plus, wide-x, deadcat"),
        ({"frame": ["x"]}, "frame must be x, plus, wide-x, deadcat"),
        ({"frame": "plus", "arm_length": None, "arm_offset": [0.1, 0.1]}, "arm_offset is for X frames, not for plus"),
        ({"centre_of_mass": 0.1}, "centre_of_mass must be .x forward, y left."),
        (
            {"centre_of_mass": [0.3, 0]},
            "centre_of_mass is too far from the middle.*: to hover level, front_(left|right) must",
        ),
        (
            {"max_thrust_per_motor": 10},
            "thrust_to_weight is 2.5, but max_thrust_per_motor and mass make it 2.718",
        ),
        ({"inertia": [150, 160, 280]}, r"inertia 150 kg m\^2 is .* times what the mass .*; given in kg cm\^2"),
        ({"motor_kv": "fast"}, "motor_kv must be a positive number .* got 'fast'"),
        ({"battery_cells": 2.5, "motor_kv": 900}, "battery_cells must be a whole number from 1 to 14, got 2.5"),
        ({"propeller": 5045}, "propeller must be diameter x pitch.*, as 5x4.3 or 5.1x4.3x3, got 5045"),
        (
            {"torque_coefficient": 1e-9, "propeller_torque_constant": None},
            "torque_coefficient needs thrust_coefficient",
        ),
        ({"arm_length": 0}, r"arm_length must be a positive number \(m\), got 0"),
        ({"arm_length": None, "arm_offset": [0.1]}, "arm_offset must be 2 positive numbers"),
        ({"arm_length": None, "arm_offset": 0.1}, "arm_offset must be 2 positive numbers"),
        ({"arm_length": None, "motor_positions": [0.1]}, "motor_positions must have the keys front_right, back_right"),
        ({"arm_length": None, "motor_positions": {}}, "motor_positions needs front_right"),
        (
            {"arm_length": None, "motor_positions": {"front_right": [0.1, 0.1]}},
            "motor_positions must have front_right at x >= 0 and y <= 0",
        ),
        ({"arm_length": None, "motor_positions": {"front": [0.1, 0.1]}}, r"unknown key motor_positions\.front"),
        ({"inertia": [0.1, 0.1]}, "inertia must be 3 positive numbers"),
        ({"inertia": [0.1, 0.1, -0.1]}, "inertia must be 3 positive numbers"),
        ({"inertia": 0.1}, "inertia must be 3 positive numbers"),
        ({"inertia": []}, "inertia must be"),
        ({"inertia": [[0.1, 0], [0, 0.1]]}, "inertia must be .* a 3x3 matrix"),
        ({"inertia": [[0.1, 0, 0], [0, 0.1, 0], [0, 0, "x"]]}, "inertia must be .* a 3x3 matrix"),
        ({"inertia": [[0.1, 0.05, 0], [0, 0.1, 0], [0, 0, 0.1]]}, "inertia must be symmetric"),
        ({"inertia": [[0, 0, 0], [0, 0, 0], [0, 0, 0]]}, "inertia must be symmetric and positive definite"),
        ({"inertia": [0.01, 0.01, 0.03]}, "inertia .*is of no rigid body"),
        ({"thrust_to_weight": 0.9}, "thrust_to_weight must be above 1 for the vehicle to hover, got 0.9"),
        (
            {"thrust_to_weight": None, "max_thrust_per_motor": 3.0},
            "max_thrust_per_motor gives a motor 3 N, but 1.5 kg fly with 3.679 to 183.9 N.*: was thrust in kgf",
        ),
        ({"hover_throttle": 1.2}, "hover_throttle must be between 0 and 1, got 1.2"),
        ({"hover_throttle": 0.9}, "hover_throttle must be between 0.225 and 0.632 where full thrust is 2.5 times"),
        ({"motor_time_constant": -0.1}, "motor_time_constant must be a positive number"),
        (
            {"arm_length": None, "motor_positions": {rotor: [0.1, 0] for rotor in ROTORS}},
            "motor_positions must have back_right at x <= 0 and y <= 0",
        ),
        (
            {
                "arm_length": None,
                "motor_positions": {**PLUS, "front_left": [0.17, 0]},
            },
            "motor_positions must go clockwise, seen from above: front_right, back_right, back_left, front_left",
        ),
        ({"motor_time_constant": 1e-4}, "motor_time_constant must be at least 0.001 s, the shortest .*got 0.0001"),
        ({"motor_time_constant": {"rising": 0.03, "falling": 1e-4}}, r"motor_time_constant\.falling must be at least"),
        ({"motor_time_constant": {}}, "motor_time_constant needs a number, or rising and falling"),
        ({"motor_time_constant": {"up": 1}}, r"unknown key motor_time_constant\.up: the keys are rising, falling"),
        ({"motor_time_constant": {"rising": 0}}, r"motor_time_constant\.rising must be a positive number \(s\), got 0"),
        ({"front_right_spin": "left"}, "front_right_spin must be counterclockwise or clockwise, got 'left'"),
        ({"front_right_spin": ["clockwise"]}, "front_right_spin must be counterclockwise or clockwise"),
    ],
)
def test_a_mistake_is_named_with_its_key_and_value(changes, message, tmp_path):
    with pytest.raises(UserError, match=message):
        describe(**changes)
    file = tmp_path / "drone.yaml"
    file.write_text(yaml.safe_dump({key: value for key, value in {**KNOWN, **changes}.items() if value is not None}))
    with pytest.raises(UserError, match=r"drone\.yaml"):
        from_description(file)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"mass: [1", "is not valid YAML"),
        (b"\xff\xfe\x00", "is not valid YAML"),
        (b"!!python/object/apply:os.system ['true']", "is not valid YAML"),
        (b"", "must hold keys with values, at least mass, got None"),
        (b"mass: 1\nmass: 2", "is not valid YAML: .*the key mass comes twice"),
        (b"mass: &m [*m]", "is not valid YAML: .*contains itself"),
        (LAUGHS.encode(), "is not valid YAML: .*it holds more than 100000 values"),
        (b"mass: 1\ndynamics: {mass: 1}", "no description, but full parameters already: use it as it is"),
        (b"- 1", r"must hold keys with values, at least mass, got \[1\]"),
    ],
)
def test_a_file_that_is_no_description_is_refused(tmp_path, content, message):
    file = tmp_path / "drone.yaml"
    file.write_bytes(content)
    with pytest.raises(UserError, match=message):
        from_description(file)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"cannot read .*nowhere\.yaml"):
        from_description(tmp_path / "nowhere.yaml")


@pytest.mark.filterwarnings("ignore::raptor.quadrotor.QuadrotorWarning")
@pytest.mark.parametrize("size", [5e-324, 1e-200, 1e-30, 1e30, 1e200, 1.7e308])
@pytest.mark.parametrize(
    "key", [key for key in DESCRIPTION_KEYS if key not in ("arm_offset", "motor_positions", "inertia", "size")]
)
def test_numbers_of_absurd_size_are_understood_or_refused(key, size):
    try:
        vehicle, _ = from_description({"mass": 1.0, key: size}, torch.float64)
    except UserError:
        return
    assert all(torch.isfinite(tensor).all() for tensor in vehicle.tensors().values())


scalars = st.none() | st.booleans() | st.integers(-10, 10) | st.floats() | st.text(max_size=5)
values = st.recursive(scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner))


@given(
    st.sampled_from([key for key in DESCRIPTION_KEYS if key not in ("arm_offset", "motor_positions", "size")]), values
)
@pytest.mark.filterwarnings("ignore::raptor.quadrotor.QuadrotorWarning")
def test_any_value_of_any_key_is_understood_or_refused(key, value):
    try:
        vehicle, _ = from_description({"mass": 1.0, key: value}, torch.float64)
    except UserError:
        return
    assert validate(vehicle) is vehicle


@pytest.mark.filterwarnings("ignore::raptor.quadrotor.QuadrotorWarning")
@given(
    mass=st.floats(0.02, 20),
    arm=st.floats(0.02, 1),
    thrust_to_weight=st.floats(1.05, 15),
    position=st.floats(0, 1),
)
def test_any_plausible_description_hovers_where_it_says(mass, arm, thrust_to_weight, position):
    least, most = 1 - math.sqrt(1 - 1 / thrust_to_weight), math.sqrt(1 / thrust_to_weight)
    hover = least + position * (most - least)
    vehicle, _ = from_description(
        {"mass": mass, "arm_length": arm, "thrust_to_weight": thrust_to_weight, "hover_throttle": hover}, torch.float64
    )
    assert vehicle.hover_throttle.item() == pytest.approx(hover, rel=1e-6)
    assert vehicle.thrust_to_weight.item() == pytest.approx(thrust_to_weight)
