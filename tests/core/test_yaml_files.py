"""The reader and the writer of YAML: plain data in, plain data out, and a sentence for everything else."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from raptor.core.errors import UserError
from raptor.core.yaml_files import MOST_BYTES, dump_yaml, load_yaml, read_yaml


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 1e-3),
        ("[14e-6, -2E3, .5, 3.]", [14e-6, -2000.0, 0.5, 3.0]),
        ("[1, -2, +3, 010]", [1, -2, 3, 10]),
        ("[.inf, -.inf]", [math.inf, -math.inf]),
        ("[true, False, null, ~, ]", [True, False, None, None]),
        ("[on, No, 2024-01-01, 1:30, 0x10, 1_000]", ["on", "No", "2024-01-01", "1:30", "0x10", "1_000"]),
        ("!!str 3", "3"),
        ("{1: a, true: b, 1e-3: c, ~: d}", {"1": "a", "true": "b", "1e-3": "c", "~": "d"}),
        ("'3'", "3"),
        ("", None),
        ("[&a {x: 1, y: 2}, {<<: *a, y: 3}, *a]", [{"x": 1, "y": 2}, {"x": 1, "y": 3}, {"x": 1, "y": 2}]),
        ("[&b {x: 1}, &m {<<: *b, x: 2}, {<<: *m, y: 1}]", [{"x": 1}, {"x": 2}, {"x": 2, "y": 1}]),
    ],
)
def test_scalars_are_those_of_yaml_1_2_and_repetition_is_followed(text: str, value: Any) -> None:
    assert load_yaml(text, "it") == value


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("mass: 1\nmass: 2\n", "the key mass comes twice (line 2, column 1)"),
        ("a: {b: [{c: 1, c: 2}]}", "the key c comes twice"),
        ("? [a]\n: 1\n", "a group or a list cannot be a key"),
        ("seed: &t [*t]", "*t contains itself (line 1, column 11)"),
        ("&a {b: &b {c: *a}}", "*a contains itself"),
        ("a: &a\n  <<: *a\n", "*a contains itself"),
        ("!!python/object/apply:os.getcwd []", "tags such as tag:yaml.org,2002:python/object/apply:os.getcwd are not"),
        ("!!binary aGk=", "tags such as tag:yaml.org,2002:binary are not read"),
        ("!mine {a: 1}", "tags such as !mine are not read"),
        ("[" * 60 + "]" * 60, "it has more than 50 levels"),
        ("[" * 100_000, "it has more than 50 levels"),
        ("a: [1", "while parsing a flow sequence: expected ',' or ']'"),
        ("a: 1\n---\nb: 2", "expected a single document"),
        ("a: *b", "found undefined alias 'b'"),
        ("a: \x00", "special characters are not allowed"),
        ("9" * 5000, "Exceeds the limit"),
    ],
)
def test_what_is_not_plain_data_is_refused_in_a_sentence(text: str, problem: str) -> None:
    with pytest.raises(UserError) as refusal:
        load_yaml(text, "drone.yaml")
    assert str(refusal.value).startswith("drone.yaml is not valid YAML: ")
    assert problem in str(refusal.value)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("fold", ["[{}]", "{{<<: [{}]}}", "{{k: {{x: {}}}}}"])
def test_aliases_that_multiply_are_refused(fold: str) -> None:
    lines = ["l0: &l0 {a: 1, b: 2, c: 3}"]
    for level in range(1, 9):
        inner = ", ".join(f"*l{level - 1}" for _ in range(9))
        inner = inner if "x:" not in fold else "[" + inner + "]"
        lines.append(f"l{level}: &l{level} {fold.format(inner)}")
    with pytest.raises(UserError, match="it holds more than 100000 values"):
        load_yaml("\n".join(lines), "bomb.yaml")


def test_a_document_of_too_many_values_is_refused() -> None:
    with pytest.raises(UserError, match="it holds more than 100000 values"):
        load_yaml("[" + "1," * 100_001 + "]", "long.yaml")


def test_tags_can_be_ignored_for_files_of_programs_that_write_them() -> None:
    text = "{a: !!python/tuple [1, 2], b: !!python/name:torch.nn.ELU '', c: !!python/object:x.Y {d: 1}, e: !!str 3}"
    assert load_yaml(text, "agent.yaml", ignore_tags=True) == {"a": [1, 2], "b": None, "c": {"d": 1}, "e": "3"}


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    with pytest.raises(UserError, match=rf"^cannot read {path}: No such file or directory$"):
        read_yaml(path)
    with pytest.raises(UserError, match=rf"^cannot read {tmp_path}: Is a directory$"):
        read_yaml(tmp_path)
    with pytest.raises(UserError, match=r"^cannot read a\\x00b: "):
        read_yaml("a\0b")
    with pytest.raises(UserError, match="File name too long"):
        read_yaml("a" * 5000)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match=rf"^{path} is not valid YAML: 'utf-8' codec can't decode"):
        read_yaml(path)
    path.write_bytes(b"#" * (MOST_BYTES + 1))
    with pytest.raises(UserError, match=rf"^{path} is not valid YAML: it is larger than 16 MiB$"):
        read_yaml(path)
    path.write_text("a: é\n", encoding="utf-8")
    assert read_yaml(path) == {"a": "é"}


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)


@given(PLAIN)
def test_what_is_written_is_read_as_the_same_here(document: Any) -> None:
    assert load_yaml(dump_yaml(document), "it") == document


@pytest.mark.parametrize(
    "text", ["1e3", "1e-3", "010", "0x10", "on", "No", "2024-01-01", "1:30", "null", "~", "<<", "", "\x85", "a\u2028b"]
)
def test_text_that_some_reader_would_take_for_something_else_is_quoted(text: str) -> None:
    assert load_yaml(dump_yaml([text]), "it") == yaml.safe_load(dump_yaml([text])) == [text]


def test_lists_of_values_take_one_line_and_nothing_has_an_alias() -> None:
    shared = [1, 2]
    assert dump_yaml({"a": shared, "b": [{"c": shared}]}) == "a: [1, 2]\nb:\n- c: [1, 2]\n"


def test_importing_settings_and_the_reader_imports_neither_the_parser_nor_the_validator() -> None:
    code = "import sys, raptor.core.yaml_files, raptor.config; print({'yaml', 'pydantic'} & {*sys.modules})"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"
