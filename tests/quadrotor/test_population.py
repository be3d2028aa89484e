"""Populations in folders: written with a summary, read with every broken file named."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import pytest
import torch
import yaml

from raptor.core.errors import UserError
from raptor.quadrotor import Distribution, Quadrotors, load_platform, load_platforms, sample_quadrotors
from raptor.quadrotor.population import (
    NUM_NAMES,
    NUM_REASONS,
    QUANTITIES,
    read_population,
    scale_quantity,
    summarise,
    uncertainty_of,
    write_population,
)
from raptor.quadrotor.validation import cannot_hover
from raptor.quadrotor.vehicles import SHORTEST_TIME_CONSTANT


def changed(path: Path, field: str, value: object) -> None:
    document = json.loads(path.read_text())
    document["dynamics"][field] = value
    path.write_text(json.dumps(document))


def test_what_is_written_is_read_and_summarised(tmp_path: Path) -> None:
    quadrotors, distribution = sample_quadrotors(40, 7), Distribution(mass=(0.5, 2.0))
    paths = write_population(quadrotors, tmp_path / "new", seed=7, distribution=distribution)
    assert [path.name for path in paths] == [f"{i:04d}.json" for i in range(40)]
    read = read_population(tmp_path / "new")
    assert read.names == tuple(f"{i:04d}" for i in range(40))
    for name, tensor in read.tensors().items():
        assert torch.equal(tensor, quadrotors.tensors()[name]), name
    summary = yaml.safe_load((tmp_path / "new" / "summary.yaml").read_text(encoding="utf-8"))
    assert (summary["number"], summary["seed"], summary["share_that_cannot_hover"]) == (40, 7, 0.0)
    assert summary["distribution"]["mass"] == [0.5, 2.0]
    assert summary == summarise(quadrotors, {"seed": 7, "distribution": summary["distribution"]})
    assert (tmp_path / "new" / "summary.png").read_bytes().startswith(b"\x89PNG")


def test_the_quantiles_are_those_of_the_vehicles_in_their_units() -> None:
    quadrotors = sample_quadrotors(101, 0)
    quantiles = summarise(quadrotors)["quantiles"]
    mass = quadrotors.mass.sort().values
    places = {"min": 0, "p5": 5, "p50": 50, "p95": 95, "max": 100}
    for name, place in places.items():
        assert quantiles["mass"][name] == pytest.approx(mass[place].item(), rel=1e-5)
    assert quantiles["mass"]["unit"] == "kg"
    share = quadrotors.random_force[:, 1] / (quadrotors.mass * 9.81)
    assert quantiles["disturbance_to_weight"]["max"] == pytest.approx(share.max().item(), rel=1e-4)
    assert quantiles["rotor_time_constant_falling"]["p50"] == pytest.approx(
        quadrotors.rotor_time_constants_falling[:, 0].median().item(), rel=1e-5
    )


def test_the_share_that_cannot_hover_is_told_and_left_out_of_the_throttle() -> None:
    able = load_platform("crazyflie")
    population = Quadrotors.concatenate([able, able.with_thrust_scaled(0.1), able, able])
    assert cannot_hover(population).tolist() == [False, True, False, False]
    summary = summarise(population)
    assert summary["share_that_cannot_hover"] == 0.25
    assert summary["quantiles"]["hover_throttle"]["max"] == pytest.approx(able.hover_throttle.item(), rel=1e-5)


def test_overwriting_leaves_no_vehicle_of_the_larger_population_before(tmp_path: Path) -> None:
    write_population(sample_quadrotors(5, 0), tmp_path)
    with pytest.raises(UserError, match="already holds JSON files"):
        write_population(sample_quadrotors(2, 1), tmp_path)
    assert len(read_population(tmp_path)) == 5
    write_population(sample_quadrotors(2, 1), tmp_path, overwrite=True)
    assert torch.equal(read_population(tmp_path).mass, sample_quadrotors(2, 1).mass)


def test_the_first_vehicles_can_be_taken_and_no_more_than_there_are(tmp_path: Path) -> None:
    quadrotors = sample_quadrotors(3, 0)
    write_population(quadrotors, tmp_path)
    assert torch.equal(read_population(tmp_path, 2).mass, quadrotors.mass[:2])
    for num in (0, 4, -1, True):
        with pytest.raises(UserError, match=rf"num must be between 1 and the 3 quadrotors in .*, got {num}"):
            read_population(tmp_path, num)


def test_every_broken_file_is_named_in_one_sentence(tmp_path: Path) -> None:
    paths = write_population(sample_quadrotors(NUM_REASONS + NUM_NAMES + 6, 0), tmp_path)
    paths[0].write_text("{")
    changed(paths[2], "mass", -1.0)
    changed(paths[3], "mass", 1e6)  # too heavy to hover
    changed(paths[4], "rotor_time_constants_rising", "fast")
    with pytest.raises(UserError) as error:
        read_population(tmp_path)
    message = str(error.value)
    assert "\n" not in message
    assert message.startswith(f"4 quadrotors in {tmp_path} cannot be used: ")
    for reason in (f"{paths[0]} is not valid JSON", "mass must be positive", "cannot hover"):
        assert reason in message
    assert message.endswith("; also 0004.json")
    assert "0001.json" not in message
    for path in paths:
        path.write_text("[]")
    with pytest.raises(UserError, match=r"; also 0003\.json, .* and 6 more$") as error:
        read_population(tmp_path)
    assert re.findall(r"\d{4}\.json", str(error.value).split("; also ")[1]) == [
        path.name for path in paths[NUM_REASONS : NUM_REASONS + NUM_NAMES]
    ]


def test_a_single_broken_file_is_named_with_its_reason_alone(tmp_path: Path) -> None:
    paths = write_population(sample_quadrotors(3, 0), tmp_path)
    changed(paths[1], "mass", -1.0)
    with pytest.raises(UserError, match=r"^mass .*must be positive, got -1 kg \(vehicle 0001, .*0001\.json\)$"):
        read_population(tmp_path)


@pytest.mark.filterwarnings("ignore::raptor.quadrotor.QuadrotorWarning")
def test_vehicles_with_no_thrust_to_spare_are_refused_by_the_names_of_their_files(tmp_path: Path) -> None:
    exact = sample_quadrotors(20, 0, dtype=torch.float64)
    full_throttle = exact.rotor_thrust_coefficients / exact.thrust_to_weight[:, None, None] * (1 + 1e-12)
    dataclasses.replace(exact, rotor_thrust_coefficients=full_throttle).save(tmp_path)
    read = Quadrotors.from_json(tmp_path)  # in single precision, some lift exactly their weight, or a little less
    stuck = [f"{i:04d}.json" for i in cannot_hover(read).nonzero().flatten().tolist()]
    assert len(stuck) > NUM_REASONS
    with pytest.raises(UserError, match=rf"^{len(stuck)} quadrotors .*thrust_to_weight must be above 1") as error:
        read_population(tmp_path)
    assert sorted(set(re.findall(r"[0-9]{4}\.json", str(error.value)))) == stuck
    for name in stuck[1:]:
        (tmp_path / name).unlink()
    with pytest.raises(UserError, match=rf"^thrust_to_weight must be above 1 to hover, got .*{stuck[0]}\)$"):
        read_population(tmp_path)


def test_a_folder_without_vehicles_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"holds no \*\.json files"):
        read_population(tmp_path)
    with pytest.raises(UserError, match="is no folder of quadrotors: make one with raptor sample, or give another"):
        read_population(tmp_path / "missing")


@pytest.mark.parametrize("quantity", QUANTITIES)
def test_one_quantity_is_scaled_and_everything_that_belongs_to_it(quantity: str) -> None:
    nominal = load_platforms()
    factors = torch.linspace(0.8, 1.2, len(nominal))
    scaled = scale_quantity(nominal, quantity, factors)
    changed = {name for name, tensor in scaled.tensors().items() if not torch.equal(tensor, getattr(nominal, name))}
    assert changed == {*QUANTITIES[quantity], *(["inertia_inverse"] if quantity == "inertia" else [])}
    for name in QUANTITIES[quantity]:
        old, new = (vehicles.tensors()[name].reshape(9, -1) for vehicles in (nominal, scaled))
        torch.testing.assert_close(new, factors[:, None] * old)
    torch.testing.assert_close(scaled.inertia @ scaled.inertia_inverse, torch.eye(3).expand(9, 3, 3), atol=1e-4, rtol=0)


def test_scaled_motors_are_never_too_fast_to_be_simulated() -> None:
    fast = scale_quantity(load_platform("race"), "motor_time_constant", 1e-6)
    assert fast.shortest_time_constant.item() == pytest.approx(SHORTEST_TIME_CONSTANT)


def test_a_quantity_that_no_vehicle_has_is_refused() -> None:
    with pytest.raises(UserError, match="no quantity 'colour': choose one of mass, arm_length"):
        scale_quantity(load_platform("race"), "colour", 1.1)


def test_the_uncertainty_is_that_of_each_description_and_else_a_fifth() -> None:
    documents = load_platforms().to_dicts()[:2]
    documents[1]["uncertainty"] = {"mass": 0.05, "inertia": 0}
    found = uncertainty_of(Quadrotors.from_dicts(documents))
    assert list(found) == list(QUANTITIES)
    assert found["mass"].tolist() == pytest.approx([0.2, 0.05])
    assert found["inertia"].tolist() == pytest.approx([0.2, 0.0])
    assert found["thrust"].tolist() == pytest.approx([0.2, 0.2])
    documents[1]["uncertainty"] = {"mass": "5 %"}
    with pytest.raises(UserError, match=r"uncertainty\.mass must be at least 0 and below 1, got '5 %'"):
        uncertainty_of(Quadrotors.from_dicts(documents))
