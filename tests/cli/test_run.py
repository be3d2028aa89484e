"""`raptor run`: the contract, and the mistakes that one can make with it."""

from __future__ import annotations

import re
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from raptor.cli import app
from raptor.evaluation import Evaluation
from raptor.lab.pipeline import load_pipeline
from raptor.training.direct import job
from raptor.training.direct.learner import GradientLearner

Run = Callable[..., str]
CHAIN = """
compile: false
stages:
  quadrotors: {job: sample, num: 3}
  student:
    job: train-direct
    settings: {num_updates: 2, batch_size: 4, segment_steps: 2, num_validation: 4, task: {episode_steps: 4}}
  evaluation: {job: evaluate, policies: [student], suites: [unseen], num_quadrotors: 2}
  report: {evaluation: evaluation, policies: []}
"""


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pipelines") / "mine.yaml"
    path.write_text(CHAIN)
    return path


@pytest.fixture(scope="module")
def finished(raptor: Run, file: Path) -> tuple[Path, str]:
    """A folder that a pipeline filled, and what it printed."""
    output = file.parent / "run"
    return output, raptor("run", file, "--output", output, "--seed", 5)


def test_it_shows_the_figures_and_what_was_done_and_where_things_are(finished: tuple[Path, str]) -> None:
    output, text = finished
    lines = text.splitlines()
    assert any(re.search(r"suite and metric.* student", line) for line in lines)
    assert any(re.match(r"quadrotors +run +\d+ s +3 quadrotors", line) for line in lines)
    assert any(re.match(r"student +run +\d+ s +2 updates", line) for line in lines)
    assert lines[-1] == f"report: {output / 'report' / 'report.html'}"
    assert load_pipeline(output / "pipeline.yaml")["student"].job.settings.seed == 5


def test_it_is_told_line_by_line_what_happens(finished: tuple[Path, str], file: Path) -> None:
    output, _ = finished
    result = CliRunner().invoke(app, ["run", str(file), "-o", str(output), "--seed", "5"])
    assert result.exit_code == 0
    assert result.stderr.splitlines() == [f"{name}: unchanged" for name in load_pipeline(file).names]


def test_a_dry_run_says_what_there_is_to_do_and_does_nothing(
    finished: tuple[Path, str], raptor: Run, file: Path
) -> None:
    output, _ = finished
    before = {path: path.stat().st_mtime_ns for path in output.rglob("*")}
    text = raptor("run", file, "-o", output, "--seed", 5, "--dry-run", "student.settings.num_updates=3")
    rows = [re.split(r" {2,}", line.strip()) for line in text.splitlines()]
    assert rows == [
        ["stage", "job", "to do", "why"],
        ["quadrotors", "sample", "nothing", "unchanged"],
        ["student", "train-direct", "run anew", "settings.num_updates (2, now 3); needs --overwrite"],
        ["evaluation", "evaluate", "run anew", "student changed"],
        ["report", "report", "run anew", "evaluation changed"],
    ]
    assert {path: path.stat().st_mtime_ns for path in output.rglob("*")} == before


def test_the_folder_of_a_stage_is_what_other_commands_take(finished: tuple[Path, str], raptor: Run) -> None:
    output, _ = finished
    assert "raptor train-direct with the settings below" in raptor("card", output / "student")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (
            ["nothing.yaml"],
            "there is no configuration file nothing.yaml: give a YAML file, a run, or one of the presets fu",
        ),
        (["FILE"], "says no output folder: give --output"),
        (
            ["FILE", "-o", "OUT", "student.settings.num_update=3"],
            "num_update is unknown (command line): did you mean nu",
        ),
        (["FILE", "-o", "OUT", "--only", "studnt"], "there is no stage 'studnt': did you mean student?"),
        (["FILE", "-o", "OUT", "--device", "gpu"], "student: device must be cpu"),
        (
            ["FILE", "-o", "OUT", "--overwrite", "studnt.seed=1"],
            "studnt is unknown (command line): did you mean stude",
        ),
        (["FILE", "-o", "FILE"], "is a file: choose another output folder"),
        (["FILE", "-o", "OUT", "seed=-1"], "seed must be between 0 and 999999, got -1 (command line)"),
    ],
)
def test_a_mistake_is_reported_in_one_sentence_before_anything_is_done(
    refused: Run, file: Path, tmp_path: Path, arguments: list[str], sentence: str
) -> None:
    paths = {"FILE": str(file), "OUT": str(tmp_path / "out")}
    assert sentence in refused("run", *(paths.get(argument, argument) for argument in arguments))
    assert not (tmp_path / "out").exists()


