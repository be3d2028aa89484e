"""The command line, run in this process."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from typer.testing import CliRunner

from raptor.cli import app


@pytest.fixture(scope="session")
def raptor() -> Callable[..., str]:
    """Run a command that must succeed; returns what it printed to stdout."""

    def run(*arguments: object) -> str:
        result = CliRunner().invoke(app, [str(argument) for argument in arguments])
        assert result.exit_code == 0, (result.output, result.exception)
        return result.stdout

    return run


@pytest.fixture(scope="session")
def refused() -> Callable[..., str]:
    """Run a command that must be refused, in one sentence and with status 2; returns the sentence."""

    def run(*arguments: object) -> str:
        result: Any = CliRunner().invoke(app, [str(argument) for argument in arguments])
        assert result.exit_code == 2, (result.output, result.exception)
        assert isinstance(result.exception, SystemExit), result.exception
        assert result.stdout == ""
        lines = result.stderr.splitlines()
        assert len(lines) == 1, lines
        assert lines[0].startswith("error: ")
        return lines[0].removeprefix("error: ")

    return run
