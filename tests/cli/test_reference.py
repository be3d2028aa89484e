"""`--reference`: training on a trajectory from a file, which the run keeps."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from raptor.config import load_config
from raptor.training import TrainDirectConfig

Run = Callable[..., str]
TINY = ("batch_size=4", "segment_steps=2", "task.episode_steps=4", "compile=false", "validation_interval=0")
LINE = "t,x,y,z\n0,0,0,0\n0.1,0.4,0,0\n0.2,0.8,0,0\n"


@pytest.fixture
def line(tmp_path: Path) -> Path:
    """A file with a line that is flown at 4 m/s."""
    (tmp_path / "line.csv").write_text(LINE)
    return tmp_path / "line.csv"


def test_it_is_short_for_the_trajectory_and_bounds_about_it_and_keys_come_after_it(
    raptor: Run, tmp_path: Path, line: Path
) -> None:
    raptor("train-direct", "-o", tmp_path / "a", "--reference", line, *TINY, "num_updates=1")
    task = load_config(TrainDirectConfig, tmp_path / "a").task
    assert (task.references.trajectory_share, task.termination.about_target) == (0.5, True)
    assert task.references.trajectory.flight_s == pytest.approx(0.2 + 1)
    own = ["task.termination.about_target=false", "task.references.trajectory.ramp=0"]
    raptor("train-direct", "-o", tmp_path / "b", "--reference", line, *TINY, "num_updates=1", *own)
    task = load_config(TrainDirectConfig, tmp_path / "b").task
    assert (task.references.trajectory.ramp, task.termination.about_target) == (0.0, False)


def test_a_run_goes_on_without_the_file_and_refuses_another_one(
    raptor: Run, refused: Run, tmp_path: Path, line: Path
) -> None:
    raptor("train-direct", "-o", tmp_path / "whole", "--reference", line, *TINY, "num_updates=3")
    run = ("train-direct", "-o", tmp_path / "run")
    raptor(*run, "--reference", line, *TINY, "num_updates=3")
    (checkpoint,) = (tmp_path / "run" / "checkpoints").glob("*3.pt")
    for file in (checkpoint, tmp_path / "run" / "summary.json"):
        file.unlink()
    line.write_text(LINE.replace("0.8", "0.7"))
    from raptor.tasks import trajectory_files

    trajectory_files._texts.clear()  # as in another process
    message = refused(*run, "--resume", "--reference", line)
    assert "begun with other settings: task.references.trajectory.source" in message
    line.unlink()
    copy = tmp_path / "run" / "trajectory.csv"
    copy.write_text(LINE + "# damaged")
    trajectory_files._texts.clear()
    assert f"{copy} is not what the run began with, it was changed: put back" in refused(*run, "--resume")
    copy.write_text(LINE)
    trajectory_files._texts.clear()
    raptor(*run, "--resume")
    assert (tmp_path / "run" / "trajectory.csv").read_text() == LINE
    whole, resumed = (
        (tmp_path / name / "metrics.jsonl").read_text().splitlines()[-1].split('"training/loss": ')[1].split(",")[0]
        for name in ("whole", "run")
    )
    assert resumed == whole
    trajectory_files._texts.clear()
    assert "cannot be read" in refused("train-direct", "-o", tmp_path / "other", "--reference", line)


def test_a_run_can_be_the_configuration_of_another_one_without_the_file(
    raptor: Run, tmp_path: Path, line: Path
) -> None:
    raptor("train-direct", "-o", tmp_path / "a", "--reference", line, *TINY, "num_updates=1")
    line.unlink()
    from raptor.tasks import trajectory_files

    trajectory_files._texts.clear()
    raptor("train-direct", "-o", tmp_path / "b", "--config", tmp_path / "a", "seed=3")
    assert (tmp_path / "b" / "trajectory.csv").read_text() == LINE


def test_a_mistake_in_the_file_is_one_sentence_with_its_line(refused: Run, tmp_path: Path, line: Path) -> None:
    line.write_text(LINE + "0.3,x,0,0\n")
    message = refused("train-direct", "-o", tmp_path / "run", "--reference", line)
    assert f"{line}, line 5: x must be a finite number, got 'x'" in message
    assert not (tmp_path / "run").exists()
