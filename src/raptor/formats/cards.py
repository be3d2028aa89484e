"""The card of a policy: what it is, how it was trained, by which command, how good it is, and its licence."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import Tensor

from raptor.core.errors import UserError

CARD_FIELDS = ("what", "training", "command", "results", "licence")
"""What the card of every policy that comes with a name tells; any further field may stand beside them."""

PUBLISHED_CARD = {
    "name": "published",
    "what": "the foundation policy published with RAPTOR: dense 22-16 ReLU, GRU 16, dense 16-4, 2084 parameters",
    "training": "1000 teachers, one for each sampled quadrotor, distilled into one recurrent student in 1000 epochs; "
    "this is the student of epoch 959, the best by its training return",
    "command": "none of this package: it was trained with rl-tools and is distributed as foundation-policy on PyPI",
    "results": "mean return 621.6 over its 1000 training quadrotors, by its own log",
    "licence": "MIT, Jonas Eschmann, https://github.com/rl-tools/foundation-policy",
}


def plain_card(card: Mapping[str, Any]) -> dict[str, Any]:
    """Copy a card in the types that every file format keeps: dict, list, str, bool, int, float, None.

    Raises:
        UserError: names the field that holds anything else.
    """
    plain: dict[str, Any] = _plain(card, "card")
    return plain


def _plain(value: Any, path: str) -> Any:
    if isinstance(value, (np.generic, np.ndarray, Tensor)):
        return value.tolist()
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, Mapping):
        return {str(key): _plain(inner, f"{path}.{key}") for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(inner, f"{path}[{i}]") for i, inner in enumerate(value)]
    raise UserError(f"{path} must be text, a number, or lists and groups of these, got {type(value).__name__}: {value}")


def format_card(card: Mapping[str, Any], width: int = 100) -> str:
    """Text of a card for people: one field after the other, long ones wrapped, groups indented."""
    if not card:
        return "this policy carries no card"
    return "\n".join(_lines(card, width, ""))


def _lines(card: Mapping[str, Any], width: int, indent: str) -> list[str]:
    known = [field for field in ("name", *CARD_FIELDS) if field in card]
    fields = known + [field for field in card if field not in known]
    column = max(len(field) for field in fields) + 2
    lines: list[str] = []
    for field in fields:
        value = card[field]
        if isinstance(value, Mapping) and value:
            lines += [f"{indent}{field}", *_lines(value, width, indent + "  ")]
            continue
        text = str(value) if isinstance(value, (bool, int, float, str)) else ", ".join(map(str, value or ()))
        head = indent + field.ljust(column)
        lines += textwrap.wrap(
            text,
            max(width, len(head) + 20),
            initial_indent=head,
            subsequent_indent=" " * len(head),
            break_long_words=False,
            break_on_hyphens=False,
        ) or [head.rstrip()]
    return lines
