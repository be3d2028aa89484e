"""The command `raptor`: its subcommands, and what becomes of errors."""

from __future__ import annotations

import contextlib
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from raptor.cli import (
    distill,
    distill_isaac,
    evaluate,
    export,
    machine,
    post_train,
    pre_train,
    quadrotors,
    quickstart,
    run,
    train,
)
from raptor.cli.distill_options import FlagCommand
from raptor.core.errors import LostProcessError, UserError
from raptor.core.torchrun import silent, started_together

TOGETHER = ("train-direct", "post-train")
"""Commands that several processes can carry out together."""

OTHERS_TOO = {"ignore_unknown_options": True}
"""Options that a command does not know are those of a program that it starts."""

EPILOG = "`raptor COMMAND --help` explains a command, with examples."


class Commands(TyperGroup):
    """Prints a user's mistake as one sentence and ends with status 2; `--debug` shows the traceback instead."""

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = True,
        **extra: Any,
    ) -> Any:
        """Run the command line.

        Args:
            args: the arguments; those of the process by default. `--debug` may stand anywhere among them.
            prog_name: ignored; it is `raptor`, however it was started.
            complete_var: handed on to typer, like the rest.
            standalone_mode: False returns the exit status instead of leaving the process.
            windows_expand_args: handed on.
            extra: handed on.
        """
        given = list(sys.argv[1:] if args is None else args)
        end = given.index("--") if "--" in given else len(given)
        debug = "--debug" in given[:end]
        arguments = [argument for argument in given[:end] if argument != "--debug"] + given[end:]
        extra |= {"prog_name": "raptor", "complete_var": complete_var, "windows_expand_args": windows_expand_args}
        with warnings.catch_warnings(), _first_speaks():
            warnings.showwarning = _show_warning
            status = self._run(arguments, debug, extra)
        if standalone_mode:
            sys.exit(status)
        return status

    def _run(self, arguments: list[str], debug: bool, extra: dict[str, Any]) -> int:
        try:
            result = super().main(arguments, standalone_mode=False, **extra)
        except typer.Abort:
            return 130
        except Exception as error:
            message = _sentence(error, arguments)
            if debug or message is None:
                raise
            with contextlib.redirect_stderr(sys.__stderr__ if _is_told_by_all(error) else sys.stderr):
                _say("error", message)
            return 2
        return result if isinstance(result, int) else 0


app = typer.Typer(
    cls=Commands,
    epilog=EPILOG,
    add_completion=False,
    invoke_without_command=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def raptor(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version and leave.")] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show the traceback of an error; anywhere in a command.")
    ] = False,
) -> None:
    """Train, evaluate and export one tiny recurrent policy that flies any quadrotor.

    ```
    raptor quickstart --output runs/demo       # all steps, in five minutes
    raptor evaluate published                  # how good the published policy is
    raptor train-direct --output runs/mine     # train one yourself
    raptor doctor                              # what this machine offers
    ```
    """
    del debug  # taken out of the arguments by Commands
    if version:
        import raptor

        typer.echo(f"raptor {raptor.__version__}")
    elif context.invoked_subcommand is None:
        typer.echo(context.get_help())
    elif started_together() and context.invoked_subcommand not in TOGETHER:
        raise UserError(
            f"raptor {context.invoked_subcommand} runs in one process: start it without torchrun, which is for "
            f"{' and '.join(TOGETHER)}"
        )


for name, command in (
    ("quickstart", quickstart.quickstart),
    ("train-direct", train.train_direct),
    ("pre-train", pre_train.pre_train),
    ("post-train", post_train.post_train),
    ("run", run.run),
    ("evaluate", evaluate.evaluate),
    ("export", export.export),
    ("card", export.card),
    ("platforms", quadrotors.platforms),
    ("sample", quadrotors.sample),
    ("describe", quadrotors.describe),
    ("doctor", machine.doctor),
):
    app.command(name)(command)

app.command("distill", cls=FlagCommand)(distill.distill)
app.command("distill-isaac", cls=FlagCommand, context_settings=OTHERS_TOO)(distill_isaac.distill_isaac)


def main() -> None:
    """Run the command line of this process, on one thread where `OMP_NUM_THREADS` does not say otherwise.

    The kernels are small, and threads wait for each other after each of them: more processes use more cores well.
    """
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported
    app()


def _sentence(error: Exception, arguments: Sequence[str]) -> str | None:
    """The message for the user about an error; None where it is a fault of this package."""
    if isinstance(error, UserError):
        return str(error)
    if hasattr(error, "format_message"):  # typer's own: an unknown option, a missing argument
        context = getattr(error, "ctx", None)
        path = context.command_path if context is not None else "raptor"
        message = str(error.format_message()).rstrip(".")
        value = _value_of(getattr(error, "param", None), arguments)
        got = f", got {value!r}" if message.startswith("Invalid") and value is not None and value not in message else ""
        return f"{message}{got}: see {path} --help"
    if isinstance(error, OSError) and error.filename is not None:
        return f"{os.fsdecode(error.filename)}: {error.strerror}"
    return None


def _value_of(option: Any, arguments: Sequence[str]) -> str | None:
    """What was given for an option, as `--name value` or `--name=value`."""
    names = getattr(option, "opts", ())
    for argument, following in zip(arguments, [*arguments[1:], None], strict=True):
        name, equals, value = argument.partition("=")
        if name in names:
            return value if equals else following
    return None


@contextlib.contextmanager
def _first_speaks() -> Iterator[None]:
    """Silence this process, where another one of the job prints."""
    if not silent():
        yield
        return
    with open(os.devnull, "w") as nothing, contextlib.redirect_stdout(nothing), contextlib.redirect_stderr(nothing):
        yield


def _is_told_by_all(error: Exception) -> bool:
    """Whether also silent processes report it: one is lost, perhaps the one that prints, or memory is short here."""
    return silent() and (
        isinstance(error, LostProcessError) or isinstance(error.__cause__, (MemoryError, RuntimeError))
    )


def _show_warning(message: Warning | str, category: type[Warning], *place: Any, **more: Any) -> None:
    _say("warning", str(message))


def _say(kind: str, message: str) -> None:
    colour = typer.colors.RED if kind == "error" else typer.colors.YELLOW
    typer.echo(f"{typer.style(f'{kind}:', fg=colour)} {' '.join(message.split())}", err=True)
