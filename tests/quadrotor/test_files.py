"""Vehicles go to l2f's JSON schema and back without losing a digit or a key."""

from __future__ import annotations

import copy
import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from raptor.core.errors import UserError
from raptor.quadrotor import PLATFORMS, Quadrotors, QuadrotorWarning, load_platform, load_platforms, sample_quadrotors
from raptor.quadrotor.parameters import DEFAULT_GROUPS, PORTION, TEMPLATE, format_document


@pytest.fixture
def document():
    return load_platform("race").to_dicts()[0]


def write(path: Path, document) -> Path:
    path.write_text(json.dumps(document), encoding="utf-8")
    return path


def leaves(node, path=()):
    if isinstance(node, dict):
        for key, value in node.items():
            yield (*path, key), value
            yield from leaves(value, (*path, key))


def at(document, path):
    for key in path:
        document = document[key]
    return document


KEYS_WITHIN_GROUPS = [path for path, _ in leaves(TEMPLATE) if len(path) > 1]


def test_a_file_that_l2f_wrote_is_read_and_has_exactly_the_keys_of_the_schema():
    file = Path(__file__).parents[1] / "data" / "l2f_default.json"  # `parameters_to_json` of l2f 2.0.18
    recorded = json.loads(file.read_text())
    assert [path for path, _ in leaves(recorded)] == [path for path, _ in leaves(TEMPLATE)]
    with pytest.warns(QuadrotorWarning, match="six decimals"):
        quadrotors = Quadrotors.from_json(file)
    assert quadrotors.inertia[0, 0, 0].item() == pytest.approx(9.416557e-06, rel=1e-6)
    assert quadrotors.thrust_to_weight.item() == pytest.approx(1.467, abs=1e-3)
    written = quadrotors.to_dicts()[0]
    for document in (written, recorded):
        del document["dynamics"]["J"], document["dynamics"]["hovering_throttle_relative"]
    assert written == recorded


def test_reading_and_writing_returns_the_same_file(tmp_path):
    source = Path(load_platforms.__code__.co_filename).parent / "platforms"
    Quadrotors.from_json(source).save(tmp_path / "out")
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == sorted(f"{name}.json" for name in PLATFORMS)
    for name in names:
        assert (tmp_path / "out" / name).read_text() == (source / name).read_text()


def test_single_precision_tensors_do_not_degrade_an_untouched_vehicle(document):
    document["dynamics"]["mass"] = 0.7820000000000123
    quadrotors = Quadrotors.from_dicts([document], dtype=torch.float32)
    assert quadrotors.to_dicts()[0]["dynamics"]["mass"] == 0.7820000000000123
    assert quadrotors.to(dtype=torch.float64).to_dicts()[0]["dynamics"]["mass"] == 0.7820000000000123


def test_double_precision_keeps_every_digit():
    quadrotors = sample_quadrotors(20, seed=0, dtype=torch.float64)
    back = Quadrotors.from_dicts(json.loads(json.dumps(quadrotors.to_dicts())), dtype=torch.float64)
    for before, after in zip(quadrotors.tensors().values(), back.tensors().values(), strict=True):
        assert torch.equal(before, after)


def test_single_precision_numbers_read_back_equal(tmp_path):
    quadrotors = sample_quadrotors(20, seed=0)
    quadrotors.save(tmp_path)
    back = Quadrotors.from_json(tmp_path)
    for before, after in zip(quadrotors.tensors().values(), back.tensors().values(), strict=True):
        assert torch.equal(before, after)


def test_a_changed_vehicle_writes_its_changed_numbers_and_keeps_the_rest(document):
    document["ui"] = {"model": "race"}
    document["mdp"]["reward"]["position"] = 3.5
    stronger = Quadrotors.from_dicts([document]).with_thrust_scaled(1.25)
    written = stronger.to_dicts()[0]
    curve = written["dynamics"]["rotor_thrust_coefficients"]
    assert np.allclose(curve, np.multiply(1.25, document["dynamics"]["rotor_thrust_coefficients"]), rtol=1e-6)
    assert written["dynamics"]["hovering_throttle_relative"] == pytest.approx(stronger.hover_throttle.item(), rel=1e-5)
    assert written["dynamics"]["mass"] == document["dynamics"]["mass"]
    assert written["ui"] == {"model": "race"}
    assert written["mdp"]["reward"]["position"] == 3.5


