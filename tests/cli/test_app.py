"""`raptor` itself: help, version, errors."""

from __future__ import annotations

import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

import raptor as package
from raptor.cli import app
from raptor.core.errors import UserError

Run = Callable[..., str]
COMMANDS = ["quickstart", "train-direct", "evaluate", "export", "card", "platforms", "sample", "describe", "doctor"]


def test_help_lists_every_command_and_teaches_the_first_one(raptor: Run) -> None:
    for text in (raptor("--help"), raptor("-h"), raptor()):
        assert all(command in text for command in COMMANDS)
        assert "raptor quickstart --output runs/demo" in text


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself_with_an_example(raptor: Run, command: str) -> None:
    text = raptor(command, "--help")
    assert f"raptor {command}" in text.split("Usage:")[1].split("\n", 1)[1] or command == "platforms"


def test_version_is_that_of_the_distribution(raptor: Run) -> None:
    assert raptor("--version") == f"raptor {package.__version__}\n"


def test_help_does_not_wait_for_torch() -> None:
    program = "import sys, raptor.cli; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0


def test_python_m_raptor_is_raptor() -> None:
    done = subprocess.run([sys.executable, "-m", "raptor", "--version"], capture_output=True, text=True)
    assert done.stdout == f"raptor {package.__version__}\n"


def test_a_mistake_in_a_process_of_its_own_is_one_sentence_on_stderr(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "raptor", "describe", str(tmp_path / "no.yaml")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("error: cannot read")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["trian"], "No such command 'trian': see raptor --help"),
        (["evalute"], "No such command 'evalute'. Did you mean 'evaluate'?: see raptor --help"),
        (["platforms", "--fast"], "No such option: --fast: see raptor platforms --help"),
        (["train-direct"], "Missing option '--output' / '-o': see raptor train-direct --help"),
        (["sample", "--num", "many", "--output", "x"], "Invalid value for '--num' / '-n': "),
    ],
)
def test_a_mistyped_command_is_refused_in_one_sentence(refused: Run, arguments: list[str], sentence: str) -> None:
    assert refused(*arguments).startswith(sentence)


@pytest.mark.parametrize("given", [("--num", "many"), ("--num=many",), ("-n", "many")])
def test_a_wrong_value_of_an_option_is_shown(refused: Run, given: tuple[str, ...]) -> None:
    message = refused("sample", *given, "--output", "x")
    assert "'--num'" in message
    assert "'many'" in message
    assert "integer" in message


@pytest.mark.parametrize("place", [0, 1, 2])
def test_debug_shows_the_traceback_wherever_it_stands(tmp_path: Path, place: int) -> None:
    arguments = ["describe", str(tmp_path / "no.yaml")]
    arguments.insert(place, "--debug")
    result = CliRunner().invoke(app, arguments)
    assert isinstance(result.exception, UserError)
    assert result.stderr == ""


def test_debug_prints_the_traceback_in_a_process_of_its_own(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "raptor", "describe", str(tmp_path / "no.yaml"), "--debug"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode != 0
    assert "Traceback" in done.stderr
    assert "raptor.core.errors.UserError: cannot read" in done.stderr


def test_warnings_are_one_line_on_stderr(tmp_path: Path) -> None:
    from raptor.quadrotor import load_platform

    [path] = load_platform("x500_real").save(tmp_path)

    @app.command("warn", hidden=True)
    def warn() -> None:
        warnings.warn(f"something about\n{path}", UserWarning, stacklevel=1)

    before = warnings.showwarning
    try:
        result = CliRunner().invoke(app, ["warn"])
    finally:
        app.registered_commands.pop()
    assert result.stderr == f"warning: something about {path}\n"
    assert warnings.showwarning is before
