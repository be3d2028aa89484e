"""A student learns from teachers of other libraries as it does from ours."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import short_distillation
import torch
from short_distillation import few_teachers, tiny

from raptor.core.errors import UserError
from raptor.formats import load_policy, save_teachers
from raptor.nn.activations import Activations
from raptor.nn.stacked_mlp import initial_layers
from raptor.quadrotor import load_platform, load_platforms
from raptor.runs.progress import Progress
from raptor.training.distillation import teachers as selection
from raptor.training.distillation.job import post_train
from raptor.training.distillation.teachers import TeacherFile, fingerprint, read_teachers

LEARNING = ("num_epochs=25", "fine_tune.num_updates=0", "final_learning_rate=0.5", "student.hidden_dim=8")


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selection, "TEST_TASK", short_distillation.TEST_TASK)


def checkpoint(path: Path, seed: int = 0, width: int = 26) -> Path:
    """Of rsl_rl 3, whose actor about hovers a crazyflie."""
    hidden, last = initial_layers(1, (width, 8, 4), torch.Generator().manual_seed(seed))
    weights = {"actor.0.weight": hidden.weight[0], "actor.0.bias": hidden.bias[0], "std": torch.ones(4)}
    hover = (2 * load_platform("crazyflie").hover_throttle - 1).expand(4).contiguous()
    torch.save({"model_state_dict": {**weights, "actor.2.weight": last.weight[0], "actor.2.bias": hover}}, path)
    return path


def test_a_student_learns_from_a_checkpoint_of_rsl_rl(tmp_path: Path) -> None:
    losses, reported = [], []
    teacher = TeacherFile(checkpoint(tmp_path / "model_9.pt"), "crazyflie")

    def watch(progress: Progress) -> None:
        losses.append(progress.values.get("loss"))

    summary = post_train(tmp_path / "run", teacher, tiny(*LEARNING), progress=watch, announce=reported.append)
    found = [loss for loss in losses if loss is not None]
    assert found[-1] < 0.3 * found[0]
    assert summary.num_teachers == 1
    assert reported[0].startswith("Teacher architecture: obs=26, actions=4, hidden=[8] · elu between the layers")
    assert load_policy(tmp_path / "run").card["training"].startswith("distilled from 1 teachers")


def test_a_run_goes_on_with_the_file_that_it_began_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    checkpoint(Path("model_9.pt"))
    load_platform("x500_real").save(tmp_path / "vehicles")
    teacher = TeacherFile("model_9.pt", "vehicles/x500_real.json", activation="tanh")
    post_train("run", teacher, tiny())
    noted = json.loads(Path("run/params/teachers.json").read_text())
    assert noted["source"] == [
        {
            "path": str(tmp_path / "model_9.pt"),
            "quadrotor": str(tmp_path / "vehicles" / "x500_real.json"),
            "activation": "tanh",
        }
    ]
    assert [record["name"] for record in noted["records"]] == ["model_9"]
    assert post_train("run", resume=True).finished
    checkpoint(Path("model_9.pt"), seed=1)
    with pytest.raises(UserError, match="learns from other teachers"):
        post_train("run", resume=True)


def test_files_and_folders_are_one_population(tmp_path: Path) -> None:
    first, _ = read_teachers(TeacherFile(checkpoint(tmp_path / "a.pt"), "mrs"))
    save_teachers(first, tmp_path / "teachers")
    reported: list[str] = []
    sources = [tmp_path / "teachers", TeacherFile(checkpoint(tmp_path / "b.pt", 1, width=22), "race")]
    both, reported = read_teachers(sources)
    assert both.activations == Activations("elu", "clip")
    assert [record["quadrotor"] for record in both.records] == ["mrs", "race"]
    assert torch.equal(both.quadrotors.mass, torch.cat([load_platform("mrs").mass, load_platform("race").mass]))
    assert ["obs=26" in reported[0], "obs=22" in reported[1], len(reported)] == [True, True, 2]
    assert fingerprint(both[:1]) == fingerprint(first)
    others = [TeacherFile(tmp_path / "a.pt", "fs"), TeacherFile(tmp_path / "a.pt", "mrs", activation="tanh")]
    assert all(fingerprint(read_teachers(other)[0]) != fingerprint(first) for other in others)
    own = few_teachers()
    save_teachers(own, tmp_path / "own")
    chosen, _ = read_teachers(TeacherFile(f"{tmp_path / 'own'}:1"))
    assert torch.equal(chosen.quadrotors.mass, own.quadrotors.mass[1:2])
    assert chosen.records == own.records[1:2]
    with pytest.raises(UserError, match="no teachers were given"):
        read_teachers([])
    with pytest.raises(UserError, match="teachers with elu and clip and with relu and tanh cannot be one population"):
        read_teachers([tmp_path / "teachers", tmp_path / "own"])


@pytest.mark.parametrize(
    ("quadrotor", "match"),
    [
        (None, r"the vehicle of the teacher .*a.pt is not known: .* --quadrotor with one of crazyflie"),
        ("crazyfly", "there is no quadrotor 'crazyfly': give one of crazyflie"),
        ("many", "holds 9 quadrotors: a teacher flies one"),
    ],
)
def test_a_teacher_without_one_vehicle_is_refused(tmp_path: Path, quadrotor: Any, match: str) -> None:
    load_platforms().save(tmp_path / "many")
    vehicle = tmp_path / "many" if quadrotor == "many" else quadrotor
    with pytest.raises(UserError, match=match):
        read_teachers(TeacherFile(checkpoint(tmp_path / "a.pt"), vehicle))


def test_a_teacher_of_a_folder_without_vehicles_needs_one(tmp_path: Path) -> None:
    save_teachers(dataclasses.replace(few_teachers(), quadrotors=None), tmp_path / "own")
    with pytest.raises(UserError, match=r"the vehicle of the teacher .*own:1 is not known"):
        read_teachers(TeacherFile(tmp_path / "own:1"))
    given, _ = read_teachers(TeacherFile(tmp_path / "own:1", "race"))
    assert torch.equal(given.quadrotors.mass, load_platform("race").mass)