def test_accompanying_numbers_stand_at_their_places(document):
    document["disturbances"] = {"random_force": {"mean": 0.1, "std": 0.2}, "random_torque": {"mean": 0.3, "std": 0.4}}
    document["mdp"]["termination"]["position_threshold"] = 3.0
    document["mdp"]["init"]["max_position"] = 1.5
    quadrotors = Quadrotors.from_dicts([document], dtype=torch.float64)
    assert quadrotors.random_force.tolist() == [[0.1, 0.2]]
    assert quadrotors.random_torque.tolist() == [[0.3, 0.4]]
    assert quadrotors.position_threshold.tolist() == [3.0]
    assert quadrotors.max_position.tolist() == [1.5]
    assert quadrotors.to_dicts() == [document]


def test_the_group_dynamics_is_enough(document):
    quadrotors = Quadrotors.from_dicts([{"dynamics": document["dynamics"]}])
    written = quadrotors.to_dicts()[0]
    assert {group: written[group] for group in DEFAULT_GROUPS} == DEFAULT_GROUPS
    assert written["mdp"]["reward"]["constant"] == 1.5
    assert written["mdp"]["reward"]["termination_penalty"] == -100
    assert written["trajectory"]["mixture"] == [0.5, 0.5]
    assert quadrotors.position_threshold.tolist() == [1.0]


def test_the_true_hover_throttle_replaces_a_stale_one(document):
    document["dynamics"]["hovering_throttle_relative"] = 0.99
    assert Quadrotors.from_dicts([document]).to_dicts()[0]["dynamics"]["hovering_throttle_relative"] == pytest.approx(
        0.281, abs=1e-3
    )


def test_unknown_keys_are_kept_wherever_they_stand(document):
    document["ui"] = {"a": [1, None, "x"]}
    document["dynamics"]["drag"] = 0.1
    document["mdp"]["reward"]["style"] = "smooth"
    assert Quadrotors.from_dicts([document]).to_dicts() == [document]


def test_the_documents_handed_in_and_out_are_copies(document):
    given = copy.deepcopy(document)
    quadrotors = Quadrotors.from_dicts([given])
    quadrotors.to_dicts()[0]["dynamics"]["mass"] = 7.0
    given["mdp"]["init"]["guidance"] = 0.7
    assert quadrotors.to_dicts() == [document]


def test_tuples_and_arrays_serve_as_lists(document):
    document["dynamics"]["rotor_positions"] = np.array(document["dynamics"]["rotor_positions"])
    document["dynamics"]["gravity"] = tuple(document["dynamics"]["gravity"])
    assert torch.equal(Quadrotors.from_dicts([document]).rotor_positions, load_platform("race").rotor_positions)


def test_a_truncated_inertia_is_rebuilt_from_its_inverse_with_a_warning(tmp_path):
    document = load_platform("crazyflie").to_dicts()[0]
    document["dynamics"]["J"] = [[float(f"{x:.6f}") for x in row] for row in document["dynamics"]["J"]]
    assert document["dynamics"]["J"][0][0] == 9e-6
    path = write(tmp_path / "drone.json", document)
    with pytest.warns(
        QuadrotorWarning, match=r"inertia \(dynamics.J\) was rounded, as by writing six decimals; rebuilt.*drone\.json"
    ):
        quadrotors = Quadrotors.from_json(path)
    assert quadrotors.inertia[0, 0, 0].item() == pytest.approx(9.416556729e-6, rel=1e-6)
    rebuilt = quadrotors.to_dicts()[0]["dynamics"]["J"]
    assert rebuilt[2][2] == pytest.approx(1.745951732253285e-05, rel=1e-10)
    assert Quadrotors.from_dicts(quadrotors.to_dicts()).documents == quadrotors.documents  # and no second warning


@pytest.mark.filterwarnings("error")
def test_an_inertia_with_float32_rounding_is_no_reason_to_warn(document):
    document["dynamics"]["J"] = [[x * (1 + 1e-6) for x in row] for row in document["dynamics"]["J"]]
    torch.testing.assert_close(Quadrotors.from_dicts([document]).inertia[0], torch.tensor(document["dynamics"]["J"]))


def test_folders_are_read_in_natural_order_and_files_name_their_vehicles(tmp_path, document):
    for name in ("10", "2", "1"):
        write(tmp_path / f"{name}.json", document)
    (tmp_path / "notes.txt").write_text("not a vehicle")
    assert Quadrotors.from_json(tmp_path).names == ("1", "2", "10")
    listed = Quadrotors.from_json([tmp_path / "10.json", str(tmp_path / "1.json")])
    assert listed.names == ("10", "1")
    assert len(Quadrotors.from_json(str(tmp_path / "2.json"))) == 1


