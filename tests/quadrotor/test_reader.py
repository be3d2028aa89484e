"""One reader knows what it is given: a platform, a file of parameters, a description, a folder, or several of these."""

from __future__ import annotations

import json

import pytest
import torch
import yaml

import raptor
from raptor.core.errors import UserError
from raptor.quadrotor import from_description, load_platform, load_quadrotors, sample_quadrotors
from raptor.quadrotor.population import write_population

DESCRIPTION = {"mass": 0.65, "arm_length": 0.11}


@pytest.fixture
def folder(tmp_path):
    """2.yaml and a.json are descriptions, 10.json and b.yaml full parameters."""
    race = load_platform("race").to_dicts()[0]
    (tmp_path / "10.json").write_text(json.dumps(race))
    (tmp_path / "2.yaml").write_text(yaml.safe_dump(DESCRIPTION))
    (tmp_path / "a.json").write_text(json.dumps(DESCRIPTION, indent="\t"))
    (tmp_path / "b.yaml").write_text(yaml.safe_dump(race))
    return tmp_path


def test_a_platform_is_found_by_its_name():
    assert load_quadrotors("x500_real").mass.item() == 2.0
    assert raptor.load_quadrotors is load_quadrotors


def test_vehicles_and_the_content_of_a_description_are_taken_as_they_are():
    vehicles = sample_quadrotors(2, seed=0)
    assert load_quadrotors(vehicles) is vehicles
    assert load_quadrotors(DESCRIPTION).mass.item() == pytest.approx(0.65)


@pytest.mark.parametrize("name", ["2.yaml", "a.json"])
def test_a_description_is_read_from_yaml_and_json(folder, name):
    described, read = from_description(DESCRIPTION)[0], load_quadrotors(folder / name)
    assert read.names == (name.split(".")[0],)
    assert all(torch.equal(a, b) for a, b in zip(described.tensors().values(), read.tensors().values(), strict=True))


@pytest.mark.parametrize("name", ["10.json", "b.yaml"])
def test_full_parameters_are_read_from_json_and_yaml(folder, name):
    race, read = load_platform("race"), load_quadrotors(str(folder / name))
    assert all(torch.equal(a, b) for a, b in zip(race.tensors().values(), read.tensors().values(), strict=True))


def test_a_folder_may_hold_all_kinds_and_is_read_in_natural_order(folder):
    vehicles = load_quadrotors(folder)
    assert vehicles.names == ("2", "10", "a", "b")
    assert vehicles.mass.tolist() == pytest.approx([0.65, 0.782, 0.65, 0.782])
    assert len(vehicles.documents) == 4


def test_the_summary_of_a_population_is_no_vehicle(tmp_path):
    write_population(sample_quadrotors(2, seed=0), tmp_path / "population", seed=0)
    assert load_quadrotors(tmp_path / "population").names == ("0000", "0001")


def test_several_sources_become_one_population_in_their_order(folder):
    vehicles = load_quadrotors(["race", folder / "2.yaml", sample_quadrotors(2, seed=0), folder])
    assert len(vehicles) == 8
    assert vehicles.mass[:2].tolist() == pytest.approx([0.782, 0.65])


def test_a_vehicle_that_stands_there_twice_is_refused(folder):
    (folder / "2.json").write_text("{}")
    with pytest.raises(UserError, match="holds 2 as JSON and as YAML: keep one of them, or name the file"):
        load_quadrotors(folder)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("nimbus", "there is no quadrotor 'nimbus': give one of crazyflie, .*, random, a JSON file, a YAML descr"),
        ([], "no quadrotors were given"),
        ("empty", r"empty holds no vehicles, neither \*\.json nor \*\.yaml"),
        ("list.json", r"must be a JSON object with the group dynamics, got \[1\] \(.*list\.json"),
        ("list.yaml", r"list\.yaml must hold keys with values, at least mass, got \[1\]"),
        ("broken.json", r"broken\.json is not valid JSON"),
    ],
)
def test_what_is_no_vehicle_is_named(tmp_path, monkeypatch, source, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "list.json").write_text("[1]")
    (tmp_path / "list.yaml").write_text("[1]")
    (tmp_path / "broken.json").write_text("{")
    with pytest.raises(UserError, match=message):
        load_quadrotors(source, "random")