def test_ctrl_c_stops_with_a_checkpoint_and_says_how_to_go_on(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    update = GradientLearner.update

    def interrupted(self: GradientLearner) -> dict[str, float]:
        signal.raise_signal(signal.SIGINT)
        return update(self)

    monkeypatch.setattr(GradientLearner, "update", interrupted)
    arguments = ["run", str(file), "seed=2", "--output", str(tmp_path), "--until", "student"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 130
    how = f"raptor run {file} seed=2 --output {tmp_path} --until student"
    assert result.stderr.splitlines()[-1] == f"stopped in student; go on with: {how}"
    monkeypatch.undo()
    again = CliRunner().invoke(app, how.split()[1:])
    assert again.exit_code == 0
    assert again.stderr.splitlines()[0] == "student: goes on where it was interrupted"


def test_an_interruption_at_once_says_how_to_go_on(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*arguments: object, **named: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(job, "run_to_end", interrupt)
    result = CliRunner().invoke(app, ["run", str(file), "-o", str(tmp_path), "--until", "student"])
    assert result.exit_code == 130
    how = f"raptor run {file} --output {tmp_path} --until student"
    assert result.stderr.splitlines()[-1] == f"interrupted; go on with: {how}"


def test_the_help_teaches() -> None:
    result = CliRunner().invoke(app, ["run", "--help"], env={"COLUMNS": "160", "TERM": "dumb"})
    assert result.exit_code == 0
    for text in ("Run a chain of jobs", "raptor run small -o runs/small", "--dry-run", "--until", "--overwrite"):
        assert text in result.stdout, text


def test_vehicles_and_a_trajectory_of_ones_own_take_the_place_of_what_all_stages_say(
    raptor: Run, refused: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    tiny = "settings: {num_updates: 1, batch_size: 4, segment_steps: 2, num_validation: 4, hidden_dim: 4, "
    tiny += "initial_policy: null, task: {episode_steps: 4}}"
    Path("mine.yaml").write_text(
        "compile: false\nstages:\n  drawn: {job: sample, num: 2}\n"
        "  teachers: {job: pre-train, generate: 3}\n  student: {teachers: teachers, job: post-train}\n"
        f"  policy:\n    job: train-direct\n    {tiny}\n"
        "  evaluation: {job: evaluate, policies: [policy], num_quadrotors: 1, suites: [platforms]}\n"
    )
    Path("my5.yaml").write_text("mass: 0.65\nthrust_to_weight: 4\n")
    Path("line.csv").write_text("t,x,y,z\n0,0,0,0\n0.03,0.1,0,0\n")
    own = ["-q", "my5.yaml", "-q", "race", "--reference", "line.csv"]
    raptor("run", "mine.yaml", "-o", "out", *own, "--only", "policy")
    raptor("run", "mine.yaml", "-o", "out", *own, "--only", "evaluation")
    settings = {name: job for name, job, _ in load_pipeline(Path("out/pipeline.yaml")).stages}
    assert settings["teachers"].quadrotors == settings["policy"].quadrotors == ("my5.yaml", "race")
    assert settings["teachers"].generate is None
    student, policy = settings["student"].settings, settings["policy"].settings
    for task in (settings["teachers"].settings.task, student.task, student.fine_tune.task, policy.task):
        assert str(task.references.trajectory.source).startswith("line.csv")
        assert task.termination.about_target
    flown = Evaluation.load("out/evaluation/evaluation.json")
    assert flown.suites == ["platforms", "reference"]
    assert [each["name"] for each in flown.settings["quadrotors"]] == ["my5", "race"]
    message = refused("run", "mine.yaml", "-o", "out", *own, "evaluation.suites=[paper]")
    assert "stages.evaluation" in message
    assert "the suite paper samples vehicles of its own" in message
