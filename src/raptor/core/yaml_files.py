"""Plain data, which every file format keeps: dict, list, str, bool, int, float and None; YAML without its traps."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
import re
import reprlib
from collections.abc import Callable, Mapping
from typing import Any

from raptor.core.atomic import PathLike
from raptor.core.errors import UserError, printable

# Of a document: values, each counted as often as aliases repeat it; groups and lists within each other; bytes.
MOST_VALUES, DEEPEST, MOST_BYTES = 100_000, 50, 2**24
MOST_ENTRIES, DEEPEST_GROUP = 100_000, 32  # of a value that is made plain: in all, and groups in groups
_TAG = "tag:yaml.org,2002:"
_CORE_SCHEMA = {  # of YAML 1.2: 1e-3 is a number; `on`, dates and sexagesimals are text
    "bool": (r"true|True|TRUE|false|False|FALSE", "tTfF"),
    "int": (r"[-+]?[0-9]+", "-+0123456789"),
    "float": (
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        "-+.0123456789",
    ),
}


def to_plain(
    value: Any,
    path: str = "it",  # its name in error messages
    from_file: PathLike | None = None,
    finite: bool = False,  # turn numbers that are not finite into None, as JSON wants it
    other: Callable[[Any], Any] | None = None,
) -> Any:
    """Copy a value in plain types; dataclasses become groups, and arrays, tensors, tuples and sets lists.

    Anything else, or too much, is a `UserError`, unless `other` gives what stands for it; too much is text then. In
    what was read `from_file`, what needs a conversion is refused, and control bytes are escaped.
    """
    count, strict, where = itertools.count(), from_file is not None, f" ({from_file})" if from_file is not None else ""

    def plain(value: Any, path: str, depth: int) -> Any:
        if depth > DEEPEST_GROUP or next(count) > MOST_ENTRIES:
            if other is not None:
                return reprlib.repr(value)
            raise UserError(f"{path[:60]} is nested in itself or too deeply, or has over {MOST_ENTRIES} entries{where}")
        if hasattr(value, "tolist") and not strict:  # arrays and tensors, whose libraries need not be loaded here
            value = value.tolist()
        if isinstance(value, str):
            if any("\ud800" <= letter <= "\udfff" for letter in value):
                raise UserError(f"{path} holds text that is no Unicode: {value[:60]!r}{where}")
            return printable(value) if strict else value
        if isinstance(value, float):
            return value if math.isfinite(value) or not finite else None
        if value is None or (isinstance(value, int) and value.bit_length() <= 64):
            return value
        if dataclasses.is_dataclass(value) and not isinstance(value, type) and not strict:
            names = [field.name for field in dataclasses.fields(value)]
            value = {name: getattr(value, name) for name in names if hasattr(value, name)}
        if isinstance(value, Mapping):
            for key in value:
                if strict and not isinstance(key, str):
                    raise UserError(f"{path} must have keys of text, got {key!r}{where}")
            return {plain(str(key), path, depth): plain(x, f"{path}.{key}", depth + 1) for key, x in value.items()}
        if isinstance(value, (list, tuple)) or (isinstance(value, (set, frozenset)) and not strict):
            return [plain(inner, f"{path}[{i}]", depth + 1) for i, inner in enumerate(value)]
        if other is not None:
            return plain(other(value), path, depth + 1)
        got = f"{type(value).__name__}: {value}"[:80]
        raise UserError(f"{path} must be text, a number, or lists and groups of these, got {got}{where}")

    return plain(value, path, 0)


def load_yaml(text: str, name: str, ignore_tags: bool = False) -> Any:
    """Read a YAML document, which errors call `name`, as plain data with text as keys.

    Tags are refused, or ignored (a scalar with one is None), keys that come twice and what exceeds the bounds refused.
    """
    import yaml

    try:
        return _loader()(text, ignore_tags).get_single_data()
    except (yaml.YAMLError, ValueError) as error:
        mark, context = getattr(error, "problem_mark", None), getattr(error, "context", None)
        what = " ".join(str(error).split())
        if mark is not None:
            problem = error.problem  # type: ignore[union-attr]
            what = f"{context + ': ' if context else ''}{problem} (line {mark.line + 1}, column {mark.column + 1})"
        raise UserError(f"{name} is not valid YAML: {what}") from error


def read_yaml(path: PathLike, ignore_tags: bool = False) -> Any:
    """Read a YAML file of at most `MOST_BYTES` as `load_yaml` does."""
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
    """Write plain data as YAML that reads the same in readers of YAML 1.1; lists of plain values take one line."""
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
    Loader.add_constructor(f"{_TAG}int", lambda loader, node: int(loader.construct_scalar(node)))  # 010 is ten
    return _with_core_schema(Loader)


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

    Dumper.add_representer(list, represent_list)
    Dumper.add_representer(str, represent_text)
    return _with_core_schema(Dumper)  # beside YAML 1.1: text that either would take for something else is quoted


def _with_core_schema(cls: Any) -> Any:
    for kind, (pattern, first) in _CORE_SCHEMA.items():
        cls.add_implicit_resolver(f"{_TAG}{kind}", re.compile(rf"^(?:{pattern})$"), [*first])
    return cls