def test_the_requested_precision_is_given(document):
    assert Quadrotors.from_dicts([document]).dtype == torch.float32
    assert Quadrotors.from_dicts([document], dtype=torch.float64).dtype == torch.float64


@pytest.mark.filterwarnings("ignore::raptor.quadrotor.QuadrotorWarning")
def test_numbers_that_the_precision_cannot_hold_are_refused(document):
    document["disturbances"]["random_force"]["std"] = 1e300
    with pytest.raises(UserError, match=r"random_force holds 1e\+300, which torch.float32 cannot"):
        Quadrotors.from_dicts([document])
    assert Quadrotors.from_dicts([document], dtype=torch.float64).random_force[0, 1] == 1e300


@pytest.mark.parametrize("path", KEYS_WITHIN_GROUPS, ids=".".join)
def test_within_a_group_every_key_is_required(tmp_path, document, path):
    del at(document, path[:-1])[path[-1]]
    file = write(tmp_path / "drone.json", document)
    with pytest.raises(UserError) as error:
        Quadrotors.from_json(file)
    assert str(error.value).startswith(f"{'.'.join(path)} is missing ({file})")


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("dynamics", "mass"), "heavy", "dynamics.mass must be a finite number, got 'heavy'"),
        (("dynamics", "mass"), None, "dynamics.mass must be a finite number, got None"),
        (("dynamics", "mass"), True, "dynamics.mass must be a finite number, got True"),
        (("dynamics", "mass"), math.nan, "dynamics.mass must be a finite number, got nan"),
        (("dynamics", "mass"), 10**400, "dynamics.mass must be a finite number, got 1000"),
        (("dynamics", "gravity"), [0, 0, math.inf], r"dynamics.gravity\[2\] must be a finite number, got inf"),
        (("dynamics", "gravity"), -9.81, r"dynamics.gravity must be an array of shape \(3,\), got shape \(\): -9.81"),
        (("dynamics", "J"), [1, 2, 3], r"dynamics.J must be an array of shape \(3, 3\), got shape \(3,\)"),
        (("dynamics", "J"), [[1], [2, 3], []], r"dynamics.J must be an array of shape \(3, 3\), got ragged rows"),
        (("dynamics", "J"), [], r"dynamics.J must be an array of shape \(3, 3\), got shape \(0,\)"),
        (("dynamics", "rotor_torque_constants"), [0.01] * 3, r"must be an array of shape \(4,\), got shape \(3,\)"),
        (
            ("dynamics", "action_limit"),
            [0, 1],
            r"dynamics.action_limit must be an object with keys min, max, got \[0, 1\]",
        ),
        (("mdp", "termination", "enabled"), 1, "mdp.termination.enabled must be true or false, got 1"),
        (("mdp", "reward", "scale"), [1], "mdp.reward.scale must be a finite number"),
        (("trajectory", "MIXTURE_N"), 3, "trajectory.MIXTURE_N must be 2, got 3"),
        (("mdp",), None, "mdp must be an object with keys init, reward"),
        (("dynamics",), None, "dynamics must be an object with keys rotor_positions"),
    ],
)
def test_a_wrong_value_is_named_with_its_path_and_file(tmp_path, document, path, value, message):
    at(document, path[:-1])[path[-1]] = value
    file = write(tmp_path / "drone.json", document)
    with pytest.raises(UserError, match=message) as error:
        Quadrotors.from_json(file)
    assert str(file) in str(error.value)


def test_a_document_without_dynamics_is_refused(document):
    del document["dynamics"]
    with pytest.raises(UserError, match=r"^dynamics is missing \(vehicle 1\): add it$"):
        Quadrotors.from_dicts([load_platform("race").to_dicts()[0], document])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "is not valid JSON"),
        (b"", "is not valid JSON"),
        (b"\xff\xfe\x00", "is not valid JSON"),
        (b"[" * 100_000, "is not valid JSON"),
        (b"[1, 2]", "must be a JSON object with the group dynamics, got \\[1, 2\\]"),
        (b"{}", "dynamics is missing"),
        (b'{"a": 1, "a": 2}', "is not valid JSON: the key a comes twice"),
        (b'{"mass": 1}', r"drone\.json is a description .*: raptor describe .*drone\.json -o .*drone_full\.json"),
    ],
)
def test_a_file_that_is_no_vehicle_is_refused(tmp_path, content, message):
    file = tmp_path / "drone.json"
    file.write_bytes(content)
    with pytest.raises(UserError, match=message) as error:
        Quadrotors.from_json(file)
    assert str(file) in str(error.value)


