"""The reference page of the Python interface, from docstrings and the comments beside fields."""

from __future__ import annotations

import ast
import dataclasses
import functools
import inspect
import pkgutil
import re
import textwrap
from collections.abc import Iterator
from typing import Any

import raptor
from raptor.config.settings import Settings

MORE = {
    "quadrotor": ("State", "Distribution", "step"),
    "tasks": ("Reference",),
    "nn": ("ExpertNetwork",),
    "environments": ("StepResult", "Episode", "make_env"),
    "training": (
        "Callback",
        "RunContext",
        "RunSummary",
        "TrainDirectSummary",
        "PreTrainSummary",
        "PostTrainSummary",
        "EnvDistillSummary",
        "TeacherFile",
    ),
    "evaluation": ("Evaluation", "Estimate"),
    "lab.pipeline": ("PipelineSummary",),
}
"""What public names take or give, and other names that users need, by room."""

INTRODUCTION = """# Python interface

Names under `raptor` are public as `raptor.NAME`; the others are found in the room that their heading names. Shapes are
in parentheses; N is the population. Frames and index orders are in [Conventions](../conventions.md)."""


def api_page() -> str:
    """Every public name, and those that they take or give."""
    parts = [INTRODUCTION]
    for home, names in names_by_room().items():
        parts += [f"## raptor.{home}", _paragraph(pkgutil.resolve_name(f"raptor.{home}"))]
        for name in names:
            parts += [f"### {name.rpartition('.')[2]}", *_entry(name, pkgutil.resolve_name(name))]
    return "\n\n".join(parts) + "\n"


@functools.cache
def names_by_room() -> dict[str, list[str]]:
    """What the page shows, as it is imported."""
    names: dict[str, list[str]] = {}
    for name, home in raptor._HOMES.items():
        names.setdefault(home, []).append(f"raptor.{name}")
    for home, more in MORE.items():
        names.setdefault(home, []).extend(f"raptor.{home}.{name}" for name in more)
    return names


def _entry(name: str, thing: Any) -> Iterator[str]:
    if isinstance(thing, type):
        yield from _class(name, thing)
    elif callable(thing):
        yield _code(f"{name}{_signature(thing, skipped=())}")
        yield _markdown(thing)
    else:
        yield f"`{name} = {thing!r}`"


def _class(name: str, cls: type) -> Iterator[str]:
    is_settings, shown = issubclass(cls, Settings), [base.__name__ for base in cls.__bases__ if base in _classes()]
    if not dataclasses.is_dataclass(cls) and "__init__" in vars(cls):
        yield _code(f"{name}{_signature(cls.__init__)}")
    else:
        yield f"`{name}`"
    yield _markdown(cls)
    if shown:
        yield f"It has all of [{shown[0]}](#{shown[0].lower()})."
    if is_settings:
        yield "Its settings are fields and keyword arguments; they are listed in [Configuration](configuration.md)."
    attributes = {} if is_settings else {name: (type_, text) for name, type_, text in _fields(cls)}
    methods = {}
    for key, member in _members(cls):
        if isinstance(member, property):
            attributes[key] = inspect.signature(member.fget).return_annotation, _paragraph(member)
        else:
            methods[key] = f"`{key}{_signature(member)}`", _paragraph(member)
    if attributes:
        rows = [(f"`{key}`", f"`{type_}`", text) for key, (type_, text) in attributes.items()]
        yield _table(("attribute", "type", "meaning"), rows)
    if methods:
        yield _table(("method", "meaning"), list(methods.values()))


@functools.cache
def _classes() -> set[type]:
    """The classes that the page shows."""
    things = [pkgutil.resolve_name(name) for names in names_by_room().values() for name in names]
    return {thing for thing in things if isinstance(thing, type)}


def _own_classes(cls: type) -> list[type]:
    """The class and its bases of this package, the bases first; those that are shown themselves are left out."""
    left_out = (_classes() | {Settings}) - {cls}
    return [base for base in reversed(cls.__mro__) if base.__module__.startswith("raptor") and base not in left_out]


