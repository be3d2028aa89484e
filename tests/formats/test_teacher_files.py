"""Folders of teachers: what is saved comes back, and damaged or impossible ones are refused by name."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from some_teachers import same, teachers

import raptor
from raptor.core.errors import UserError
from raptor.formats import load_teachers, save_teachers
from raptor.nn import Activations
from raptor.quadrotor import load_platforms


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
    refused(saved, "it describes 3 teachers, but 2 quadrotors")
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


def test_platforms_by_name_can_be_the_vehicles(tmp_path: Path) -> None:
    vehicles = load_platforms()
    save_teachers(dataclasses.replace(teachers(len(vehicles)), quadrotors=vehicles), tmp_path)
    assert load_teachers(tmp_path).quadrotors.names == vehicles.names


def test_teachers_of_other_activations_come_back_from_their_folder(tmp_path: Path) -> None:
    population = dataclasses.replace(teachers(2), activations=Activations("elu", "clip"))
    save_teachers(population, tmp_path / "teachers")
    again = load_teachers(tmp_path / "teachers")
    assert again.activations == Activations("elu", "clip")
    seen = torch.randn(2, 10, 26, generator=torch.Generator().manual_seed(1))
    assert same(again, population)
    torch.testing.assert_close(again(seen), population(seen))


def test_weights_that_no_network_has_are_refused(saved: Path) -> None:
    def spoil(tensors):
        tensors["layers.2.weight"][1, 0, 4] = 3e38
        return tensors

    reweigh(saved, spoil)
    refused(saved, r"layers\.2\.weight\[1, 0, 4\], of teacher 1, must be at most 1e\+09 in magnitude, got 3")


def test_files_that_are_far_larger_than_the_teachers_are_not_read(saved: Path) -> None:
    with (saved / "teachers.safetensors").open("ab") as file:
        file.truncate(2**30)
    refused(saved, "was refused: it has 1073741824 bytes, at most")
    with (saved / "teachers.json").open("ab") as file:
        file.truncate(2**30)
    refused(saved, "was refused: it has 1073741824 bytes, at most")


def test_text_of_a_document_is_shown_with_control_bytes_as_escapes(saved: Path) -> None:
    rewrite(saved, teachers=[{"name": "quiet\x1b[2J"}, {}, {}], quadrotors=["a\x07", "b", "c"])
    loaded = load_teachers(saved)
    assert loaded.records[0] == {"name": r"quiet\x1b[2J"}
    assert loaded.quadrotors.names == (r"a\x07", "b", "c")
    rewrite(saved, teachers=[{}, {"name": "\ud800"}, {}])
    refused(saved, r"teachers\[1\]\.name holds text that is no Unicode")
    rewrite(saved, teachers=[{}, {}, {"name": "x", "deep": json.loads("[" * 50 + "]" * 50)}])
    refused(saved, r"teachers\[2\].* is nested in itself or too deeply")
