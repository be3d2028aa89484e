"""An evaluation as a table for people."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from rich.table import Table
from rich.text import Text

from raptor.evaluation.metrics import HIGHER_IS_BETTER
from raptor.evaluation.statistics import Estimate

Figures = Mapping[str, Mapping[str, Mapping[str, Estimate]]]
"""By policy, suite and metric."""

HEADINGS = {
    "paper": "paper: sampled, target hidden",
    "unseen": "unseen: sampled, target visible",
    "platforms": "platforms: nine named quadrotors",
    "figure-eight": "figure-eight: s per figure",
    "robustness": "robustness: unseen, impaired",
}
TELLING = {"platforms": ("return",), "figure-eight": ("position_rmse",), "robustness": ("return", "terminated")}
"""Metrics that the parts of a suite are reported by."""

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


def rows(figures: Figures, suite: str, details: bool = True) -> Iterator[Row]:
    """What of a suite is worth a row: its metrics as a whole, and the telling ones of each part.

    Args:
        figures: of an `Evaluation`, by policy.
        suite: one that at least one policy was put to.
        details: False leaves the parts out, but for the speeds of the figure eights.
    """
    columns = [results.get(suite, {}) for results in figures.values()]
    for key in dict.fromkeys(key for column in columns for key in column):
        *part, metric = key.split("/")
        if not part or (metric in TELLING.get(suite, ()) and (details or (suite, len(part)) == ("figure-eight", 1))):
            label = " ".join([*part, NAMES[metric]])
            yield Row(label, metric, tuple(column.get(key) for column in columns))


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


def rich_table(figures: Figures, settings: Mapping[str, Any], details: bool = True) -> Table:
    """A column for each policy, a group of rows for each suite; what beats the first policy is green."""
    names = list(figures)
    caption = f"value [{100 * settings.get('confidence', 0.95):g} % interval over vehicles]"
    if len(names) > 1:
        caption += f"; green: better than {names[0]} beyond both intervals"
    table = Table(caption=caption, caption_justify="left", header_style="bold", pad_edge=False)
    table.add_column("suite and metric")
    for name in names:
        table.add_column(name, justify="right", no_wrap=True)
    for suite in dict.fromkeys(suite for results in figures.values() for suite in results):
        table.add_section()
        table.add_row(Text(HEADINGS.get(suite, suite), style="bold"))
        for row in rows(figures, suite, details):
            texts = [
                Text(
                    cell(estimate, row.metric), style="green" if better(estimate, row.estimates[0], row.metric) else ""
                )
                for estimate in row.estimates
            ]
            table.add_row(f"  {row.label}", *texts)
    return table
