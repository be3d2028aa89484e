"""Plain data: what is converted, what is refused, and how text from a file is shown."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch

from raptor.core.errors import UserError
from raptor.core.yaml_files import to_plain


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


CYCLE: dict[str, Any] = {}
CYCLE["again"] = {"and": [CYCLE]}
SHARED = [1] * 10
for _ in range(8):
    SHARED = [SHARED] * 10  # small in memory, ten billion entries to walk through


def test_numbers_of_numpy_and_torch_tuples_and_keys_become_plain() -> None:
    given = {"a": np.float32(0.5), 3: (torch.tensor([1, 2]), None), "c": {"d": np.arange(2)}, "e": True}
    assert to_plain(given, "card") == {"a": 0.5, "3": [[1, 2], None], "c": {"d": [0, 1]}, "e": True}
    assert to_plain({"a": [float("nan"), 1.0]}, "record", finite=True) == {"a": [None, 1.0]}


@dataclasses.dataclass
class Point:
    x: float
    labels: tuple[str, ...] = ()


def test_dataclasses_become_groups_and_sets_lists() -> None:
    assert to_plain([Point(1.0, ("a",)), frozenset({1})]) == [{"x": 1.0, "labels": ["a"]}, [1]]
    assert to_plain(np.array([{"a": (1,)}], dtype=object)) == [{"a": [1]}]


def test_the_copy_shares_nothing_with_the_original() -> None:
    original: dict[str, Any] = {"a": [1], "b": {"c": 2}}
    copied = to_plain(original)
    copied["a"].append(2)
    copied["b"]["c"] = 3
    assert original == {"a": [1], "b": {"c": 2}}


def test_something_else_can_stand_for_what_is_not_plain() -> None:
    value = {"results": [1, {"best": object}]}
    assert to_plain(value, other=lambda kind: kind.__name__) == {"results": [1, {"best": "object"}]}
    assert to_plain({"a": Point}, other=lambda kind: {"called": (kind.__name__,)}) == {"a": {"called": ["Point"]}}
    assert "again" in to_plain(CYCLE, other=str)
    assert isinstance(to_plain(SHARED, other=str), list)


def test_control_bytes_of_a_file_become_escapes_and_line_breaks_stay() -> None:
    given = {"a\x1b": "red \x1b[31m\x07 \u202etxt\nnext\tline é 飞"}
    assert to_plain(given, "card", from_file="p.pt") == {r"a\x1b": "red \\x1b[31m\\x07 \\u202etxt\nnext\tline é 飞"}


@pytest.mark.parametrize(
    ("value", "match"),
    [
        (CYCLE, "is nested in itself or too deeply"),
        (nested(40), "is nested in itself or too deeply"),
        (SHARED, "has over 100000 entries"),
        ({"a": object()}, r"card\.a must be text, a number, .* got object"),
        ({"a": 10**40}, r"card\.a must be .* got int"),
        ({"a": "\ud800"}, r"card\.a holds text that is no Unicode: '\\ud800'"),
    ],
    ids=["cycle", "deep", "shared", "object", "huge", "surrogate"],
)
def test_what_no_format_keeps_is_refused_in_one_sentence(value: Any, match: str) -> None:
    for from_file in (None, "policy.pt"):
        with pytest.raises(UserError, match=match) as error:
            to_plain(value, "card", from_file=from_file)
        assert len(str(error.value)) < 300
    assert str(error.value).endswith("(policy.pt)")


@pytest.mark.parametrize("value", [torch.ones(2), np.float32(1), {3: 1}, {"a": {None: 1}}], ids=str)
def test_what_needs_a_conversion_is_refused_in_a_file(value: Any) -> None:
    to_plain(value, "card")
    with pytest.raises(UserError, match=r"card.* must .* got .*\(policy\.pt\)"):
        to_plain(value, "card", from_file="policy.pt")


def test_messages_show_control_bytes_as_escapes() -> None:
    assert str(UserError("the weight a\x1b[31m\x9b")) == r"the weight a\x1b[31m\x9b"
