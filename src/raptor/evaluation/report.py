"""Everything about a policy on one page that needs no other file."""

from __future__ import annotations

import base64
import datetime
import importlib.resources
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
from matplotlib.figure import Figure

from raptor.core.atomic import replacing
from raptor.environments.controllers import Policy
from raptor.evaluation import plots
from raptor.evaluation.evaluator import Progress
from raptor.evaluation.recordings import record_figure_eights, record_recovery
from raptor.evaluation.results import Evaluation
from raptor.evaluation.suites import FIGURE_EIGHT_INTERVALS
from raptor.evaluation.table import HEADINGS, better, cell, rows

COMPARED = {
    "evaluation/mean_return": "return",
    "evaluation/termination_rate": "terminated",
    "validation/return": "return",  # of runs of earlier versions, as are the next
    "validation/terminated": "terminated",
    "evaluation/share_terminated": "terminated",
}
"""Curves of quadrotors that training does not fly, and the metric of an evaluation that each goes with."""

CURVES = (*COMPARED, "training/loss")
"""Quantities of the learning curve that are drawn, if they are there; else all of them."""

PIXELS_PER_INCH = 78

EIGHTS = (
    "Four of the nine named quadrotors from above, on one figure at full speed, with its RMSE. The policy knows of the "
    "vehicle only what it sees of its motion."
)
RECOVERY = (
    "50 quadrotors that no training has seen, let go at rest and tilted by 90°. Recovered means within "
    f"{plots.RECOVERED_DISTANCE:g} m of the target and {plots.RECOVERED_TILT:g}° of level for the last half second."
)
BARS = "Nine quadrotors that exist. Whiskers are 95 % intervals over starts."

Curve = Mapping[str, Sequence[tuple[float, float]]]
"""Points (update, value) by quantity."""


class Picture(NamedTuple):
    """A figure of the report."""

    heading: str
    text: str
    source: str  # data URI
    width: int  # pixels, so that letters are of one size in all figures

    @classmethod
    def of(cls, heading: str, text: str, figure: Figure) -> Picture:
        """A figure with its heading and caption."""
        source = "data:image/png;base64," + base64.b64encode(plots.to_png(figure)).decode("ascii")
        return cls(heading, text, source, round(PIXELS_PER_INCH * figure.get_figwidth()))


def write_report(
    path: str | os.PathLike[str],
    *,
    title: str,
    settings: Mapping[str, Any],
    curve: Curve,
    evaluation: Evaluation,
    policies: Mapping[str, Policy],
    seed: int,
    progress: Progress | None = None,
    compile: bool | None = None,
) -> Path:
    """Write one self-contained HTML file: settings, learning curve, table, and figures of rollouts made for it.

    Args:
        path: the file; it is replaced at once or not at all.
        title: of the page.
        settings: of the training, nested as one likes; may be empty.
        curve: of the training; may be empty.
        evaluation: the figures; the first policy is the one that others are compared with.
        policies: those to record, by the names that they have in the evaluation.
        seed: of the recordings.
        progress: called with how far it is, in recordings.
        compile: False runs eagerly; by default as in the evaluation.

    Raises:
        UserError: the file cannot be written.
    """
    pictures = list(_pictures(curve, evaluation, policies, seed, progress, compile))
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    template = importlib.resources.files("raptor.evaluation") / "templates" / "report.html.j2"
    html = environment.from_string(template.read_text(encoding="utf-8")).render(
        title=title,
        written=datetime.datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z"),
        policies=evaluation.policies,
        suites=dict.fromkeys(suite for suites in evaluation.policies.values() for suite in suites),
        table={"headings": HEADINGS, "rows": rows, "cell": cell, "better": better},
        pictures=pictures,
        training=dict(_flat(settings)),
        measuring=dict(_flat(evaluation.settings)),
    )
    with replacing(path) as temporary:
        temporary.write_text(html, encoding="utf-8")
    return Path(path)


def _pictures(
    curve: Curve,
    evaluation: Evaluation,
    policies: Mapping[str, Policy],
    seed: int,
    progress: Progress | None,
    compile: bool | None,
) -> Iterator[Picture]:
    settings = evaluation.settings
    pad_to, device = settings.get("vehicles_at_once"), settings.get("device", "cpu")
    compile = bool(settings.get("compiled", True)) if compile is None else compile
    intervals = settings.get("figure_eight_intervals_s", FIGURE_EIGHT_INTERVALS)
    done = 0

    def report(what: str) -> None:
        nonlocal done
        if progress is not None:
            progress(f"pictures: {what}", done, 2 * len(policies))
        done += 1

    chosen = {name: curve[name] for name in CURVES if curve.get(name)} or {n: c for n, c in curve.items() if c}
    if chosen:
        unit = "epoch" if "data_collection/mean_return" in curve else "update"
        yield _learning_curve(chosen, evaluation, unit)
    if policies:
        eights, falls = {}, {}
        for name, policy in policies.items():
            report(f"{name}, figure eights")
            eights[name] = record_figure_eights(policy, intervals, seed, device, pad_to, compile)
        yield Picture.of("Figure eights", EIGHTS, plots.figure_eights(eights))
        for name, policy in policies.items():
            report(f"{name}, recovery")
            falls[name] = record_recovery(policy, seed=seed, device=device, pad_to=pad_to, compile=compile)
        yield Picture.of("Recovery from tilted starts", RECOVERY, plots.recovery(falls))
    if any({"platforms", "figure-eight"} & set(suites) for suites in evaluation.policies.values()):
        yield Picture.of("Platform by platform", BARS, plots.platform_bars(evaluation))
    report("done")


def _learning_curve(curve: Curve, evaluation: Evaluation, unit: str) -> Picture:
    """The curves, beside what the first policy reaches on unseen vehicles."""
    first, suites = next(iter(evaluation.policies.items()))
    unseen = suites.get("unseen", {})
    levels = {name: {first: unseen[metric].value} for name, metric in COMPARED.items() if metric in unseen}
    figure, text = plots.learning_curve(curve, levels, unit), []
    if any(name in COMPARED for name in curve):
        text.append("Return and termination rate are those of quadrotors that training does not fly.")
    if any(name in levels for name in curve):
        text.append("Dashed: the level of the policy to beat.")
    return Picture.of("Learning curve", " ".join(text), figure)


def _flat(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in settings.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield prefix + str(key), ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
