"""Whom a student may learn from."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import pytest
import torch
from short_distillation import TEST_TASK, few_teachers, tiny

from raptor.core.errors import UserError
from raptor.formats import save_teachers
from raptor.nn.stacked_mlp import Layer, initial_layers
from raptor.nn.teachers import TeacherPopulation
from raptor.quadrotor import sample_quadrotors
from raptor.rl.teacher_test import TeacherTest
from raptor.runs.progress import Progress
from raptor.training.distillation import teachers as selection
from raptor.training.distillation.teachers import examine, fingerprint, read_teachers, select, shortened


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selection, "TEST_TASK", TEST_TASK)
    monkeypatch.setattr(selection, "TEACHERS_AT_ONCE", 2)


def graded(*returns: float) -> TeacherPopulation:
    teachers = few_teachers(len(returns))
    records = ({"name": f"number-{i}", "return": value} for i, value in enumerate(returns))
    return dataclasses.replace(teachers, records=tuple(records))


def test_teachers_come_from_a_folder_from_several_or_as_they_are(tmp_path: Path) -> None:
    two, three = few_teachers(2), few_teachers(3, seed=1)
    save_teachers(two, tmp_path / "two")
    save_teachers(three, tmp_path / "three")
    for source in (tmp_path / "two", str(tmp_path / "two")):
        found, (line,) = read_teachers(source)
        assert len(found) == 2
        assert line.startswith("Teacher architecture: obs=26, actions=4, hidden=[8]")
    assert read_teachers(two)[0] is two
    all_of_them, _ = read_teachers([tmp_path / "two", tmp_path / "three"])
    assert torch.equal(all_of_them.layers[0].weight, torch.cat([two.layers[0].weight, three.layers[0].weight]))
    torch.testing.assert_close(all_of_them.quadrotors.mass, torch.cat([two.quadrotors.mass, three.quadrotors.mass]))


def test_teachers_of_double_precision_are_read_in_that_of_students(tmp_path: Path) -> None:
    single, teachers = few_teachers(2), few_teachers(3, seed=1)
    layers = tuple(Layer(*(tensor.double() for tensor in layer)) for layer in teachers.layers)
    double = dataclasses.replace(teachers, layers=layers, quadrotors=teachers.quadrotors.to(dtype=torch.float64))
    save_teachers(single, tmp_path / "single")
    save_teachers(double, tmp_path / "double")
    for read in (read_teachers(tmp_path / "double")[0], read_teachers(double)[0]):
        assert all(torch.equal(a, b) for a, b in zip(read.layers[0], teachers.layers[0], strict=True))
        torch.testing.assert_close(read.quadrotors.mass, teachers.quadrotors.mass)
        assert examine(read, tiny()).position_offset.dtype == torch.float32
    both, _ = read_teachers([tmp_path / "single", tmp_path / "double"])
    assert torch.equal(both.layers[0].weight, torch.cat([single.layers[0].weight, teachers.layers[0].weight]))


def test_teachers_that_no_student_can_learn_from_are_refused(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    alone = dataclasses.replace(few_teachers(2), quadrotors=None)
    save_teachers(alone, tmp_path / "alone")
    save_teachers(few_teachers(2), tmp_path / "some")
    for source in (alone, tmp_path / "alone", [tmp_path / "some", tmp_path / "alone"]):
        with pytest.raises(UserError, match="the teachers come without their quadrotors: a student flies"):
            read_teachers(source)
    blind = TeacherPopulation(initial_layers(2, (22, 8, 4), generator), sample_quadrotors(2, seed=0))
    with pytest.raises(UserError, match="a teacher maps 26 numbers to 4, these map 22 to 4"):
        read_teachers(blind)
    with pytest.raises(UserError, match="nowhere holds no teachers"):
        read_teachers(tmp_path / "nowhere")


def test_the_same_weights_and_vehicles_have_the_same_fingerprint_and_no_others(tmp_path: Path) -> None:
    teachers = few_teachers()
    save_teachers(teachers, tmp_path)
    stored, _ = read_teachers(tmp_path)
    assert fingerprint(stored) == fingerprint(read_teachers(tmp_path)[0])
    assert fingerprint(teachers) == fingerprint(dataclasses.replace(teachers, records=()))
    heavier = dataclasses.replace(teachers.quadrotors, mass=1.01 * teachers.quadrotors.mass)
    others = (few_teachers(seed=1), teachers[:2], dataclasses.replace(teachers, quadrotors=heavier))
    assert len({fingerprint(each) for each in (teachers, *others)}) == 4


def test_each_teacher_is_tested_with_its_own_vehicle_and_its_offset_noted() -> None:
    teachers, config, reported = few_teachers(), tiny("num_teacher_episodes=3"), list[Progress]()
    tested = examine(teachers, config, reported.append)
    assert [(progress.step, progress.num_steps) for progress in reported] == [(2, 3), (3, 3)]
    for part in (slice(0, 2), slice(2, 3)):
        some = teachers[part]
        flights = TeacherTest(TEST_TASK, some.quadrotors, 3, selection.TEST_SEED, compile=False)(some.layers)
        for record, returns, ended, offset in zip(
            tested.records[part], flights.returns, flights.terminated, flights.position_offset, strict=True
        ):
            assert record["return"] == pytest.approx(returns.mean().item())
            assert record["termination_rate"] == ended.float().mean().item()
            assert record["position_offset"] == pytest.approx(offset.tolist())
    assert [record["name"] for record in tested.records] == ["number-0", "number-1", "number-2"]
    assert tested.position_offset.abs().max() > 0


def test_weak_teachers_are_left_out_by_name() -> None:
    config = tiny("solved_return=300")
    strong, weak = select(graded(299.0, 300.0, math.nan, 500.0), config)
    assert weak == ["number-0", "number-2"]
    assert [record["name"] for record in strong.records] == ["number-1", "number-3"]
    torch.testing.assert_close(strong.quadrotors.mass, few_teachers(4).quadrotors.mass[[1, 3]])
    everyone = graded(300.0, 301.0)
    assert select(everyone, config) == (everyone, [])


def test_weak_teachers_are_refused_by_name_where_none_may_be_missing() -> None:
    with pytest.raises(UserError) as error:
        select(graded(299.0, 300.0, 12.0), tiny("solved_return=300", "weak_teachers=refuse"))
    assert str(error.value) == (
        "2 of 3 teachers do not reach solved_return 300: number-0, number-2; train them longer, lower solved_return, "
        "or set weak_teachers=drop"
    )


@pytest.mark.parametrize(("returns", "best"), [((1.0, 2.25), "2.2"), ((math.nan, 7.0), "7.0"), ((math.nan,), "nan")])
def test_where_no_teacher_is_good_enough_the_best_is_told(returns: tuple[float, ...], best: str) -> None:
    with pytest.raises(UserError) as error:
        select(graded(*returns), tiny("solved_return=300"))
    assert str(error.value) == (
        f"none of the {len(returns)} teachers reaches solved_return 300, the best has {best}: train them longer, or "
        "lower solved_return"
    )


def test_many_names_are_shortened() -> None:
    assert shortened(["a", "b"]) == "a, b"
    assert shortened([str(i) for i in range(12)]) == "0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 2 more"