def test_a_description_in_the_place_of_parameters_is_called_so_with_the_command_that_makes_them(tmp_path):
    file = tmp_path / "my drone.yaml"
    file.write_text("mass: 1\n")
    command = f"raptor describe '{file}' -o '{tmp_path / 'my drone.json'}'"
    with pytest.raises(UserError) as error:
        Quadrotors.from_json(file)
    assert str(error.value) == f"{file} is a description of a quadrotor, not its full parameters; make them: {command}"
    with pytest.raises(UserError, match=r"holds no \*.json files.*; its descriptions become such files by raptor desc"):
        Quadrotors.from_json(tmp_path)


def test_missing_files_and_empty_folders_are_named(tmp_path):
    with pytest.raises(UserError, match=r"cannot read the quadrotor file .*nowhere\.json: No such file"):
        Quadrotors.from_json(tmp_path / "nowhere.json")
    with pytest.raises(UserError, match=r"holds no \*.json files"):
        Quadrotors.from_json(tmp_path)
    with pytest.raises(UserError, match="no quadrotor files were given"):
        Quadrotors.from_json([])
    with pytest.raises(UserError, match="no quadrotors were given"):
        Quadrotors.from_dicts([])


@pytest.mark.parametrize("names", [None, ("a", "a"), ("a", "A"), ("a", "b/c"), ("a", ""), ("a", "..")])
def test_vehicles_whose_names_do_not_serve_as_files_are_numbered(tmp_path, names):
    documents = load_platforms()[:2].to_dicts()
    paths = Quadrotors.from_dicts(documents, names=names).save(tmp_path)
    assert paths == [tmp_path / "0000.json", tmp_path / "0001.json"]
    assert Quadrotors.from_json(paths).to_dicts() == documents


@pytest.mark.filterwarnings("ignore::raptor.quadrotor.QuadrotorWarning")
def test_saving_into_a_folder_of_vehicles_needs_a_word(tmp_path):
    load_platforms().save(tmp_path)
    before = {path.name: path.read_text() for path in tmp_path.iterdir()}
    with pytest.raises(UserError, match="already holds JSON files"):
        load_platforms().with_thrust_scaled(2.0).save(tmp_path)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == before
    load_platforms().with_thrust_scaled(2.0).save(tmp_path, overwrite=True)
    ratio = Quadrotors.from_json(tmp_path / "race.json").thrust_to_weight / load_platform("race").thrust_to_weight
    assert ratio.item() == pytest.approx(2.0)


def test_an_impossible_vehicle_leaves_the_folder_untouched(tmp_path):
    target = tmp_path / "out"
    with pytest.raises(UserError, match="cannot hover"):
        load_platforms().with_thrust_scaled(0.5).save(target)
    assert not target.exists()


def test_a_file_in_the_way_of_the_folder_is_named(tmp_path):
    (tmp_path / "out").write_text("mine")
    with pytest.raises(UserError, match="out is a file"):
        load_platforms().save(tmp_path / "out")
    with pytest.raises(UserError, match="cannot write quadrotors to"):
        load_platforms().save(tmp_path / "out" / "below")
    assert (tmp_path / "out").read_text() == "mine"


def test_a_write_that_fails_leaves_nothing_behind(tmp_path):
    (tmp_path / "race.json").mkdir()
    with pytest.raises(UserError, match=r"cannot write .*race\.json"):
        load_platform("race").save(tmp_path, overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["race.json"]


def test_vehicles_come_back_in_order_whatever_they_were_called(tmp_path):
    named = load_platforms()
    paths = named.save(tmp_path / "new", numbered=True)
    assert [path.name for path in paths] == [f"{i:04d}.json" for i in range(len(named))]
    for name, tensor in Quadrotors.from_json(tmp_path / "new").tensors().items():
        assert torch.equal(tensor, named.tensors()[name]), name


def test_more_than_one_portion_is_reported_and_numbered_through(tmp_path):
    num, reports = PORTION + 2, []
    quadrotors = sample_quadrotors(num, 1)
    quadrotors.save(tmp_path, numbered=True, progress=lambda done, total: reports.append((done, total)))
    assert reports == [(PORTION, num), (num, num)]
    assert torch.equal(Quadrotors.from_json(tmp_path).mass, quadrotors.mass)


def test_a_smaller_population_replaces_a_larger_one_wholly_but_nothing_else(tmp_path):
    sample_quadrotors(4, 0).save(tmp_path, numbered=True)
    for name in ("mine.json", "12.json", "0009.yaml"):
        (tmp_path / name).write_text("mine")
    with pytest.raises(UserError, match="already holds JSON files: choose another folder, or overwrite"):
        sample_quadrotors(2, 1).save(tmp_path, numbered=True)
    assert (tmp_path / "0003.json").exists()
    sample_quadrotors(2, 1).save(tmp_path, numbered=True, overwrite=True)
    assert {path.name for path in tmp_path.iterdir()} == {
        "0000.json",
        "0001.json",
        "mine.json",
        "12.json",
        "0009.yaml",
    }


def test_an_impossible_vehicle_among_many_stops_all_before_anything_is_written(tmp_path):
    quadrotors = sample_quadrotors(PORTION + 1, 0)
    mass = quadrotors.mass.clone()
    mass[-1] = -1.0
    with pytest.raises(UserError, match="mass must be positive"):
        dataclasses.replace(quadrotors, mass=mass).save(tmp_path / "new", numbered=True)
    with pytest.raises(UserError, match="there are no quadrotors to write"):
        quadrotors[:0].save(tmp_path / "new", numbered=True)
    assert not (tmp_path / "new").exists()


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(st.text(), json_values, max_size=5))
def test_formatted_documents_are_json(document):
    assert json.loads(format_document(document)) == document


