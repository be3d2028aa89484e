"""The card of a policy: what it is, how it was trained, by which command, how good it is, and its licence."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from typing import Any

from raptor.core.errors import printable
from raptor.core.plain import to_plain

CARD_FIELDS = ("what", "training", "command", "results", "licence")
"""Fields on the card of every policy with a name; there may be further ones."""

PUBLISHED_CARD = {
    "name": "published",
    "what": "the foundation policy published with RAPTOR: dense 22-16 ReLU, GRU 16, dense 16-4, 2084 parameters",
    "training": "1000 teachers, one for each sampled quadrotor, distilled into one recurrent student in 1000 epochs; "
    "this is the student of epoch 959, the best by its training return",
    "command": "none of this package: it was trained with rl-tools and is distributed as foundation-policy on PyPI",
    "results": "mean return 621.6 over its 1000 training quadrotors, by its own log",
    "licence": "MIT, Jonas Eschmann, https://github.com/rl-tools/foundation-policy",
}


def format_card(card: Mapping[str, Any], width: int = 100) -> str:
    """Text of a card: one field after the other, long ones wrapped, groups indented, control bytes escaped.

    Raises:
        UserError: the card is nested in itself, or holds other than text and numbers.
    """
    return printable("\n".join(_lines(to_plain(card, "card"), width, ""))) if card else "this policy carries no card"


def _lines(card: Mapping[str, Any], width: int, indent: str) -> list[str]:
    known = [field for field in ("name", *CARD_FIELDS) if field in card]
    fields = known + [field for field in card if field not in known]
    column = max(map(len, fields)) + 2
    lines: list[str] = []
    for field in fields:
        value, head = card[field], indent + field.ljust(column)
        if isinstance(value, Mapping) and value:
            lines += [head.rstrip(), *_lines(value, width, indent + "  ")]
            continue
        text = str(value) if isinstance(value, (bool, int, float, str)) else ", ".join(map(str, value or ()))
        wrapper = textwrap.TextWrapper(
            max(width, len(head) + 20), initial_indent=head, subsequent_indent=" " * len(head)
        )
        wrapper.break_long_words = wrapper.break_on_hyphens = False
        lines += wrapper.wrap(text) or [head.rstrip()]
    return lines
