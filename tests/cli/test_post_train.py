"""`raptor post-train`: the contract, and the mistakes that one can make with it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from raptor.cli import app
from raptor.config import load_config
from raptor.formats import load_policy, save_teachers
from raptor.nn import MLPPolicy
from raptor.nn.stacked_mlp import initial_layers
from raptor.nn.teachers import TeacherPopulation
from raptor.quadrotor import sample_quadrotors
from raptor.tasks.task import Task
from raptor.training.distillation import job as post_training
from raptor.training.distillation import teachers as selection
from raptor.training.distillation.config import PostTrainConfig

Run = Callable[..., str]
TINY = (
    "compile=false",
    "num_epochs=2",
    "num_episodes=2",
    "batch_size=2",
    "sequence_length=4",
    "epoch_teacher_forcing=1",
    "on_policy=true",
    "num_teacher_episodes=2",
    "solved_return=-1e6",
    "num_validation=2",
    "validation_steps=6",
    "checkpoint_interval=1",
    "task.episode_steps=6",
    "student.hidden_dim=4",
    "fine_tune.num_updates=1",
    "fine_tune.batch_size=4",
    "fine_tune.segment_steps=2",
)


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selection, "TEST_TASK", Task(episode_steps=4))


@pytest.fixture(scope="module")
def teachers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two folders of two, within one."""
    folder = tmp_path_factory.mktemp("teachers")
    for number, name in enumerate(("some", "others")):
        layers = initial_layers(2, (26, 6, 4), torch.Generator().manual_seed(number))
        records = tuple({"name": f"{name}-{i}"} for i in range(2))
        save_teachers(TeacherPopulation(layers, sample_quadrotors(2, seed=number), records), folder / name)
    return folder


def test_a_folder_of_teachers_becomes_a_student_and_resuming_trains_nothing(
    raptor: Run, teachers: Path, tmp_path: Path
) -> None:
    run = tmp_path / "student"
    text = raptor("post-train", "--teachers", teachers / "some", "--output", run, "--seed", 4, "student=mlp", *TINY)
    assert "trained 3 epochs in " in text
    assert f"{run}; the 2 teachers return " in text
    assert "best imitation by validation: return " in text
    assert f"next: raptor evaluate {run}\n" in text
    assert isinstance(load_policy(run), MLPPolicy)
    config = load_config(PostTrainConfig, run)
    assert (config.seed, config.student.kind, config.num_epochs) == (4, "mlp", 2)
    before = (run / "metrics.jsonl").read_bytes()
    again = raptor("post-train", "--output", run, "--resume")
    assert (run / "metrics.jsonl").read_bytes() == before
    assert again.split(";")[1] == text.split(";")[1]


def test_several_folders_are_one_population_and_who_is_left_out_is_told(teachers: Path, tmp_path: Path) -> None:
    both = ["-t", str(teachers / "some"), "-t", str(teachers / "others")]
    settings = [*TINY, "num_epochs=1", "fine_tune.num_updates=0"]
    result = CliRunner().invoke(app, ["post-train", *both, "-o", str(tmp_path / "run"), *settings])
    assert result.exit_code == 0, (result.output, result.exception)
    lines = result.stderr.splitlines()
    assert [line.startswith("Teacher architecture: obs=26, actions=4, hidden=[6] · ") for line in lines[:2]] == [
        True
    ] * 2
    assert lines[2].startswith("4 teachers, 8 episodes an epoch: ")
    assert lines[3] == "teacher 4 of 4"
    assert lines[4].startswith("epoch 1 of 1  loss ")
    assert "compiling" not in result.stderr
    assert "the 4 teachers return " in result.stdout
    returns = [record["return"] for record in _records(tmp_path / "run")]
    limit = f"solved_return={sorted(returns)[1]}"
    result = CliRunner().invoke(app, ["post-train", *both, "-o", str(tmp_path / "other"), *settings, limit])
    assert result.exit_code == 0, (result.output, result.exception)
    weakest = _records(tmp_path / "run")[returns.index(min(returns))]["name"]
    assert f", left out: {weakest}\n" in result.stderr
    assert "the 3 teachers return " in result.stdout


