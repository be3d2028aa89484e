"""Populations of teachers: each flies by its own weights, they can be picked and merged, and come back from files."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import raptor
from raptor.core.errors import UserError
from raptor.formats import load_teachers, save_teachers
from raptor.nn import Activations, ExpertNetwork, Normalizer, TeacherPopulation
from raptor.nn.stacked_mlp import Layer, initial_layers
from raptor.quadrotor import platforms, sample_quadrotors

WIDTHS = (26, 6, 5, 4)


def teachers(num: int = 3, seed: int = 0, widths=WIDTHS, dtype=torch.float32, vehicles=True) -> TeacherPopulation:
    layers = initial_layers(num, widths, torch.Generator().manual_seed(seed), dtype)
    records = tuple(
        {"name": f"{seed}/{i}", "return": 600.0 + i, "solved": i != 1, "position_offset": [0.1 * i, 0.0, -0.01]}
        for i in range(num)
    )
    return TeacherPopulation(layers, sample_quadrotors(num, seed) if vehicles else None, records)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    save_teachers(teachers(), tmp_path / "teachers")
    return tmp_path / "teachers"


def rewrite(folder: Path, **changes) -> None:
    document = json.loads((folder / "teachers.json").read_text()) | changes
    (folder / "teachers.json").write_text(json.dumps(document))


def reweigh(folder: Path, change) -> None:
    """Write other weights, as if they were the ones that the folder was saved with."""
    tensors = load_file(folder / "teachers.safetensors")
    save_file(change(tensors), folder / "teachers.safetensors")
    rewrite(folder, weights_sha256=None)


def refused(folder: Path, match: str) -> None:
    with pytest.raises(UserError, match=match) as error:
        load_teachers(folder)
    assert str(folder) in str(error.value)
    assert "\n" not in str(error.value)


def same(a: TeacherPopulation, b: TeacherPopulation) -> bool:
    weights = zip((t for layer in a.layers for t in layer), (t for layer in b.layers for t in layer), strict=True)
    return all(torch.equal(x, y) for x, y in weights) and a.records == b.records


def test_each_teacher_acts_by_its_own_weights_as_a_torch_network_would(generator: torch.Generator) -> None:
    population = teachers(dtype=torch.float64)
    observation = torch.randn(3, 7, 26, generator=generator, dtype=torch.float64)
    action = population(observation)
    assert action.shape == (3, 7, 4)
    for i in range(3):
        modules = []
        for layer in population.layers:
            linear = torch.nn.Linear(*layer.weight.shape[:0:-1], dtype=torch.float64)
            linear.load_state_dict({"weight": layer.weight[i], "bias": layer.bias[i]})
            modules += [linear, torch.nn.ReLU()]
        network = torch.nn.Sequential(*modules[:-1], torch.nn.Tanh())
        torch.testing.assert_close(action[i], network(observation[i]).detach())


@pytest.mark.parametrize("shape", [(3, 26), (2, 5, 26), (3, 5, 22)])
def test_observations_of_other_shapes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(UserError, match=r"must have shape \(3 teachers, batch, 26\), got \("):
        teachers()(torch.zeros(shape))


@pytest.mark.parametrize(
    ("index", "chosen"),
    [
        (1, [1]),
        (-1, [2]),
        (slice(1, None), [1, 2]),
        ([2, 0, 2], [2, 0, 2]),
        (torch.tensor([2, 1]), [2, 1]),
        (torch.tensor([True, False, True]), [0, 2]),
        ([], []),
    ],
)
def test_picked_teachers_keep_their_weights_records_and_vehicles(
    index, chosen: list[int], generator: torch.Generator
) -> None:
    population = teachers()
    observation = torch.randn(3, 5, 26, generator=generator)
    picked = population[index]
    assert len(picked) == len(chosen)
    torch.testing.assert_close(picked(observation[chosen]), population(observation)[chosen])
    assert [record["name"] for record in picked.records] == [f"0/{i}" for i in chosen]
    assert torch.equal(picked.quadrotors.mass, population.quadrotors.mass[chosen])
    assert torch.equal(picked.position_offset, population.position_offset[chosen])


def test_an_index_beyond_the_last_teacher_is_an_error() -> None:
    with pytest.raises(IndexError):
        teachers()[3]


def test_merged_populations_are_taken_apart_again() -> None:
    a, b = teachers(3, 0), teachers(2, 1)
    merged = TeacherPopulation.concatenate([a, b])
    assert same(merged[:3], a)
    assert same(merged[3:], b)
    assert torch.equal(merged.quadrotors.mass, torch.cat([a.quadrotors.mass, b.quadrotors.mass]))
    assert TeacherPopulation.concatenate([a, teachers(1, vehicles=False)]).quadrotors is None


def test_teachers_of_other_widths_cannot_be_merged() -> None:
    with pytest.raises(UserError, match="teachers of widths 26-6-5-4 and 26-8-4 cannot be one population"):
        TeacherPopulation.concatenate([teachers(), teachers(widths=(26, 8, 4))])
    with pytest.raises(UserError, match="no teachers were given"):
        TeacherPopulation.concatenate([])


def test_teachers_of_other_activations_cannot_be_merged() -> None:
    other = dataclasses.replace(teachers(), activations=Activations("elu", "clip"))
    with pytest.raises(UserError, match="teachers with relu and tanh and with elu and clip cannot be one population"):
        TeacherPopulation.concatenate([teachers(), other])


def expert(inputs: int = 26, squash: str = "clip", normalizer: Normalizer | None = None, **more) -> ExpertNetwork:
    one = initial_layers(1, (inputs, 6, 5, 4), torch.Generator().manual_seed(inputs))
    layers = tuple(Layer(3 * layer.weight[0], layer.bias[0]) for layer in one)
    return ExpertNetwork(layers, "elu", squash, normalizer=normalizer, **more)


def skewed(inputs: int) -> Normalizer:
    return Normalizer(torch.linspace(-5, 5, inputs), torch.linspace(0.02, 3, inputs))


BOUNDS = {"low": torch.tensor([0.0, -1, -3, -1]), "high": torch.tensor([1.0, 1, 2, 0])}


@pytest.mark.parametrize("inputs", [22, 26])
@pytest.mark.parametrize("squash", ["clip", "tanh"])
@pytest.mark.parametrize("bounds", [{}, BOUNDS], ids=["usual", "bounds"])
def test_experts_become_a_population_that_acts_alike(inputs: int, squash: str, bounds: dict) -> None:
    experts = [expert(inputs, squash, normalizer, **bounds) for normalizer in (None, skewed(inputs))]
    population = TeacherPopulation.of(experts, platforms()[:2])
    assert population.activations == Activations("elu", squash)
    seen = torch.randn(2, 40, 26, generator=torch.Generator().manual_seed(1))
    low, high = (bounds.get(name, torch.tensor(limit)) for name, limit in (("low", -1.0), ("high", 1.0)))
    wanted = torch.stack([one(x[:, :inputs]) for one, x in zip(experts, seen, strict=True)])
    torch.testing.assert_close(population(seen), 2 * (wanted - low) / (high - low) - 1, rtol=1e-4, atol=2e-5)
    assert (population(seen).abs() <= 1).all()
    assert (population(seen).abs() < 0.99).any()


def test_an_action_without_bounds_is_clipped_as_the_motors_do() -> None:
    free = expert(squash="none")
    seen = torch.randn(1, 40, 26, generator=torch.Generator().manual_seed(1))
    wanted = free(seen[0])
    assert (wanted.abs() > 1).any()
    torch.testing.assert_close(TeacherPopulation.of([free])(seen)[0], wanted.clamp(-1, 1))


def test_only_actions_with_bounds_are_rescaled() -> None:
    low, high = torch.tensor([0.0, -torch.inf, -1, -1]), torch.tensor([1.0, torch.inf, 1, 3])
    mixed = expert(low=low, high=high)
    seen = torch.randn(1, 40, 26, generator=torch.Generator().manual_seed(1))
    wanted = mixed(seen[0])
    wanted = torch.stack([2 * wanted[:, 0] - 1, wanted[:, 1].clamp(-1, 1), wanted[:, 2], (wanted[:, 3] - 1) / 2], -1)
    torch.testing.assert_close(TeacherPopulation.of([mixed])(seen)[0], wanted, rtol=1e-4, atol=2e-5)
    one_sided = TeacherPopulation.of([expert(low=torch.zeros(4))])  # up to 1
    torch.testing.assert_close(one_sided(seen)[0], 2 * expert(low=torch.zeros(4))(seen[0]) - 1, rtol=1e-4, atol=2e-5)
    with pytest.raises(UserError, match=r"a network that ends in tanh needs finite bounds, got \[0.0, -inf"):
        expert(squash="tanh", low=low, high=high)


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        (
            lambda: expert(48),
            r"26 = position error 3 \+ rotation matrix 9 .* rotor speeds 4, or 22",
        ),
        (lambda: expert(48), r"obs=48, actions=4, hidden=\[6, 5\]: give a teacher"),
        (lambda: expert(normalizer=Normalizer(torch.zeros(26), torch.ones(26), 10.0)), "clips at 10, which no layer"),
        (lambda: expert(normalizer=Normalizer(torch.zeros(26), torch.zeros(26))), "divides by a number that is not"),
    ],
)
def test_an_expert_that_sees_or_does_other_than_a_teacher_is_refused(wrong, match: str) -> None:
    with pytest.raises(UserError, match=match):
        TeacherPopulation.of([wrong()])


def test_teachers_of_other_activations_come_back_from_their_folder(tmp_path: Path) -> None:
    population = TeacherPopulation.of([expert(22), expert(26, normalizer=skewed(26))], platforms()[:2])
    save_teachers(population, tmp_path / "teachers")
    again = load_teachers(tmp_path / "teachers")
    assert again.activations == Activations("elu", "clip")
    seen = torch.randn(2, 10, 26, generator=torch.Generator().manual_seed(1))
    assert torch.equal(again(seen), population(seen))
    assert torch.equal(again[1](seen[1:]), population(seen)[1:])


def test_what_does_not_fit_together_is_no_population() -> None:
    population = teachers()
    first, *rest = population.layers
    with pytest.raises(UserError, match=r"layers\.1\.weight must have shape \(3, 4, 6\), got \(3, 4, 5\)"):
        TeacherPopulation((first, rest[1]))
    with pytest.raises(UserError, match=r"layers\.0\.bias must have shape \(3, 6\), got \(2, 6\)"):
        TeacherPopulation((Layer(first.weight, first.bias[:2]), *rest))
    with pytest.raises(UserError, match=r"must have shape \(teachers, outputs, inputs\), got \(6, 26\)"):
        TeacherPopulation((Layer(first.weight[0], first.bias[0]),))
    with pytest.raises(UserError, match="records must be one for each of the 3 teachers, got 2"):
        dataclasses.replace(population, records=population.records[:2])
    with pytest.raises(UserError, match="quadrotors must be one for each of the 3 teachers, got 1"):
        dataclasses.replace(population, quadrotors=sample_quadrotors(1, 0))
    with pytest.raises(UserError, match="at least one layer"):
        TeacherPopulation(())


def test_what_is_not_on_record_counts_as_unsolved_and_at_rest_on_the_target() -> None:
    population = teachers(2, vehicles=False)
    assert population.solved.tolist() == [True, False]
    torch.testing.assert_close(population.position_offset, torch.tensor([[0.0, 0.0, -0.01], [0.1, 0.0, -0.01]]))
    records = ({}, {"position_offset": [float("nan"), None, 0.5], "solved": None})
    unknown = dataclasses.replace(population, records=records)
    assert unknown.solved.tolist() == [False, False]
    assert unknown.position_offset.tolist() == [[0.0, 0.0, 0.0], [0.0, 0.0, 0.5]]
    assert dataclasses.replace(population, records=()).records == ({}, {})


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_saved_teachers_come_back_to_the_last_bit(tmp_path: Path, dtype: torch.dtype) -> None:
    names = tuple(f"drone {i}" for i in range(3))
    population = teachers(dtype=dtype)
    population = dataclasses.replace(population, quadrotors=dataclasses.replace(population.quadrotors, names=names))
    save_teachers(population, tmp_path / "deep" / "teachers")
    files = {str(path.relative_to(tmp_path / "deep")) for path in tmp_path.rglob("*.*")}
    assert files == {
        "teachers/teachers.json",
        "teachers/teachers.safetensors",
        *(f"teachers/quadrotors/000{i}.json" for i in range(3)),
    }
    loaded = raptor.load_teachers(tmp_path / "deep" / "teachers")
    assert same(loaded, population)
    assert loaded.dtype == dtype
    assert loaded.quadrotors.names == names
    for name, tensor in loaded.quadrotors.tensors().items():
        assert torch.equal(tensor, population.quadrotors.tensors()[name]), name


def test_teachers_that_are_being_trained_and_have_no_vehicles_can_be_saved(tmp_path: Path) -> None:
    population = teachers(vehicles=False)
    for layer in population.layers:
        layer.weight.requires_grad_()
    save_teachers(population, tmp_path)
    loaded = load_teachers(tmp_path)
    assert loaded.quadrotors is None
    assert same(loaded, population)
    assert not loaded.layers[0].weight.requires_grad


def test_records_are_written_as_plain_data(tmp_path: Path) -> None:
    record = {"return": np.float32(0.5), "steps": torch.tensor(7), "seed": (1, 2), "return_low": float("nan")}
    save_teachers(dataclasses.replace(teachers(1), records=(record,)), tmp_path)
    assert load_teachers(tmp_path).records == ({"return": 0.5, "steps": 7, "seed": [1, 2], "return_low": None},)
    with pytest.raises(UserError, match=r"records\[0\]\.made\[1\] must be text, a number, .* got object"):
        save_teachers(dataclasses.replace(teachers(1), records=({"made": [1, object()]},)), tmp_path, overwrite=True)
    assert load_teachers(tmp_path).records[0]["steps"] == 7


def test_teachers_are_not_overwritten_unless_told_and_then_wholly(saved: Path) -> None:
    with pytest.raises(UserError, match="already holds teachers: choose another folder, or overwrite"):
        save_teachers(teachers(2, 1), saved)
    assert same(load_teachers(saved), teachers())
    save_teachers(teachers(2, 1), saved, overwrite=True)
    loaded = load_teachers(saved)
    assert same(loaded, teachers(2, 1))
    assert len(list((saved / "quadrotors").iterdir())) == 2


def test_weights_that_are_not_finite_are_not_saved(saved: Path) -> None:
    population = teachers(seed=1)
    population.layers[1].bias[2, 3] = torch.nan
    with pytest.raises(UserError, match=r"layers\.1\.bias\[2, 3\], of teacher 2, must be finite, got nan"):
        save_teachers(population, saved, overwrite=True)
    with pytest.raises(UserError, match="there are no teachers to write"):
        save_teachers(population[:0], saved, overwrite=True)
    assert same(load_teachers(saved), teachers())


def test_a_folder_that_was_left_incomplete_holds_no_teachers(saved: Path) -> None:
    (saved / "teachers.json").unlink()
    refused(saved, r"holds no teachers \(it lacks teachers\.json\)")
    refused(saved / "missing", "there is no such folder")


def test_a_write_that_fails_half_way_leaves_no_teachers_that_could_be_mistaken(saved: Path) -> None:
    (saved / "teachers.safetensors").unlink()
    (saved / "teachers.safetensors").mkdir()
    with pytest.raises(UserError, match=r"cannot write .*teachers\.safetensors"):
        save_teachers(teachers(seed=1), saved, overwrite=True)
    refused(saved, "lacks teachers.json")


def test_a_missing_file_is_named(saved: Path) -> None:
    os.rename(saved / "quadrotors", saved / "elsewhere")
    refused(saved, "lacks the folder quadrotors")
    (saved / "teachers.safetensors").unlink()
    refused(saved, r"cannot read .*teachers\.safetensors: No such file")


@pytest.mark.parametrize("share", [0.0, 0.05, 0.5, 0.999])
def test_truncated_weights_are_refused(saved: Path, share: float) -> None:
    content = (saved / "teachers.safetensors").read_bytes()
    (saved / "teachers.safetensors").write_bytes(content[: int(share * len(content))])
    refused(saved, r"teachers\.safetensors is truncated or no safetensors file: ")


def test_a_flipped_bit_and_the_weights_of_another_folder_are_noticed(saved: Path, tmp_path: Path) -> None:
    weights = saved / "teachers.safetensors"
    content = bytearray(weights.read_bytes())
    content[-4] ^= 1
    weights.write_bytes(content)
    refused(saved, r"teachers\.safetensors is damaged or not the one that teachers\.json beside it describes")
    save_teachers(teachers(seed=1), tmp_path / "other")
    weights.write_bytes((tmp_path / "other" / "teachers.safetensors").read_bytes())
    refused(saved, "its checksum differs")


def test_weights_of_another_architecture_are_refused(saved: Path) -> None:
    reweigh(saved, lambda tensors: tensors | {"layers.1.bias": torch.zeros(3, 9)})
    refused(saved, r"layers\.1\.bias must have shape \(3, 5\) by teachers\.json, got \(3, 9\)")
    reweigh(saved, lambda tensors: {name: t for name, t in tensors.items() if name != "layers.1.bias"})
    refused(saved, r"teachers\.safetensors lacks the weights layers\.1\.bias")
    reweigh(saved, lambda tensors: tensors | {"layers.1.bias": torch.zeros(3, 5), "extra": torch.zeros(1)})
    refused(saved, "knows of no extra")
    reweigh(saved, lambda tensors: {name: t.half() for name, t in tensors.items() if name != "extra"})
    refused(saved, r"must all be torch\.float32, .* got torch\.float16")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(saved: Path, value: float) -> None:
    def spoil(tensors):
        tensors["layers.2.weight"][1, 0, 4] = value
        return tensors

    reweigh(saved, spoil)
    refused(saved, rf"layers\.2\.weight\[1, 0, 4\], of teacher 1, must be finite, got {value}")


def test_numbers_of_teachers_records_and_vehicles_must_agree(saved: Path) -> None:
    records = json.loads((saved / "teachers.json").read_text())["teachers"]
    rewrite(saved, teachers=records[:2], quadrotors=["a", "b"])
    refused(saved, r"teachers\.safetensors holds 3 teachers, but teachers\.json beside it describes 2")
    rewrite(saved, teachers=records)
    refused(saved, "describes 3 teachers, but 2 quadrotors")
    rewrite(saved, quadrotors=["a", "b", "c"])
    (saved / "quadrotors" / "0001.json").unlink()
    refused(saved, "quadrotors holds 2 quadrotors, but teachers.json describes 3 teachers")


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"format": "other"}, "describes no teachers of this package"),
        ({"version": 2}, "version 2 of the format of teachers, this package reads 1"),
        ({"architecture": None}, "architecture.widths must be at least two whole numbers, got None"),
        ({"architecture": {"widths": [26, 0, 4]}}, r"architecture.widths must be .* got \[26, 0, 4\]"),
        (
            {"architecture": {"widths": [26, 6, 5, 4], "activation": "elu"}},
            "must have the widths, activation and output_activation, got .*elu",
        ),
        (
            {"architecture": {"widths": [26, 6, 5, 4], "activation": "elu", "output_activation": "soft"}},
            "activations.output must be one of tanh, clip, got 'soft'",
        ),
        ({"teachers": []}, "teachers must be a list with a group for each teacher"),
        ({"teachers": [{}, {"position_offset": [0, "x", 0]}, {}]}, r"teachers\[1\].position_offset must be three"),
        ({"quadrotors": "three"}, "quadrotors must be a list of names, or null"),
    ],
)
def test_a_document_that_says_something_impossible_is_refused(saved: Path, changes: dict, match: str) -> None:
    rewrite(saved, **changes)
    refused(saved, match)


def test_a_truncated_document_is_refused(saved: Path) -> None:
    text = (saved / "teachers.json").read_text()
    for length in (0, len(text) // 2, len(text) - 3):
        (saved / "teachers.json").write_text(text[:length])
        refused(saved, r"teachers\.json is truncated or not valid JSON")


def test_a_broken_vehicle_is_named_by_its_file(saved: Path) -> None:
    (saved / "quadrotors" / "0002.json").write_text("{")
    refused(saved, r"quadrotors.0002\.json is not valid JSON")


def test_a_device_that_is_not_there_is_named(saved: Path) -> None:
    with pytest.raises(UserError, match=r"device must be cpu.*, got 'gpu'"):
        load_teachers(saved, "gpu")


def test_teachers_and_their_vehicles_move_together() -> None:
    moved = teachers().to("meta")
    assert moved.device.type == moved.quadrotors.device.type == "meta"
    assert moved.records == teachers().records


def test_platforms_by_name_can_be_the_vehicles(tmp_path: Path) -> None:
    vehicles = platforms()
    save_teachers(dataclasses.replace(teachers(len(vehicles)), quadrotors=vehicles), tmp_path)
    assert load_teachers(tmp_path).quadrotors.names == vehicles.names
