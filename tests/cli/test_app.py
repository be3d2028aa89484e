"""`raptor` itself: help, version, errors."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
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
    assert done.stderr.startswith("error: there is no quadrotor")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (
            ["train"],
            "there is no command train: those that train are quickstart, train-direct, pre-train, post",
        ),
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
    assert "raptor.core.errors.UserError: there is no quadrotor" in done.stderr


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


def test_what_is_compiled_is_announced(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import torch

    from raptor.core import compilation

    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(compilation, "build_kernel", lambda graph, example, key: graph)

    @app.command("compile", hidden=True)
    def compile() -> None:
        compilation.compile_flat(lambda x: [2 * x], [torch.ones(2)])

    try:
        result = CliRunner().invoke(app, ["compile"])
    finally:
        app.registered_commands.pop()
    assert result.stderr == "compiling a step of the simulator: half a minute or more, kept for later starts\n"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interruption_ends_any_command_with_status_130_and_a_word(number: int) -> None:
    @app.command("wait", hidden=True)
    def wait() -> None:
        signal.raise_signal(number)
        time.sleep(10)

    given = signal.getsignal(number)
    if given is signal.SIG_IGN:  # as in the background of a shell
        signal.signal(number, signal.default_int_handler)
    before = signal.getsignal(number)
    try:
        result = CliRunner().invoke(app, ["wait"])
        restored = signal.getsignal(number)
    finally:
        app.registered_commands.pop()
        signal.signal(number, given)
    assert (result.exit_code, result.stderr.strip()) == (130, "interrupted")
    assert restored is before


def test_bytes_that_command_the_terminal_are_shown_escaped(refused: Run, tmp_path: Path) -> None:
    assert "\\x1b[2J" in refused("evaluate", tmp_path / "\x1b[2J.pt")
    assert "NUL" in refused("evaluate", "policy\0.pt")


def test_a_name_that_no_file_can_have_is_refused(refused: Run) -> None:
    assert len(refused("describe", 5000 * "x")) < 400


def test_what_a_thread_of_a_library_cannot_write_is_left_to_the_main_thread() -> None:
    @app.command("lose", hidden=True)
    def lose() -> None:
        thread = threading.Thread(target=lambda: os.stat("/no/such/folder/file"))
        thread.start()
        thread.join()
        os.stat(b"/no/such/folder/file")

    try:
        result = CliRunner().invoke(app, ["lose"])
    finally:
        app.registered_commands.pop()
    assert (result.exit_code, result.stderr) == (2, "error: /no/such/folder/file: No such file or directory\n")