def _members(cls: type) -> Iterator[tuple[str, Any]]:
    """Public properties and methods, each as it is at last declared."""
    found = {}
    for base in _own_classes(cls):
        for key, member in vars(base).items():
            inner = getattr(member, "__func__", member)
            if not key.startswith("_") and (isinstance(inner, property) or inspect.isfunction(inner)):
                found[key] = inner
    return iter(found.items())


def _fields(cls: type) -> Iterator[tuple[str, str, str]]:
    """Name, type and meaning of each annotated field: its comment, after its unit where it declares one."""
    for base in _own_classes(cls):
        source = textwrap.dedent(inspect.getsource(base))
        lines = source.splitlines()
        (tree,) = ast.parse(source).body
        for node in tree.body:
            if isinstance(node, ast.AnnAssign) and not node.target.id.startswith("_"):
                comment = lines[node.end_lineno - 1][node.end_col_offset :].partition("#")[2].strip()
                yield node.target.id, ast.unparse(node.annotation), _with_unit(base, node.target.id, comment)


def _with_unit(cls: type, name: str, comment: str) -> str:
    """A comment after the shape and the unit that the field of a vehicle declares."""
    fields = {field.name: field for field in dataclasses.fields(cls)} if dataclasses.is_dataclass(cls) else {}
    declared = fields[name].metadata.get("field") if name in fields else None
    if declared is None:
        return comment
    shape = ", ".join(["N", *map(str, declared.shape)]) + ("" if declared.shape else ",")
    meaning = re.sub(r"^\(N[^)]*\) ?", "", comment)
    return f"({shape}) {declared.unit}; {meaning}".rstrip("; ").replace(") ;", ");")


def _signature(function: Any, skipped: tuple[str, ...] = ("self", "cls")) -> str:
    """Parameters and result."""
    signature = inspect.signature(function)
    shown, star = [], False
    for parameter in signature.parameters.values():
        if parameter.name in skipped:
            continue
        if parameter.kind is parameter.KEYWORD_ONLY and not star:
            shown, star = [*shown, "*"], True
        prefix = {parameter.VAR_POSITIONAL: "*", parameter.VAR_KEYWORD: "**"}.get(parameter.kind, "")
        star |= parameter.kind is parameter.VAR_POSITIONAL
        has = parameter.default is not parameter.empty
        annotated = "" if parameter.annotation is parameter.empty else f": {parameter.annotation}"
        default = f"{' = ' if annotated else '='}{parameter.default!r}" if has else ""
        shown.append(f"{prefix}{parameter.name}{annotated}{default}")
    empty = signature.return_annotation in (signature.empty, "None")
    result = "" if empty else f" -> {signature.return_annotation}"
    return f"({', '.join(shown)}){result}"


def _code(text: str) -> str:
    """A block of code; the arguments on a line each where one line is too long."""
    if len(text) > 100 and "(" in text:
        head, _, rest = text.partition("(")
        inner, _, result = rest.rpartition(")") if " -> " not in rest else (rest.rpartition(") -> "))
        arguments = re.sub(r", (?=(?:\*{0,2}\w+(?::|=|,|$)|\*,))", ",\n    ", inner)
        text = f"{head}(\n    {arguments},\n)" + (f" -> {result}" if " -> " in rest else "")
    return f"```py\n{text}\n```"


def _paragraph(thing: Any) -> str:
    """The first paragraph of a docstring, on one line."""
    return " ".join((inspect.getdoc(thing) or "").split("\n\n")[0].split())


def _markdown(thing: Any) -> str:
    """A docstring; entries of its sections as a list."""
    text, in_section, lines = inspect.cleandoc(thing.__doc__ or ""), False, []
    for line in text.splitlines():
        if re.fullmatch(r"(Args|Raises|Returns):", line):
            in_section = True
            lines += [line, ""]
        elif in_section and (entry := re.match(r"    (\w+): (.*)", line)):
            lines.append(f"- `{entry[1]}`: {entry[2]}")
        elif in_section and line.startswith("    "):
            lines[-1] += f" {line.strip()}" if lines[-1] else line.strip()
        else:
            lines.append(line)
    return "\n".join(lines)


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    cells = [head, ["---"] * len(head), *([cell.replace("|", "\\|") for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(row)} |" for row in cells)
