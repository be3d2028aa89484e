"""YAML without its traps: the one reader of every YAML file, and the one writer."""

from __future__ import annotations

import functools
import re
from typing import Any

from raptor.core.atomic import PathLike
from raptor.core.errors import UserError

MOST_VALUES = 100_000
"""Of a document, each value counted as often as aliases repeat it."""

DEEPEST = 50
"""Levels of groups and lists within each other."""

MOST_BYTES = 2**24

_TAG = "tag:yaml.org,2002:"
_CORE_SCHEMA = {  # of YAML 1.2: 1e-3 is a number; `on`, dates and sexagesimals are text
    "bool": (r"true|True|TRUE|false|False|FALSE", "tTfF"),
    "int": (r"[-+]?[0-9]+", "-+0123456789"),
    "float": (
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        "-+.0123456789",
    ),
}


def load_yaml(text: str, name: str, ignore_tags: bool = False) -> Any:
    """Read a YAML document as plain data: dictionaries with text as keys, lists, text, numbers, booleans and None.

    Args:
        text: the document.
        name: what it is, for errors.
        ignore_tags: take a group or a list with a tag for one without, and a scalar with a tag for None; by default
            tags are refused.

    Raises:
        UserError: it is not valid YAML, a key comes twice, or it is larger or deeper than the bounds above.
    """
    import yaml

    loader_class = _loader()
    try:
        return loader_class(text, ignore_tags).get_single_data()
    except (yaml.YAMLError, ValueError) as error:
        raise UserError(f"{name} is not valid YAML: {_explained(error)}") from error


def read_yaml(path: PathLike, ignore_tags: bool = False) -> Any:
    """Read a YAML file, see `load_yaml`.

    Raises:
        UserError: the file cannot be read, is larger than `MOST_BYTES`, or see `load_yaml`; names the file.
    """
    try:
        with open(path, "rb") as file:
            content = file.read(MOST_BYTES + 1)
    except (OSError, ValueError) as error:  # ValueError: a path with a null character
        raise UserError(f"cannot read {path!s}: {getattr(error, 'strerror', None) or error}") from error
    if len(content) > MOST_BYTES:
        raise UserError(f"{path!s} is not valid YAML: it is larger than {MOST_BYTES >> 20} MiB")
    try:
        return load_yaml(content.decode("utf-8"), str(path), ignore_tags)
    except UnicodeDecodeError as error:
        raise UserError(f"{path!s} is not valid YAML: {error}") from error


def dump_yaml(document: Any) -> str:
    """Write plain data as YAML that reads the same here and in readers of YAML 1.1.

    Lists of plain values take one line, groups and lists of groups several.
    """
    import yaml

    text: str = yaml.dump(document, Dumper=_dumper(), sort_keys=False, allow_unicode=True, width=120)
    return text


@functools.cache
def _loader() -> Any:
    import yaml

    class Loader(yaml.SafeLoader):
        """Composes nodes as PyYAML does, and refuses on the way what `load_yaml` promises to refuse."""

        def __init__(self, text: str, ignore_tags: bool) -> None:
            super().__init__(text)
            self._ignore_tags, self._depth = ignore_tags, 0
            self._sizes: dict[Any, int] = {}  # of the nodes that are complete: how many values they hold

        def compose_node(self, parent: Any, index: Any) -> Any:
            event = self.peek_event()
            is_scalar = isinstance(event, yaml.ScalarEvent)
            if getattr(event, "tag", None) not in (None, "!", *([f"{_TAG}str"] if is_scalar else [])):
                self._check(self._ignore_tags, f"tags such as {event.tag} are not read", event)
                event.tag = f"{_TAG}null" if is_scalar else None
            self._depth += 1
            self._check(self._depth <= DEEPEST, f"it has more than {DEEPEST} levels", event)
            node = super().compose_node(parent, index)
            self._depth -= 1
            if node not in self._sizes:
                self._check(not isinstance(event, yaml.AliasEvent), f"*{event.anchor} contains itself", event)
                self._sizes[node] = 1 + self._size_within(node)
                size = max(self._sizes[node], len(self._sizes))
                self._check(size <= MOST_VALUES, f"it holds more than {MOST_VALUES} values", event)
            return node

        def _size_within(self, node: Any) -> int:
            if isinstance(node, yaml.ScalarNode):
                return 0
            if isinstance(node, yaml.SequenceNode):
                return sum(self._sizes[entry] for entry in node.value)
            keys = set()
            for i, (key, value) in enumerate(node.value):
                self._check(isinstance(key, yaml.ScalarNode), "a group or a list cannot be a key", key)
                self._check(key.value not in keys, f"the key {key.value} comes twice", key)
                keys.add(key.value)
                if key.tag != f"{_TAG}merge":
                    node.value[i] = yaml.ScalarNode(f"{_TAG}str", key.value, key.start_mark), value
            return sum(1 + self._sizes[value] for _, value in node.value)

        def _check(self, is_right: bool, problem: str, place: Any) -> None:
            if not is_right:
                raise yaml.MarkedYAMLError(problem=problem, problem_mark=place.start_mark)

    Loader.yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in resolvers if tag in (f"{_TAG}null", f"{_TAG}merge")]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    _add_core_schema(Loader)
    Loader.add_constructor(f"{_TAG}int", lambda loader, node: int(loader.construct_scalar(node)))  # 010 is ten
    return Loader


@functools.cache
def _dumper() -> Any:
    import yaml

    class Dumper(yaml.SafeDumper):
        """Repeats what comes twice, instead of giving it an alias."""

        def ignore_aliases(self, data: Any) -> bool:
            return True

    def represent_list(dumper: Any, data: list[Any]) -> Any:
        on_one_line = not any(isinstance(entry, dict) for entry in data)
        return dumper.represent_sequence(f"{_TAG}seq", data, flow_style=on_one_line)

    def represent_text(dumper: Any, data: str) -> Any:
        style = '"' if re.search("[\x85\u2028\u2029]", data) else None  # line breaks that other styles would fold
        return dumper.represent_scalar(f"{_TAG}str", data, style=style)

    _add_core_schema(Dumper)  # beside YAML 1.1: text that either would take for something else is quoted
    Dumper.add_representer(list, represent_list)
    Dumper.add_representer(str, represent_text)
    return Dumper


def _add_core_schema(cls: Any) -> None:
    for kind, (pattern, first) in _CORE_SCHEMA.items():
        cls.add_implicit_resolver(f"{_TAG}{kind}", re.compile(rf"^(?:{pattern})$"), [*first])


def _explained(error: Exception) -> str:
    mark, context = getattr(error, "problem_mark", None), getattr(error, "context", None)
    if mark is None:
        return " ".join(str(error).split())
    problem = f"{context}: {error.problem}" if context else error.problem  # type: ignore[attr-defined]
    return f"{problem} (line {mark.line + 1}, column {mark.column + 1})"
