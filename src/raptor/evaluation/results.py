"""The outcome of an evaluation: estimates of metrics, a file and tables."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rich.table import Column, Table
from rich.text import Text

from raptor.core.atomic import PathLike, write_atomically
from raptor.core.errors import UserError, printable
from raptor.evaluation.statistics import OWN, Estimate, Estimates
from raptor.evaluation.suites import NOMINAL, REFERENCE

HEADINGS = {
    "paper": "paper: sampled, target hidden",
    "unseen": "unseen: sampled, target visible",
    "platforms": "platforms: nine named quadrotors",
    "figure-eight": "figure-eight: s per figure",
    "robustness": "robustness: unseen, impaired",
    "agility": "agility: s per figure, however fast",
    "survival": "survival: ms late, times the noise, times the thrust, m/s of wind",
}
GIVEN_HEADINGS = {
    "platforms": "platforms: {}, hovering",
    "figure-eight": "figure-eight: {}, s per figure",
    "robustness": "robustness: {}, impaired",
    "agility": "agility: {}, s per figure, however fast",
    "survival": "survival: {}, ms late, times the noise, times the thrust, m/s of wind",
    "sensitivity": "sensitivity: {}, one quantity off at a time",
}
MOST_NAMED = 4  # vehicles that a heading names
PART_METRICS = {
    "platforms": ("return", "position_rmse", "action_change"),
    "figure-eight": ("position_rmse", "action_change"),
    "robustness": ("return", "terminated", "action_change"),
    "agility": ("position_rmse", "terminated"),
    "survival": ("return", "terminated"),
    "reference": ("position_rmse", "action_change"),
}
SHOWN = {  # name, factor and digits of each metric
    "return": ("return", 1, 1),
    "terminated": ("terminated (%)", 100, 2),
    "length": ("length (steps)", 1, 1),
    "position_rmse": ("position RMSE (m)", 1, 3),
    "steady_offset": ("steady offset (m)", 1, 3),
    "action_change": ("action change per step", 1, 5),
    "worst_error": ("worst position error (m)", 1, 3),
    "yaw_rmse": ("yaw RMSE (°)", 180 / math.pi, 1),
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

    def only(self, names: Iterable[str]) -> Evaluation:
        """The same of some of the policies."""
        return Evaluation({name: self.policies[name] for name in names}, self.settings)

    def standing(self, name: str) -> str:
        """How often a policy is better than all others, or worse than one, beyond both intervals, in a sentence."""
        others, better_than_all, worse, num = [other for other in self.policies if other != name], 0, [], 0
        for suite in self.suites:
            for label, metric, (own, *figures) in rows(self.only([name, *others]).policies, suite):
                num += 1
                better_than_all += all(better(own, figure, metric) for figure in figures)
                if any(better(figure, own, metric) for figure in figures):
                    worse.append(f"{suite} {label}")
        where = f": {', '.join(worse)}" if worse else ""
        return (
            f"{name}: of {num} figures {better_than_all} are better than those of all others, {len(worse)} worse{where}"
        )

    @property
    def suites(self) -> list[str]:
        """All that any policy was evaluated on."""
        return list(dict.fromkeys(suite for suites in self.policies.values() for suite in suites))

    @property
    def vehicles(self) -> tuple[str, ...]:
        """Names of the vehicles that were given, if any were."""
        return tuple(vehicle["name"] for vehicle in self.settings.get("quadrotors", ()))

    @property
    def headings(self) -> dict[str, str]:
        """What each suite is."""
        followed = {
            REFERENCE: f"{REFERENCE}: {str(self.settings.get(REFERENCE)).partition('#')[0]}, from rest to its end"
        }
        if not self.vehicles:
            return HEADINGS | followed
        names = ", ".join(self.vehicles)
        named = names if len(self.vehicles) <= MOST_NAMED else f"{len(self.vehicles)} given quadrotors"
        return {suite: heading.format(named) for suite, heading in GIVEN_HEADINGS.items()} | followed

    @property
    def uncertain(self) -> dict[str, str]:
        """Quantities that the suite `sensitivity` varied, and by how much; empty where it was not flown."""
        varied = self.settings["uncertainty"].items() if "sensitivity" in self.suites else ()
        ranges = {quantity: sorted({100 * min(values), 100 * max(values)}) for quantity, values in varied}
        return {name: f"{'..'.join(f'{x:.3g}' for x in ends)} %" for name, ends in ranges.items() if ends[-1]}

    def sensitivity_table(self) -> Table:
        """A rich table of return, RMSE and lost episodes, with a row for each end of each quantity that is off."""
        shown = {"return": "return", "position_rmse": "RMSE (m)", "terminated": "lost (%)"}
        columns = [(name, metric) for name in self.policies for metric in shown]
        names = [f"{name if metric == 'return' else ''}\n{shown[metric]}" for name, metric in columns]
        caption = "red: worse than as given, beyond both 95 % intervals"
        table = _table("\none quantity off", names, caption)
        conditions = {NOMINAL: "as given"}
        for quantity, amount in self.uncertain.items():
            words = quantity.replace("_", " ")
            conditions |= {f"{quantity}-low": f"{words} -{amount}", f"{quantity}-high": f"{words} +{amount}"}
        for condition, label in conditions.items():
            texts = []
            for name, metric in columns:
                given, varied = (self.policies[name]["sensitivity"][f"{c}/{metric}"] for c in (NOMINAL, condition))
                _, scale, digits = _shown(metric)
                text = "–" if math.isnan(varied.value) else f"{scale * varied.value:.{digits}f}"
                texts.append(Text(text, style="red" if better(given, varied, metric) else ""))
            table.add_row(label, *texts)
        return _unshrinkable(table, conditions.values())

    def table(self, details: bool = True) -> Table:
        """A rich table, a column for each policy; with details, also rows for each platform and each condition."""
        caption = f"value [{100 * self.settings.get('confidence', 0.95):g} % interval over vehicles]"
        if len(self.policies) > 1:
            caption += f"; green: better than {next(iter(self.policies))} beyond both intervals"
        table, labels = _table("suite and metric", self.policies, caption), []
        for suite in self.suites:
            table.add_section()
            table.add_row(Text(self.headings.get(suite, suite), style="bold"))
            for label, metric, estimates in rows(self.policies, suite, details):
                labels.append(f"  {label}")
                styles = ["green" if better(estimate, estimates[0], metric) else "" for estimate in estimates]
                texts = [Text(cell(e, metric), style=style) for e, style in zip(estimates, styles, strict=True)]
                table.add_row(labels[-1], *texts)
        return _unshrinkable(table, labels)


def _table(first: str, others: Iterable[str], caption: str) -> Table:
    columns = [Column(name, justify="right", no_wrap=True) for name in others]
    how: dict[str, Any] = {"caption_justify": "left", "header_style": "bold", "pad_edge": False}
    return Table(first, *columns, caption=caption, **how)


def _unshrinkable(table: Table, labels: Iterable[str]) -> Table:
    """The same with room for every label and figure, however narrow the console is."""
    first, *others = table.columns
    first.min_width = max(map(len, labels), default=0)
    for column in others:
        lines = [line for text in (column.header, *column.cells) for line in str(text).splitlines()]
        column.min_width = max(map(len, lines))
    return table


def _shown(metric: str) -> tuple[str, float, int]:
    """What a metric is called in a table, and factor and digits of its numbers."""
    own = f"{metric.removeprefix(OWN).replace('_', ' ')} (mean)", 1, 3
    return SHOWN.get(metric, own)


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
            yield Row(" ".join([*part, _shown(metric)[0]]), metric, tuple(column.get(key) for column in columns))


def better(estimate: Estimate | None, than: Estimate | None, metric: str) -> bool:
    """Whether the interval of one estimate lies on the good side of the other's; terms of one's own have no side."""
    if estimate is None or than is None or metric.startswith(OWN) or any(map(math.isnan, (*estimate, *than))):
        return False
    return estimate.low > than.high if metric in HIGHER_IS_BETTER else estimate.high < than.low


def cell(estimate: Estimate | None, metric: str) -> str:
    """Value and interval as text; a dash where there is no number."""
    if estimate is None or math.isnan(estimate.value):
        return "–"
    _, scale, digits = _shown(metric)
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
