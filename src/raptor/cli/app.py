"""The command `raptor`: its subcommands, and what becomes of errors and interruptions."""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from raptor.cli import distill, doctor, policies, quadrotors, training
from raptor.cli.common import INTERRUPTED, extendable, option
from raptor.core.errors import LostProcessError, UserError, printable
from raptor.core.torchrun import end_at_once, silent, started_together

TOGETHER = ("train-direct", "post-train")  # commands that several processes can carry out together
GONE = {"raptor export --teacher": "name the teacher as FOLDER:NUMBER, raptor export teachers:3"}
"""Options that had another meaning once, and what to give instead."""
MEANT = {"train": "those that train are quickstart, train-direct, pre-train, post-train and distill"}
"""Words that are no commands, and what may be meant."""


class Commands(TyperGroup):
    """Prints a user's mistake as one sentence and ends with status 2; `--debug` shows the traceback instead.

    Ctrl-C, a termination signal and the closing of the terminal end with status 130.
    """

    def main(self, args: Sequence[str] | None = None, *, standalone_mode: bool = True, **more: Any) -> Any:  # type: ignore[override]
        """Run the command line; `--debug` may stand anywhere in it."""
        given = list(sys.argv[1:] if args is None else args)
        end = given.index("--") if "--" in given else len(given)
        arguments = [argument for argument in given[:end] if argument != "--debug"] + given[end:]
        with _as_a_command():
            try:
                if any("\0" in argument for argument in arguments):
                    raise UserError(f"an argument holds a NUL: {' '.join(arguments)}")
                status = super().main(arguments, standalone_mode=False, **more | {"prog_name": "raptor"})
            except typer.Abort:
                status = INTERRUPTED
            except Exception as error:
                message = _sentence(error, arguments)
                if "--debug" in given[:end] or message is None:
                    raise
                # silent processes report, too, that one is lost, perhaps the one that prints, or that memory is short
                lost = isinstance(error, LostProcessError) or isinstance(error.__cause__, (MemoryError, RuntimeError))
                with contextlib.redirect_stderr(sys.__stderr__ if silent() and lost else sys.stderr):
                    _say("error", message)
                status = 2
        status = status if isinstance(status, int) else 0
        if standalone_mode:
            if silent():
                end_at_once(status)
            sys.exit(status)
        return status

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Find the command that is given."""
        if args[0] in MEANT:
            raise UserError(f"there is no command {args[0]}: {MEANT[args[0]]}; see raptor --help")
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        """Run a command; those that can be gone on with have said how before an interruption comes here."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            typer.echo("interrupted", err=True)
            raise typer.Exit(INTERRUPTED) from None


app = typer.Typer(
    cls=Commands,
    epilog="`raptor COMMAND --help` explains a command, with examples.",
    add_completion=False,
    invoke_without_command=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def raptor(
    context: typer.Context,
    version: Annotated[bool, option("--version", "Print the version and leave.")] = False,
    debug: Annotated[bool, option("--debug", "Show the traceback of an error; anywhere in a command.")] = False,
) -> None:
    """Train, evaluate and export one tiny recurrent policy that flies any quadrotor.

    ```
    raptor quickstart --output runs/demo       # all steps, in three minutes
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


COMMANDS: list[Callable[..., None]] = [policies.quickstart, training.train_direct, training.pre_train]
COMMANDS += [training.post_train, training.run, policies.evaluate, policies.export, policies.card]
COMMANDS += [quadrotors.platforms, quadrotors.sample, quadrotors.describe, doctor.doctor]
for command in COMMANDS:
    app.command()(extendable(command))
app.command(cls=distill.SettingsCommand)(extendable(distill.distill))
app.command(cls=distill.SettingsCommand, context_settings={"ignore_unknown_options": True})(
    extendable(distill.distill_isaac)
)


def main() -> None:
    """Run the command line of this process."""
    app()


def _sentence(error: Any, arguments: Sequence[str]) -> str | None:
    """The message for the user about an error; None where it is a fault of this package."""
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, OSError) and error.filename is not None:
        return f"{os.fsdecode(error.filename)}: {error.strerror}"
    if not hasattr(error, "format_message"):  # which typer's own have: an unknown option, a missing argument
        return None
    context, names = getattr(error, "ctx", None), getattr(getattr(error, "param", None), "opts", ())
    path = context.command_path if context is not None else "raptor"
    instead = GONE.get(f"{path} {getattr(error, 'option_name', '')}", f"see {path} --help")
    message = str(error.format_message()).rstrip(".")
    parts = (
        (*argument.partition("="), following) for argument, following in itertools.zip_longest(arguments, arguments[1:])
    )
    value = next((value if equals else following for name, equals, value, following in parts if name in names), None)
    if value is not None and message.startswith("Invalid") and value not in message:
        message += f", got {value!r}"
    return f"{message}: {instead}"


@contextlib.contextmanager
def _as_a_command() -> Iterator[None]:
    """Warnings, and what is compiled, are a line each; signals interrupt as Ctrl-C does; one process of a job prints.

    A thread's failure to write is left to the main thread.
    """
    logger, handler, hook = logging.getLogger("raptor.core.compilation"), logging.Handler(), threading.excepthook
    before = {}
    with contextlib.ExitStack() as stack:
        if silent():
            nothing = stack.enter_context(open(os.devnull, "w"))
            stack.enter_context(contextlib.redirect_stdout(nothing))
            stack.enter_context(contextlib.redirect_stderr(nothing))
        stack.enter_context(warnings.catch_warnings())
        warnings.showwarning = lambda message, *rest, **more: _say("warning", str(message))
        handler.emit = lambda record: typer.echo(record.getMessage(), err=True)  # type: ignore[method-assign]
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
        threading.excepthook = lambda failed: None if issubclass(failed.exc_type, OSError) else hook(failed)
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM)):
                if signal.getsignal(number) is signal.SIG_DFL:  # nohup has the closing of the terminal ignored
                    before[number] = signal.signal(number, signal.default_int_handler)
        try:
            yield
        finally:
            for number, default in before.items():
                signal.signal(number, default)
            threading.excepthook = hook
            logger.removeHandler(handler)


def _say(kind: str, message: str) -> None:
    colour = typer.colors.RED if kind == "error" else typer.colors.YELLOW
    words = (word if len(word) < 300 else f"{word[:297]}..." for word in printable(message).split())
    typer.echo(f"{typer.style(f'{kind}:', fg=colour)} {' '.join(words)}", err=True)
