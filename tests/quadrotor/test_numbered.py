"""Populations as numbered files."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from raptor.core.errors import UserError
from raptor.quadrotor import Quadrotors, load_platforms, sample_quadrotors
from raptor.quadrotor.numbered import PORTION, save_numbered


def test_vehicles_come_back_in_order_whatever_they_were_called(tmp_path: Path) -> None:
    named = load_platforms()
    paths = save_numbered(named, tmp_path / "new")
    assert [path.name for path in paths] == [f"{i:04d}.json" for i in range(len(named))]
    for name, tensor in Quadrotors.from_json(tmp_path / "new").tensors().items():
        assert torch.equal(tensor, named.tensors()[name]), name


def test_more_than_one_portion_is_reported_and_numbered_through(tmp_path: Path) -> None:
    num, reports = PORTION + 2, []
    quadrotors = sample_quadrotors(num, 1)
    save_numbered(quadrotors, tmp_path, progress=lambda done, total: reports.append((done, total)))
    assert reports == [(PORTION, num), (num, num)]
    assert torch.equal(Quadrotors.from_json(tmp_path).mass, quadrotors.mass)


def test_a_smaller_population_replaces_a_larger_one_wholly_but_nothing_else(tmp_path: Path) -> None:
    save_numbered(sample_quadrotors(4, 0), tmp_path)
    for name in ("mine.json", "12.json", "0009.yaml"):
        (tmp_path / name).write_text("mine")
    with pytest.raises(UserError, match="already holds JSON files: choose another folder, or overwrite"):
        save_numbered(sample_quadrotors(2, 1), tmp_path)
    assert (tmp_path / "0003.json").exists()
    save_numbered(sample_quadrotors(2, 1), tmp_path, overwrite=True)
    assert {path.name for path in tmp_path.iterdir()} == {
        "0000.json",
        "0001.json",
        "mine.json",
        "12.json",
        "0009.yaml",
    }


def test_an_impossible_vehicle_stops_all_before_anything_is_written(tmp_path: Path) -> None:
    quadrotors = sample_quadrotors(PORTION + 1, 0)
    mass = quadrotors.mass.clone()
    mass[-1] = -1.0
    with pytest.raises(UserError, match="mass must be positive"):
        save_numbered(dataclasses.replace(quadrotors, mass=mass), tmp_path / "new")
    with pytest.raises(UserError, match="there are no quadrotors to write"):
        save_numbered(quadrotors[:0], tmp_path / "new")
    assert not (tmp_path / "new").exists()
