"""`raptor pre-train`: the contract, and the mistakes that one can make with it."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

import raptor as package
from raptor.cli import app
from raptor.config import from_dict
from raptor.quadrotor import sample_quadrotors
from raptor.runs.folder import read_settings
from raptor.training.teachers.config import PreTrainConfig

Run = Callable[..., str]
TINY = (
    "compile=false",
    "num_validation=2",
    "num_evaluation=2",
    "validation_steps=4",
    "max_attempts=1",
    "task.episode_steps=8",
    "apg.num_updates=2",
    "apg.num_envs=2",
    "apg.segment_steps=2",
    "apg.widths=[6]",
    "sac.num_steps=10",
    "sac.block_steps=5",
    "sac.start_steps=5",
    "sac.batch_size=4",
    "sac.actor_widths=[6]",
    "sac.critic_widths=[6]",
    "sac.replay.capacity=20",
)


def test_a_folder_of_quadrotors_becomes_a_folder_of_teachers_and_resuming_trains_nothing(
    raptor: Run, tmp_path: Path
) -> None:
    vehicles, run = tmp_path / "quadrotors", tmp_path / "teachers"
    raptor("sample", "--num", 3, "--output", vehicles)
    settings = [*TINY, "solved_return=-1000", "retrain_below=-1000"]
    text = raptor("pre-train", "--quadrotors", vehicles, "--output", run, "--num-teachers", 2, "--seed", 4, *settings)
    assert "2 of 2 teachers solved: mean return " in text
    assert "16 env-steps in" in text
    assert f"look at {run / 'teachers.png'} and {run / 'curves.png'}" in text
    assert "not solved" not in text
    teachers = package.load_teachers(run)
    assert len(teachers) == 2
    assert teachers.solved.all()
    assert from_dict(PreTrainConfig, read_settings(run)).seed == 4
    files = {path: path.stat().st_mtime_ns for path in (run / "shards").rglob("*.*")}
    again = raptor("pre-train", "--output", run, "--resume")
    assert files == {path: path.stat().st_mtime_ns for path in (run / "shards").rglob("*.*")}
    assert again.split(";")[0] == text.split(";")[0]


def test_what_remains_unsolved_is_named(raptor: Run, tmp_path: Path) -> None:
    text = raptor("pre-train", "-g", 2, "-o", tmp_path, "-a", "sac", *TINY, "solved_return=1e6", "retrain_below=1e6")
    assert "0 of 2 teachers solved" in text
    assert "not solved: 0000, 0001\n" in text
    assert {record["algorithm"] for record in package.load_teachers(tmp_path).records} == {"sac"}


def test_what_will_be_used_is_told_first_and_compiling_only_where_something_is(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["pre-train", "-g", "2", "-o", str(tmp_path), *TINY])
    assert result.exit_code == 0
    first, second, third, *_ = result.stderr.splitlines()
    assert re.match(r"2 teachers in 1 shards of at most 2: .* MiB a teacher, .* GiB at a time of .* GiB$", first)
    assert second.startswith("minimises in each step: 1 position + ")
    assert third.startswith("teacher ")
    assert "compiling" not in result.stderr


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "there are no quadrotors to train for: give a folder of them, or a number to generate"),
        (["-g", "2", "-q", "x"], "quadrotors are either read or generated"),
        (["-q", "nowhere"], "there is no quadrotor 'nowhere': give one of crazyflie"),
        (["-g", "0"], "Invalid value for '--generate'"),
        (["-g", "2", "--num-teachers", "3"], "num_teachers must be between 1 and the 2 quadrotors there are, got 3"),
        (["-g", "2", "memory_gib=0.01"], "do not fit into 0.01 GiB: lower apg.num_envs or shard_size, or raise"),
        (["-g", "2", "memory_gib=-1"], "memory_gib must be positive, got -1 (command line)"),
        (["-g", "2", "-a", "ppo"], 'algorithm must be one of apg, sac, got "ppo" (command line)'),
        (["-g", "2", "sac.replay.kind=newest"], "sac.replay.kind must be one of uniform, prioritised"),
        (["-g", "2", "curriculum.stages=[]"], "curriculum.stages must be at least one stage, got []"),
        (["-g", "2", "curriculum.advance_at=0"], "curriculum.advance_at must be above 0 and at most 1, got 0"),
        (
            ["-g", "2", "curriculum.fall_back_at=0.95"],
            "curriculum is impossible: fall_back_at must be below advance_at, got 0.95 and 0.9",
        ),
        (["-g", "2", "apg.num_update=3"], "apg.num_update is unknown (command line): did you mean num_updates?"),
        (["-g", "2", "tensorboard_teachers=[-1]"], "tensorboard_teachers must be at least 0 in every entry"),
        (["-g", "2", "engine=cluster"], "engine.name must be one of local, processes, ray"),
        (
            ["-g", "2", "--config", "large"],
            "there is no configuration file large: give a YAML file, a run, or one of the",
        ),
        (["-g", "2", "--device", "cuda:99"], "device 'cuda:99' is not there"),
        (["-g", "2", "--resume", "--overwrite"], "--resume and --overwrite exclude each other"),
        (["-g", "2", "--shard", "2"], "--shard must be I/N, such as 3/20 for the third of twenty parts, got '2'"),
        (["-g", "2", "--shard", "3/2"], "a part must be one of 1/2 to 2/2, got 3/2"),
        (["-g", "2", "--shard", "1/2", "--overwrite"], "--shard and --overwrite exclude each other"),
    ],
)
def test_a_mistake_is_told_in_one_sentence_before_anything_is_written(
    refused: Run, arguments: list[str], sentence: str, tmp_path: Path
) -> None:
    assert sentence in refused("pre-train", "--output", tmp_path / "run", *arguments)
    assert not (tmp_path / "run").exists()


def test_files_that_are_broken_are_named_in_one_sentence(refused: Run, tmp_path: Path) -> None:
    vehicles = tmp_path / "quadrotors"
    sample_quadrotors(3, seed=0).save(vehicles)
    first, second, _ = sorted(vehicles.glob("*.json"))
    first.write_text("{")
    second.write_text("[]")
    sentence = refused("pre-train", "--output", tmp_path / "run", "-q", vehicles)
    assert first.name in sentence
    assert second.name in sentence


def test_a_run_is_not_begun_twice_nor_resumed_with_other_settings(raptor: Run, refused: Run, tmp_path: Path) -> None:
    raptor("pre-train", "-g", 1, "-o", tmp_path, *TINY)
    assert "already holds a run: go on with --resume" in refused("pre-train", "-g", 1, "-o", tmp_path, *TINY)
    sentence = refused("pre-train", "-o", tmp_path, "--resume", "apg.num_envs=3")
    assert "was begun with other settings: apg.num_envs (2, now 3)" in sentence
    sentence = refused("pre-train", "-o", tmp_path, "--resume", "-g", 2)
    assert "trains 1 teachers, got 2 quadrotors" in sentence


def test_the_parts_of_a_job_array_are_put_together_by_resume(raptor: Run, tmp_path: Path) -> None:
    command = ("pre-train", "-g", 3, "-o", tmp_path, "--shard")
    text = raptor(*command, "1/2", *TINY)
    assert "part 1/2 is trained; 1 shard of other parts not yet\n" in text
    assert f"once all parts are: raptor pre-train --output {tmp_path} --resume\n" in text
    assert "part 2/2 is trained\n" in raptor(*command, "2/2", *TINY)
    assert "of 3 teachers solved: mean return" in raptor("pre-train", "-o", tmp_path, "--resume")
    assert len(package.load_teachers(tmp_path)) == 3


def test_the_help_teaches() -> None:
    result = CliRunner().invoke(app, ["pre-train", "--help"], env={"COLUMNS": "160", "TERM": "dumb"})
    assert result.exit_code == 0
    for text in (
        "Train one teacher for each quadrotor of a population.",
        "raptor pre-train --quadrotors quadrotors --output teachers",
        "--config paper",
        "--resume",
        "--generate",
        "--num-teachers",
        "--shard",
        "raptor.load_teachers",
    ):
        assert text in result.stdout, text
