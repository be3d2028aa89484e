"""Settings as flags: help, limit and default of each follow from its declaration."""

from __future__ import annotations

import dataclasses
import inspect
import json
import typing
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, ClassVar

import typer
from typer.core import TyperCommand

from raptor.cli.options import option


class SettingsCommand(TyperCommand):
    """A command with a flag for each plain setting of `raptor distill`.

    Flags may be spelled with underscores, as in Isaac Lab's workflows, and switches may be followed by true or false.
    They are made when they are needed, because settings are declared beside what needs torch.
    """

    OWN: ClassVar[tuple[str, ...]] = ("task", "teacher_checkpoint", "teacher_normalizer")
    """Settings for which the command has options of its own."""

    _own: list[Any]
    _all: list[Any] | None = None

    @property
    def params(self) -> list[Any]:
        """Arguments and options of the command itself, and the flags."""
        self._all = self._all or [*self._own, *_flags(self.OWN)]
        return self._all

    @params.setter
    def params(self, params: list[Any]) -> None:
        self._own, self._all = params, None

    def parse_args(self, context: Any, args: list[str]) -> list[str]:
        """Spell the arguments as the options are declared, then parse them."""
        declared = {name for option in self.params for name in (*option.opts, *option.secondary_opts)}
        switches = {name for option in self.params if getattr(option, "is_flag", False) for name in option.opts}
        return super().parse_args(context, list(respell(args, declared, switches)))


def respell(args: Sequence[str], declared: set[str], switches: set[str]) -> Iterator[str]:
    """Arguments as the options are declared: hyphens for underscores, `--no-x` for `--x false`."""
    rest = list(args)
    while rest:
        name, equals, value = rest.pop(0).partition("=")
        if name.startswith("--") and name.replace("_", "-") in declared:
            name = name.replace("_", "-")
        if name in switches and not equals and rest and rest[0].lower() in ("true", "false"):
            equals, value = "=", rest.pop(0)
        if name in switches and equals and value.lower() in ("true", "false"):
            yield name if value.lower() == "true" else f"--no-{name[2:]}"
        else:
            yield f"{name}{equals}{value}"


def given_flags(context: typer.Context) -> list[str]:
    """The settings that flags were given for, as `key=value`."""
    return [f"{name}={value}" for name, value in context.meta.get(__name__, {}).items()]


def _flags(without: Sequence[str]) -> list[Any]:
    """Options for all settings but those, which put what is given into the context."""
    from raptor.config.settings import limits_of, meanings_of
    from raptor.training.distillation.config import EnvDistillConfig as Settings

    hints, limits, meanings = typing.get_type_hints(Settings), limits_of(Settings), meanings_of(Settings)
    parameters = []
    for field in dataclasses.fields(Settings):
        name, kinds = field.name, set(typing.get_args(hints[field.name])) or {hints[field.name]}
        if name in without or not kinds <= {bool, int, float, str, type(None)}:
            continue
        facts = [limits[name].text] if name in limits else []
        facts += [] if field.default is None else [f"{json.dumps(field.default).strip(chr(34))} by default"]
        flags = [f"--{spelling}" for spelling in (name, *(old for old, new in Settings.RENAMED.items() if new == name))]
        made = option(
            f"{flags[0]}/--no-{name}".replace("_", "-") if bool in kinds else " ".join(flags).replace("_", "-"),
            None if bool in kinds else "N" if int in kinds else "X" if float in kinds else "TEXT",
            f"{meanings[name]} ({'; '.join(facts)})" if facts else meanings[name],
            callback=_keeper(name, as_text=str in kinds),
            expose_value=False,
            rich_help_panel="Settings",
        )
        annotation: Any = Annotated[bool | None, made] if bool in kinds else Annotated[str | None, made]
        parameters.append(inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation))

    def collect() -> None: ...

    collect.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    collect.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    app = typer.Typer(add_completion=False)
    app.command()(collect)
    return list(typer.main.get_command(app).params)


def _keeper(name: str, as_text: bool) -> Any:
    def keep(context: typer.Context, value: Any) -> None:
        if value is not None:
            is_plain = as_text or isinstance(value, bool)
            context.meta.setdefault(__name__, {})[name] = json.dumps(value) if is_plain else value

    return keep