def _records(run: Path) -> list[dict]:
    import json

    return json.loads((run / "params" / "teachers.json").read_text())["records"]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "there are no teachers to learn from: give the output folder of raptor pre-train"),
        (["-t", "nowhere"], "nowhere holds no teachers (there is no such folder): give the output of raptor pre-train"),
        (["sequence_length=7", "task.episode_steps=6"], "sequence_length must be at most task.episode_steps, which is"),
        (["num_epochs=0", "fine_tune.num_updates=0"], "there is nothing to train"),
        (["num_epochs=3", "epoch_teacher_forcing=4"], "epoch_teacher_forcing must be at most num_epochs, which is 3"),
        (["student=lstm"], 'student.kind must be one of gru, mlp, got "lstm" (command line)'),
        (["student.hidden=8"], "student.hidden is unknown (command line): did you mean hidden_dim?"),
        (["num_active_teachers=0"], "num_active_teachers must be at least 1, got 0 (command line)"),
        (["--config", "large"], "there is no configuration file large: give a YAML file, a run, or one of the"),
        (["--device", "cuda:99"], "device 'cuda:99' is not there"),
        (["--resume", "--overwrite"], "--resume and --overwrite exclude each other"),
    ],
)
def test_a_mistake_is_told_in_one_sentence_before_anything_is_written(
    refused: Run, arguments: list[str], sentence: str, tmp_path: Path
) -> None:
    assert sentence in refused("post-train", "--output", tmp_path / "run", *arguments)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["solved_return=1e6"], "none of the 2 teachers reaches solved_return 1e+06, the best has "),
        (["memory_gib=0.1"], "which does not fit into 0.1 GiB: lower num_episodes, num_active_teachers or batch_size"),
    ],
)
def test_teachers_that_are_too_weak_and_data_that_is_too_large_are_told_in_one_sentence(
    teachers: Path, arguments: list[str], sentence: str, tmp_path: Path
) -> None:
    command = ["post-train", "-t", str(teachers / "some"), "-o", str(tmp_path / "run"), *TINY, *arguments]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 2
    *_, last = result.stderr.splitlines()
    assert last.startswith("error: ")
    assert sentence in last
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "run").exists()


def test_a_run_is_not_begun_twice_nor_resumed_with_other_settings_or_teachers(
    raptor: Run, refused: Run, teachers: Path, tmp_path: Path
) -> None:
    settings = [*TINY, "num_epochs=1", "fine_tune.num_updates=0"]
    raptor("post-train", "-t", teachers / "some", "-o", tmp_path, *settings)
    assert "already holds a run: go on with --resume" in refused("post-train", "-t", "x", "-o", tmp_path, *settings)
    sentence = refused("post-train", "-o", tmp_path, "--resume", "student.hidden_dim=3")
    assert "was begun with other settings: student.hidden_dim (4, now 3)" in sentence
    sentence = refused("post-train", "-o", tmp_path, "--resume", "-t", teachers / "others")
    assert "learns from other teachers: resume it without giving any" in sentence


