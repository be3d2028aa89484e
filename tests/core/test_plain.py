"""Nested data as plain data."""

from __future__ import annotations

import dataclasses
import json
import math
from typing import Any

import numpy as np
import pytest
import torch

from raptor.core.errors import UserError
from raptor.core.plain import to_plain


@dataclasses.dataclass
class Point:
    x: float
    labels: tuple[str, ...] = ()


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        ({"a": (1, 2.5, True, None, "b")}, {"a": [1, 2.5, True, None, "b"]}),
        ({1: {"b": ()}}, {"1": {"b": []}}),
        (Point(1.0, ("a",)), {"x": 1.0, "labels": ["a"]}),
        ([Point(1.0)], [{"x": 1.0, "labels": []}]),
        (np.float32(0.5), 0.5),
        (np.arange(4).reshape(2, 2), [[0, 1], [2, 3]]),
        (torch.ones(2, requires_grad=True), [1.0, 1.0]),
        (torch.tensor(3), 3),
        (np.array([{"a": (1,)}], dtype=object), [{"a": [1]}]),
        (frozenset({1}), [1]),
    ],
)
def test_nested_data_becomes_dictionaries_lists_and_values(value: Any, plain: Any) -> None:
    assert to_plain(value) == plain
    assert json.loads(json.dumps(to_plain(value))) == plain


def test_the_copy_shares_nothing_with_the_original() -> None:
    original: dict[str, Any] = {"a": [1], "b": {"c": 2}}
    copied = to_plain(original)
    copied["a"].append(2)
    copied["b"]["c"] = 3
    assert original == {"a": [1], "b": {"c": 2}}


def test_numbers_that_are_not_finite_can_become_none() -> None:
    assert to_plain([math.nan, np.array([math.inf])], allow_nan=False) == [None, [None]]
    assert math.isnan(to_plain(math.nan))


def test_what_is_not_plain_is_refused_by_its_place_or_replaced() -> None:
    value = {"results": [1, {"best": object}]}
    with pytest.raises(UserError, match=r"^card\.results\[1\]\.best must be text, a number, or lists and groups"):
        to_plain(value, "card")
    assert to_plain(value, other=lambda kind: kind.__name__) == {"results": [1, {"best": "object"}]}
    assert to_plain({"a": Point}, other=lambda kind: {"called": (kind.__name__,)}) == {"a": {"called": ["Point"]}}
    with pytest.raises(UserError, match=r"^card\.name is not valid Unicode text: 'a\\ud800'$"):
        to_plain({"name": "a\ud800"}, "card")
    with pytest.raises(UserError, match="is not valid Unicode text"):
        to_plain({"a\ud800": 1}, "card")


def test_what_has_no_end_is_refused_or_cut() -> None:
    circle: list[Any] = []
    circle.append({"again": circle})
    with pytest.raises(UserError, match=r"^card contains itself$"):
        to_plain(circle, "card")
    assert isinstance(to_plain(circle, other=str)[0]["again"], str)
    deep: list[Any] = []
    for _ in range(200):
        deep = [deep]
    with pytest.raises(UserError, match=r"^card has more than 100 levels$"):
        to_plain(deep, "card")
    wide: list[Any] = [1] * 10
    for _ in range(8):
        wide = [wide] * 10
    with pytest.raises(UserError, match=r"^card holds more than 1000000 values$"):
        to_plain(wide, "card")


def test_the_same_value_twice_is_no_circle() -> None:
    shared = [1]
    assert to_plain([shared, shared]) == [[1], [1]]
