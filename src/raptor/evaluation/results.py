"""The outcome of an evaluation, as a file and as a table for people."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rich.table import Column, Table
from rich.text import Text

from raptor.core.atomic import PathLike, write_atomically
from raptor.core.errors import UserError, printable
from raptor.evaluation.statistics import Estimate, Estimates

HEADINGS = {
    "paper": "paper: sampled, target hidden",
    "unseen": "unseen: sampled, target visible",
    "platforms": "platforms: nine named quadrotors",
    "figure-eight": "figure-eight: s per figure",
    "robustness": "robustness: unseen, impaired",
}
PART_METRICS = {"platforms": ("return",), "figure-eight": ("position_rmse",), "robustness": ("return", "terminated")}
SHOWN = {  # name, factor and digits of each metric
    "return": ("return", 1, 1),
    "terminated": ("terminated (%)", 100, 2),
    "length": ("length (steps)", 1, 1),
    "position_rmse": ("position RMSE (m)", 1, 3),
    "steady_offset": ("steady offset (m)", 1, 3),
}
HIGHER_IS_BETTER = frozenset({"return", "length"})  # of the other metrics, less is better


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """Estimates by policy, suite and metric, and the settings that they were made with.

    A metric is one of `raptor.evaluation.METRICS`, for the suite as a whole, or that name after what it is of: a
    condition, a platform, or both: `noise/return`, `x500_real/return`, `10s/x500_real/position_rmse`.
    """

    policies: Estimates
    settings: Mapping[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, lists and dicts; None where there is no number, as with the RMSE where no vehicle survived."""
        return {"policies": _each(self.policies, Estimate.to_dict), "settings": dict(self.settings)}

    def save(self, path: PathLike) -> Path:
        """Write `to_dict` as JSON, see `write_atomically`."""
        return write_atomically(path, json.dumps(self.to_dict(), indent=2, allow_nan=False) + "\n")

    @classmethod
    def load(cls, path: PathLike) -> Evaluation:
        """Read what `save` wrote; `UserError` where the file cannot be read, or holds something else."""
        try:
            document = json.loads(Path(path).read_text(encoding="utf-8"))
            return cls(_each(document["policies"], Estimate.from_dict), dict(document["settings"]))
        except OSError as error:
            raise UserError(f"cannot read the evaluation {path}: {error.strerror or error}") from error
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise UserError(f"{path} holds no evaluation: make one with raptor evaluate --json") from error

    @property
    def suites(self) -> list[str]:
        """All that any policy was evaluated on."""
        return list(dict.fromkeys(suite for suites in self.policies.values() for suite in suites))

    def table(self, details: bool = True) -> Table:
        """A rich table, a column for each policy; with details, also rows for each platform and each condition."""
        caption = f"value [{100 * self.settings.get('confidence', 0.95):g} % interval over vehicles]"
        if len(self.policies) > 1:
            caption += f"; green: better than {next(iter(self.policies))} beyond both intervals"
        columns = [Column(name, justify="right", no_wrap=True) for name in self.policies]
        how: dict[str, Any] = {"caption_justify": "left", "header_style": "bold", "pad_edge": False}
        table = Table("suite and metric", *columns, caption=caption, **how)
        for suite in self.suites:
            table.add_section()
            table.add_row(Text(HEADINGS.get(suite, suite), style="bold"))
            for label, metric, estimates in rows(self.policies, suite, details):
                styles = ["green" if better(estimate, estimates[0], metric) else "" for estimate in estimates]
                texts = [Text(cell(e, metric), style=style) for e, style in zip(estimates, styles, strict=True)]
                table.add_row(f"  {label}", *texts)
        return table


class Row(NamedTuple):
    """One figure of a suite, for each policy in turn; None where a policy was not evaluated on it."""

    label: str
    metric: str
    estimates: tuple[Estimate | None, ...]


def rows(policies: Estimates, suite: str, details: bool = True) -> Iterator[Row]:
    """Metrics of a suite as a whole, and some of each part; without details only of the speeds of figure eights."""
    columns = [suites.get(suite, {}) for suites in policies.values()]
    for key in dict.fromkeys(key for column in columns for key in column):
        *part, metric = key.split("/")
        shown = details or (suite, len(part)) == ("figure-eight", 1)
        if not part or (shown and metric in PART_METRICS.get(suite, ())):
            yield Row(" ".join([*part, SHOWN[metric][0]]), metric, tuple(column.get(key) for column in columns))


def better(estimate: Estimate | None, than: Estimate | None, metric: str) -> bool:
    """Whether the interval of one estimate lies wholly on the good side of the other's."""
    if estimate is None or than is None or any(map(math.isnan, (*estimate, *than))):
        return False
    return estimate.low > than.high if metric in HIGHER_IS_BETTER else estimate.high < than.low


def cell(estimate: Estimate | None, metric: str) -> str:
    """Value and interval as text; a dash where there is no number."""
    if estimate is None or math.isnan(estimate.value):
        return "–"
    _, scale, digits = SHOWN[metric]
    value, low, high = (f"{scale * number:.{digits}f}" for number in estimate)
    return f"{value} [{low}, {high}]"


def column_names(policies: Sequence[str], stages: Sequence[str] = ()) -> dict[str, str]:
    """Short names that distinguish policies, by what names them: a stage, or else a file, folder or packaged policy."""
    short = {policy: policy if policy in stages else Path(policy).name or policy for policy in policies}
    alone = {policy for policy in short if policy in stages or list(short.values()).count(short[policy]) == 1}
    return {policy: printable(short[policy] if policy in alone else policy) for policy in short}


def _each(policies: Mapping[str, Any], convert: Callable[[Any], Any]) -> dict[str, Any]:
    return {
        name: {suite: {metric: convert(each) for metric, each in metrics.items()} for suite, metrics in suites.items()}
        for name, suites in policies.items()
    }