def test_ctrl_c_writes_a_checkpoint_and_says_how_to_go_on(teachers: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    settings = [*TINY, "num_epochs=100000", "validation_interval=100000"]
    process = subprocess.Popen(
        [sys.executable, "-m", "raptor", "post-train", "-t", str(teachers / "some"), "-o", str(run), *settings],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    deadline = time.monotonic() + 300
    while not list(run.glob("checkpoint_epoch_*.pt")):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate()
    assert process.returncode == 130
    assert "Traceback" not in errors
    epoch = max(int(path.stem.split("_")[2]) for path in run.glob("checkpoint_epoch_*.pt"))
    assert f"stopped after epoch {epoch} of 100001, with a checkpoint" in errors
    assert f"go on with: raptor post-train --output {run} --resume" in errors


def test_an_interruption_before_an_old_run_is_overwritten_does_not_lead_back_to_it(
    raptor: Run, teachers: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ["post-train", "-t", str(teachers / "some"), "-o", str(tmp_path / "run")]
    raptor(*command, *TINY, "num_epochs=1", "fine_tune.num_updates=0")

    def interrupted(*arguments: object, **named: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(post_training, "examine", interrupted)
    result = CliRunner().invoke(app, [*command, *TINY, "--overwrite"])
    assert (result.exit_code, result.stderr.splitlines()[-1]) == (130, "interrupted before anything was written")
    monkeypatch.setattr(post_training, "run_to_end", interrupted)
    result = CliRunner().invoke(app, [*command, "--resume"])
    assert (result.exit_code, "interrupted; go on with: raptor post-train" in result.stderr) == (130, True)


def test_the_help_teaches() -> None:
    result = CliRunner().invoke(app, ["post-train", "--help"], env={"COLUMNS": "160", "TERM": "dumb"})
    assert result.exit_code == 0
    for text in (
        "Distil one policy from many teachers, then fine-tune it through the simulator's gradient.",
        "raptor post-train --teachers teachers --output student",
        "fine_tune.num_updates=0",
        "num_epochs=0",
        "--config paper",
        "--resume",
        "--overwrite",
        "run.yaml",
    ):
        assert text in result.stdout, text


def checkpoint(path: Path, width: int = 26) -> Path:
    """Of rsl_rl 3."""
    first, last = initial_layers(1, (width, 6, 4), torch.Generator().manual_seed(width))
    named = {"actor.0": first, "actor.2": last}
    weights = {f"{name}.{part}": getattr(layer, part)[0] for name, layer in named.items() for part in layer._fields}
    torch.save({"model_state_dict": {**weights, "std": torch.ones(4)}}, path)
    return path


def test_a_checkpoint_of_another_library_becomes_a_student(raptor: Run, teachers: Path, tmp_path: Path) -> None:
    several = [part for i in range(2) for part in ("--teacher", checkpoint(tmp_path / f"model_{i}.pt"))]
    vehicles = ("--quadrotor", "mrs", "--quadrotor", "race")
    command = ["post-train", *several, *vehicles, "--output", tmp_path / "run", *TINY]
    result = CliRunner().invoke(app, [str(part) for part in command])
    assert result.exit_code == 0, (result.output, result.exception)
    assert result.stderr.count("Teacher architecture: obs=26, actions=4, hidden=[6] · elu between the layers") == 2
    assert "the 2 teachers return " in result.stdout
    usual = ("--teacher", f"{teachers / 'some'}:1", "--teachers", teachers / "others")
    text = raptor("post-train", *usual, "--output", tmp_path / "other", *TINY)
    assert "the 3 teachers return " in text


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--teacher", "TEACHER"], "the vehicle of the teacher"),
        (["--teacher", "TEACHER", "--quadrotor", "mrs", "--teacher-activation", "x"], "activation must be one of relu"),
        (["--quadrotor", "mrs"], "--quadrotor and --teacher-* are of a teacher: give its file with --teacher"),
        (["--teacher", "TEACHER", "--quadrotor", "mrs", "--quadrotor", "fs"], "once for each of the 1 teachers, got 2"),
        (["--teacher", "WIDE", "--quadrotor", "mrs"], "26 = position error 3 + rotation matrix 9 + velocity error 3"),
        (["--teacher", "WIDE", "--quadrotor", "mrs"], "the rsl_rl 3.x checkpoint has obs=48, actions=4, hidden=[6]"),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_refused(
    refused: Run, tmp_path: Path, arguments: list[str], sentence: str
) -> None:
    files = {"TEACHER": checkpoint(tmp_path / "a.pt"), "WIDE": checkpoint(tmp_path / "b.pt", width=48)}
    given = [files.get(argument, argument) for argument in arguments]
    assert sentence in refused("post-train", *given, "--output", tmp_path / "run", *TINY)
    assert not (tmp_path / "run").exists()
