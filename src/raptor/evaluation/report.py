"""Everything about a policy on one page that needs nothing but itself."""

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
    "validation/return": "return",
    "validation/terminated": "terminated",
    "evaluation/mean_return": "return",
    "evaluation/share_terminated": "terminated",
}
"""What training tells of quadrotors that it does not fly, and the metric of an evaluation that it goes with."""

CURVES = (*COMPARED, "training/loss")
"""Quantities of the learning curve that are drawn, if they are there; else all of them."""

PIXELS_PER_INCH = 78


class Picture(NamedTuple):
    """A figure of the report."""

    heading: str
    text: str
    source: str  # data URI
    width: int  # pixels, so that letters are of one size in all figures


def write_report(
    path: str | os.PathLike[str],
    *,
    title: str,
    settings: Mapping[str, Any],
    curve: Mapping[str, Sequence[tuple[float, float]]],
    evaluation: Evaluation,
    policies: Mapping[str, Policy],
    seed: int,
    progress: Progress | None = None,
    compile: bool = True,
) -> Path:
    """Write one self-contained HTML file: settings, learning curve, table, and pictures of flights flown for it.

    Args:
        path: the file; it is replaced at once or not at all.
        title: of the page.
        settings: of the training, nested as one likes; may be empty.
        curve: of the training, points (update, value) by quantity; may be empty.
        evaluation: the figures; the first policy is the one that others are held against.
        policies: those to fly for the pictures, by the names that they have in the evaluation.
        seed: of the flights in the pictures.
        progress: told how far it is, in flights.
        compile: False flies eagerly.

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
        names=list(evaluation.policies),
        suites=_suites(evaluation),
        pictures=pictures,
        training=dict(_flat(settings)),
        measuring=dict(_flat(evaluation.settings)),
    )
    with replacing(path) as temporary:
        temporary.write_text(html, encoding="utf-8")
    return Path(path)


def _pictures(
    curve: Mapping[str, Sequence[tuple[float, float]]],
    evaluation: Evaluation,
    policies: Mapping[str, Policy],
    seed: int,
    progress: Progress | None,
    compile: bool,
) -> Iterator[Picture]:
    pad_to = evaluation.settings.get("vehicles_at_once")
    device = evaluation.settings.get("device", "cpu")
    intervals = evaluation.settings.get("figure_eight_intervals_s", FIGURE_EIGHT_INTERVALS)
    total, done = 2 * len(policies), 0

    def tell(what: str) -> None:
        nonlocal done
        if progress is not None:
            progress(f"pictures: {what}", done, total)
        done += 1

    chosen = {name: curve[name] for name in CURVES if curve.get(name)} or {n: c for n, c in curve.items() if c}
    if chosen:
        yield _learning_curve(chosen, _levels(evaluation))
    if policies:
        eights = {}
        for name, policy in policies.items():
            tell(f"{name}, figure eights")
            eights[name] = record_figure_eights(policy, intervals, seed, device, pad_to, compile)
        text = (
            "Four of the nine named quadrotors from above, on one figure at full speed, with its RMSE. Nothing tells "
            "the policy which vehicle it flies but what it sees of its motion."
        )
        yield _picture("Figure eights", text, plots.figure_eights(eights))
        falls = {}
        for name, policy in policies.items():
            tell(f"{name}, recovery")
            falls[name] = record_recovery(policy, seed=seed, device=device, pad_to=pad_to, compile=compile)
        text = (
            "50 quadrotors that no training has seen, let go at rest and tilted by 90°. Recovered is who stays "
            f"within {plots.RECOVERED_DISTANCE:g} m of the target and {plots.RECOVERED_TILT:g}° of level for the last "
            "half second."
        )
        yield _picture("Recovery from tilted starts", text, plots.recovery(falls))
    if any({"platforms", "figure-eight"} & set(suites) for suites in evaluation.policies.values()):
        text = "Nine quadrotors that exist. Whiskers are 95 % intervals over starts."
        yield _picture("Platform by platform", text, plots.platform_bars(evaluation))
    tell("done")


def _learning_curve(
    curve: Mapping[str, Sequence[tuple[float, float]]], levels: Mapping[str, Mapping[str, float]]
) -> Picture:
    figure, told = plots.learning_curve(curve, levels), []
    if any(name in COMPARED for name in curve):
        told.append("Return and share terminated are those of quadrotors that training does not fly.")
    if any(name in levels for name in curve):
        told.append("Dashed: the level of the policy to beat.")
    if any(name.startswith("evaluation/") for name in curve):  # a distillation, which counts otherwise
        for axis in figure.axes:
            axis.set_xlabel("epoch")
    return _picture("Learning curve", " ".join(told), figure)


def _picture(heading: str, text: str, figure: Figure) -> Picture:
    source = "data:image/png;base64," + base64.b64encode(plots.to_png(figure)).decode("ascii")
    return Picture(heading, text, source, round(PIXELS_PER_INCH * figure.get_figwidth()))


def _levels(evaluation: Evaluation) -> dict[str, dict[str, float]]:
    """What the first policy reaches on unseen vehicles, to be drawn beside the learning curve."""
    name, suites = next(iter(evaluation.policies.items()))
    unseen = suites.get("unseen", {})
    return {curve: {name: unseen[metric].value} for curve, metric in COMPARED.items() if metric in unseen}


def _suites(evaluation: Evaluation) -> list[dict[str, Any]]:
    """The table as text: by suite a heading, and rows of a label and (text, whether better than the first policy)."""

    def texts(suite: str, details: bool) -> list[tuple[str, list[tuple[str, bool]]]]:
        return [
            (row.label, [(cell(e, row.metric), better(e, row.estimates[0], row.metric)) for e in row.estimates])
            for row in rows(evaluation.policies, suite, details)
        ]

    names = dict.fromkeys(suite for suites in evaluation.policies.values() for suite in suites)
    return [
        {"heading": HEADINGS.get(suite, suite), "rows": texts(suite, False), "details": texts(suite, True)}
        for suite in names
    ]


def _flat(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in settings.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield prefix + str(key), ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
