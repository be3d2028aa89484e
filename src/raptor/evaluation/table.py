"""An evaluation as a table for people."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from rich.table import Table
from rich.text import Text

from raptor.evaluation.metrics import HIGHER_IS_BETTER
from raptor.evaluation.statistics import Estimate, Estimates

HEADINGS = {
    "paper": "paper: sampled, target hidden",
    "unseen": "unseen: sampled, target visible",
    "platforms": "platforms: nine named quadrotors",
    "figure-eight": "figure-eight: s per figure",
    "robustness": "robustness: unseen, impaired",
}
PART_METRICS = {"platforms": ("return",), "figure-eight": ("position_rmse",), "robustness": ("return", "terminated")}
"""Metrics that are shown of the parts of a suite."""

NAMES = {
    "return": "return",
    "terminated": "terminated (%)",
    "length": "length (steps)",
    "position_rmse": "position RMSE (m)",
    "steady_offset": "steady offset (m)",
}


class Row(NamedTuple):
    """One figure of a suite, for each policy in turn; None where a policy was not evaluated on it."""

    label: str
    metric: str
    estimates: tuple[Estimate | None, ...]


def rows(policies: Estimates, suite: str, details: bool = True) -> Iterator[Row]:
    """Rows of a suite: its metrics as a whole, and some of each part.

    Args:
        policies: the figures.
        suite: one that at least one policy was evaluated on.
        details: False leaves the parts out, but for the speeds of the figure eights.
    """
    columns = [suites.get(suite, {}) for suites in policies.values()]
    for key in dict.fromkeys(key for column in columns for key in column):
        *part, metric = key.split("/")
        shown = details or (suite, len(part)) == ("figure-eight", 1)
        if not part or (shown and metric in PART_METRICS.get(suite, ())):
            yield Row(" ".join([*part, NAMES[metric]]), metric, tuple(column.get(key) for column in columns))


def better(estimate: Estimate | None, than: Estimate | None, metric: str) -> bool:
    """Whether the interval of one estimate lies wholly on the good side of the other's."""
    if estimate is None or than is None or any(map(math.isnan, (*estimate, *than))):
        return False
    return estimate.low > than.high if metric in HIGHER_IS_BETTER else estimate.high < than.low


def cell(estimate: Estimate | None, metric: str) -> str:
    """Value and interval as text; a dash where there is no number."""
    if estimate is None or math.isnan(estimate.value):
        return "–"
    scale, digits = {"terminated": (100, 2), "position_rmse": (1, 3), "steady_offset": (1, 3)}.get(metric, (1, 1))
    value, low, high = (f"{scale * number:.{digits}f}" for number in estimate)
    return f"{value} [{low}, {high}]"


def rich_table(policies: Estimates, settings: Mapping[str, Any], details: bool = True) -> Table:
    """A column for each policy, a group of rows for each suite; what beats the first policy is green."""
    names = list(policies)
    caption = f"value [{100 * settings.get('confidence', 0.95):g} % interval over vehicles]"
    if len(names) > 1:
        caption += f"; green: better than {names[0]} beyond both intervals"
    table = Table(caption=caption, caption_justify="left", header_style="bold", pad_edge=False)
    table.add_column("suite and metric")
    for name in names:
        table.add_column(name, justify="right", no_wrap=True)
    for suite in dict.fromkeys(suite for suites in policies.values() for suite in suites):
        table.add_section()
        table.add_row(Text(HEADINGS.get(suite, suite), style="bold"))
        for label, metric, estimates in rows(policies, suite, details):
            styles = ["green" if better(estimate, estimates[0], metric) else "" for estimate in estimates]
            texts = [Text(cell(e, metric), style=style) for e, style in zip(estimates, styles, strict=True)]
            table.add_row(f"  {label}", *texts)
    return table