@given(st.sampled_from([path for path, _ in leaves(TEMPLATE)]), json_values)
@settings(max_examples=200)
def test_any_value_anywhere_is_read_or_refused_with_its_path(path, value):
    document = load_platform("race").to_dicts()[0]
    at(document, path[:-1])[path[-1]] = value
    try:
        quadrotors = Quadrotors.from_dicts([document], dtype=torch.float64)
    except UserError as refusal:
        message = str(refusal)
        assert path[0] in message or path[-1] in message
    else:
        assert all(torch.isfinite(tensor).all() for tensor in quadrotors.tensors().values())
        assert quadrotors.to_dicts()[0].keys() == document.keys()


@given(
    field=st.sampled_from(["mass", "J", "J_inv", "rotor_positions", "rotor_thrust_coefficients", "gravity"]),
    size=st.sampled_from([0.0, 5e-324, 1e-300, 1e-30, 1e30, 1e160, 1.7e308]),
    sign=st.sampled_from([-1, 1]),
)
@pytest.mark.filterwarnings("ignore::raptor.quadrotor.QuadrotorWarning")
def test_numbers_of_absurd_size_are_read_or_refused(field, size, sign):
    document = load_platform("race").to_dicts()[0]
    original = np.array(document["dynamics"][field])
    document["dynamics"][field] = np.where(original != 0, sign * size, 0.0).tolist()
    for dtype in (torch.float32, torch.float64):
        try:
            quadrotors = Quadrotors.from_dicts([document], dtype=dtype)
        except UserError:
            continue
        assert torch.isfinite(quadrotors.inertia_inverse).all()
        assert torch.isfinite(quadrotors.hover_throttle).all()


@given(
    mass=st.floats(1e-3, 1e2),
    spread=st.tuples(*[st.floats(1e-7, 10.0)] * 3).filter(lambda m: max(m) < 1e4 * min(m)),
    thrust_to_weight=st.floats(1.01, 50),
    tau=st.floats(0.01, 1.0),
)
@settings(max_examples=50)
@pytest.mark.filterwarnings("ignore::raptor.quadrotor.QuadrotorWarning")
def test_any_possible_vehicle_survives_the_round_trip(mass, spread, thrust_to_weight, tau):
    moments = [sum(spread) - each for each in spread]  # of a mass that is spread so about the three axes
    document = load_platform("race").to_dicts()[0]
    document["dynamics"].update(
        mass=mass,
        J=np.diag(moments).tolist(),
        J_inv=np.diag([1 / moment for moment in moments]).tolist(),
        rotor_thrust_coefficients=[[0.0, 0.0, thrust_to_weight * mass * 9.81 / 4]] * 4,
        rotor_time_constants_rising=[tau] * 4,
    )
    for dtype in (torch.float32, torch.float64):
        quadrotors = Quadrotors.from_dicts([document], dtype=dtype)
        written = quadrotors.to_dicts()[0]
        hover = written["dynamics"].pop("hovering_throttle_relative")
        assert hover == pytest.approx(thrust_to_weight**-0.5)
        expected = copy.deepcopy(document)
        del expected["dynamics"]["hovering_throttle_relative"]
        assert written == expected


@pytest.mark.parametrize("path", ["a" * 5000 + ".json", "nul\0byte.json", "~nobody-of-this-name/x500.json"])
def test_a_path_that_no_file_can_have_is_a_sentence(path):
    for source in (path, [path]):
        with pytest.raises(UserError, match="cannot read the quadrotor file") as error:
            Quadrotors.from_json(source)
        assert len(str(error.value)) < 400
