"""The rooms of the package: a room imports only from those before it in the table of `docs/architecture.md`."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import raptor

PACKAGE = Path(raptor.__file__).parent
PAGE = Path(__file__).parents[1] / "docs" / "architecture.md"
FILES = {
    f"raptor.{path.relative_to(PACKAGE).with_suffix('').as_posix().replace('/', '.')}": path
    for path in PACKAGE.rglob("*.py")
}


def rooms() -> list[str]:
    """In the order of the page."""
    return re.findall(r"^\| `raptor\.([\w.]+)` \|", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)


def room_of(module: str) -> str | None:
    """The room that a module belongs to; None for the package's own front page."""
    inner = module.removeprefix("raptor").removeprefix(".")
    fitting = [room for room in rooms() if inner == room or inner.startswith(f"{room}.")]
    return max(fitting, key=len, default=None)


def imports(path: Path) -> Iterator[str]:
    """Files of the package that a file imports, anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            within = [f"{node.module}.{alias.name}" for alias in node.names]
            names = [name if name in FILES or f"{name}.__init__" in FILES else node.module for name in within]
        else:
            continue
        for name in names:
            if name in FILES or f"{name}.__init__" in FILES:
                yield name if name in FILES else f"{name}.__init__"


def test_every_file_has_a_room() -> None:
    homeless = [name for name in FILES if room_of(name) is None and name not in ("raptor.__init__", "raptor.__main__")]
    assert not homeless


def test_a_room_imports_only_from_rooms_before_it() -> None:
    order = {room: place for place, room in enumerate(rooms())}
    wrong = [
        f"{name} imports {other}"
        for name, path in FILES.items()
        for other in imports(path)
        if (room := room_of(name)) and (its := room_of(other)) and order[its] > order[room]
    ]
    assert not wrong


def test_no_files_import_each_other() -> None:
    graph = {name: {other for other in imports(path) if other != name} for name, path in FILES.items()}
    done: set[str] = set()

    def visit(name: str, above: tuple[str, ...]) -> None:
        assert name not in above, f"a circle: {' -> '.join((*above[above.index(name) :], name))}"
        if name not in done:
            for other in sorted(graph[name]):
                visit(other, (*above, name))
            done.add(name)

    for name in sorted(graph):
        visit(name, ())
