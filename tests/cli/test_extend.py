"""`--extend` and the entry points: terms of one's own in every command."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import gymnasium
import pytest
import typer
from tiny_run import TINY
from typer.testing import CliRunner

import raptor as package
from raptor.cli import app
from raptor.tasks import terms

Run = Callable[..., str]
MINE = """
import raptor

@raptor.term("observation")
def altitude(view, scale: float = 1.0, at: tuple[float, ...] = (0.0, 1.0)):
    return scale * view.state.position[..., 2:]

@raptor.term("cost", weight=0.1)
def roll(step):
    return step.next_state.angular_velocity[..., 0] ** 2
"""
SEES = "task.observation=[position_error, rotation, angular_velocity, altitude]"


@pytest.fixture(autouse=True)
def forget(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Each test begins without terms of its own; called, it forgets them."""

    def anew() -> None:
        known = {name: term for name, term in terms._registered.items() if term.function.__module__[:7] == "raptor."}
        monkeypatch.setattr(terms, "_registered", known)
        monkeypatch.setattr(terms, "_extensions", {})

    anew()
    return anew


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    file = tmp_path / "mine.py"
    file.write_text(MINE)
    return file


def test_a_run_is_gone_on_with_and_evaluated_where_its_terms_are_handed_over(
    raptor: Run, refused: Run, mine: Path, tmp_path: Path, forget: Callable[[], None]
) -> None:
    run, settings = tmp_path / "run", [*TINY, SEES, "task.extra.altitude.scale=2", "objective.terms=[roll]"]
    text = raptor("train-direct", "-o", run, *settings, "--extend", mine)
    assert f"next: raptor evaluate {run} --extend {mine}" in text
    assert package.load_policy(run).observation_dim == 16
    forget()
    again = refused("train-direct", "-o", run, "--resume")
    assert "task.extra.altitude cannot be used: there is no term altitude: hand over the file" in again
    raptor("train-direct", "-o", run, "--resume", "--extend", mine)
    further = ["train-direct", "-o", tmp_path / "further", *settings, f"initial_policy={run}"]
    raptor(*further, "--extend", mine)
    raptor("export", run)
    exported = package.load_policy(run / "policy.onnx")
    assert exported.layout == package.load_policy(run).layout
    assert "altitude" in raptor("card", run / "policy.onnx")


def test_a_chain_of_jobs_takes_terms_and_says_how_to_go_on(raptor: Run, mine: Path, tmp_path: Path) -> None:
    file, numbers = tmp_path / "chain.yaml", dict(setting.split("=") for setting in TINY if "." not in setting)
    settings = ", ".join(f"{name}: {value}" for name, value in numbers.items())
    task = "task: {episode_steps: 4, extra: {roll: {weight: 0.2}}}"
    file.write_text(f"stages:\n  policy: {{job: train-direct, settings: {{{settings}, {task}}}}}\n")
    raptor("run", file, "-o", tmp_path / "chain", "--extend", mine)
    assert package.load_policy(tmp_path / "chain" / "policy").observation_dim == 22


def test_an_installed_package_offers_terms(
    raptor: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, forget: Callable[[], None]
) -> None:
    (tmp_path / "offered_terms.py").write_text(MINE)
    info = tmp_path / "offered-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: offered\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[raptor.terms]\nroll = offered_terms:roll\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    raptor("train-direct", "-o", tmp_path / "run", *TINY, "task.extra.roll.weight=0.3")
    assert terms.find_term("roll").function.__module__ == "offered_terms"
    del sys.modules["offered_terms"]


def test_gymnasium_knows_the_width_of_an_observation_of_ones_own(mine: Path) -> None:
    terms.extend(mine)
    task = package.Task(observation=("position_error", "altitude"))
    env = gymnasium.make("raptor/Hover-v0", task=task, compile=False)
    assert env.observation_space.shape == (4,)
    assert env.reset(seed=0)[0].shape == (4,)


def test_every_command_takes_extensions() -> None:
    for name in typer.main.get_command(app).commands:
        assert "--extend" in CliRunner().invoke(app, [name, "--help"], env={"COLUMNS": "200"}).output, name
