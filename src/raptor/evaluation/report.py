"""Everything about a policy on one page that needs no other file."""

from __future__ import annotations

import base64
import datetime
import importlib.resources
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
from matplotlib.figure import Figure

from raptor.config.files import leaves
from raptor.core.atomic import PathLike, write_atomically
from raptor.core.plotting import to_png
from raptor.environments.rollout import Policy
from raptor.evaluation import plots
from raptor.evaluation.evaluator import CountFunction
from raptor.evaluation.results import Evaluation, better, cell, rows
from raptor.evaluation.suites import FIGURE_EIGHT_INTERVALS, MOST_GROUPS

COMPARED = {
    "evaluation/mean_return": "return",
    "evaluation/termination_rate": "terminated",
    "validation/return": "return",  # of runs of earlier versions, as are the next
    "validation/terminated": "terminated",
    "evaluation/share_terminated": "terminated",
}
"""Curves of quadrotors that training does not fly, and the metric of an evaluation that each goes with."""

CURVES = (*COMPARED, "training/loss")  # quantities that are drawn, if they are there; else all of them
PIXELS_PER_INCH = 78  # the same for all figures, so that letters are of one size

EIGHTS = (
    "Four of the nine named quadrotors from above, on one figure at full speed, with the RMSE of each policy over it; "
    "lost means 1 m or more. Paths that leave a panel are cut off."
)
RECOVERY = (
    "50 quadrotors that no training has seen, let go at rest and tilted by 90°. Recovered means within "
    f"{plots.RECOVERED_DISTANCE:g} m of the target and {plots.RECOVERED_TILT:g}° of level for the last half second. "
    f"Distances beyond {plots.MOST_DISTANCE:g} m are cut off."
)
BARS = (
    "The nine named quadrotors, holding the origin and on figure eights. Whiskers are 95 % intervals over starts.",
    "The quadrotors that were given. Whiskers are 95 % intervals over starts.",
)
SENSITIVITY = (
    "One quantity at a time at both ends of its uncertainty; dashed: vehicles as given. Whiskers: 95 % intervals."
)

Curve = Mapping[str, Sequence[tuple[float, float]]]  # points (update, value) by quantity


def write_report(
    path: PathLike,
    *,
    title: str,
    settings: Mapping[str, Any],
    curve: Curve,
    evaluation: Evaluation,
    policies: Mapping[str, Policy],
    seed: int,
    progress: CountFunction | None = None,
    compile: bool | None = None,
) -> Path:
    """Write one self-contained HTML file: settings, learning curve, table, and figures of rollouts made for it.

    Settings and curve of the training may be empty. Policies, by the names that they have in the evaluation, are
    recorded with this seed, and compiled by default as in the evaluation, whose first policy others are compared with.
    """
    measured, show = evaluation.settings, progress or (lambda what, done, total: None)
    pictures: list[dict[str, Any]] = []
    intervals = measured.get("figure_eight_intervals_s", FIGURE_EIGHT_INTERVALS)
    how = {"seed": seed, "device": measured.get("device", "cpu"), "pad_to": measured.get("vehicles_at_once")}
    how["compile"] = bool(measured.get("compiled", True)) if compile is None else compile
    if any(curve.values()):
        pictures.append(_learning_curve(curve, evaluation))
    eights, falls = {}, {}
    for done, (name, policy) in enumerate(policies.items()):
        show(f"pictures: {name}, figure eights", done, 2 * len(policies))
        eights[name] = plots.record_figure_eights(policy, intervals, **how)
    if eights:
        pictures.append(_picture("Figure eights", EIGHTS, plots.figure_eights(eights)))
    for done, (name, policy) in enumerate(policies.items(), len(policies)):
        show(f"pictures: {name}, recovery", done, 2 * len(policies))
        falls[name] = plots.record_recovery(policy, **how)
    if falls:
        pictures.append(_picture("Recovery from tilted starts", RECOVERY, plots.recovery(falls)))
    if {"platforms", "figure-eight"} & {*evaluation.suites} and len(evaluation.vehicles) <= MOST_GROUPS:
        heading = "Quadrotor by quadrotor" if evaluation.vehicles else "Platform by platform"
        pictures.append(_picture(heading, BARS[bool(evaluation.vehicles)], plots.platform_bars(evaluation)))
    if evaluation.uncertain:
        pictures.append(_picture("Sensitivity", SENSITIVITY, plots.sensitivity(evaluation)))
    show("pictures: done", 2 * len(policies), 2 * len(policies))
    strict: dict[str, Any] = {"autoescape": True, "undefined": jinja2.StrictUndefined}
    environment = jinja2.Environment(trim_blocks=True, lstrip_blocks=True, **strict)
    template = importlib.resources.files("raptor.evaluation") / "templates" / "report.html.j2"
    html = environment.from_string(template.read_text(encoding="utf-8")).render(
        title=title,
        written=datetime.datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z"),
        policies=evaluation.policies,
        suites=evaluation.suites,
        table={"headings": evaluation.headings, "rows": rows, "cell": cell, "better": better},
        pictures=pictures,
        training=_flat(settings),
        measuring=_flat(measured),
    )
    return write_atomically(path, html)


def _learning_curve(curve: Curve, evaluation: Evaluation) -> dict[str, Any]:
    """The curves, beside what the first policy reaches on unseen vehicles."""
    unit = "epoch" if "data_collection/mean_return" in curve else "update"
    curve = {name: curve[name] for name in CURVES if curve.get(name)} or {n: c for n, c in curve.items() if c}
    first, suites = next(iter(evaluation.policies.items()))
    unseen = suites.get("unseen", {})
    levels = {name: {first: unseen[metric].value} for name, metric in COMPARED.items() if metric in unseen}
    text = []
    if any(name in COMPARED for name in curve):
        text.append(
            "Return and termination rate are those of quadrotors that training does not fly, with the noise, delays "
            "and other imperfections of its task, if it has any."
        )
    if any(name in levels for name in curve):
        text.append(f"Dashed: {first} on the suite unseen, which has none.")
    return _picture("Learning curve", " ".join(text), plots.learning_curve(curve, levels, unit))


def _picture(heading: str, text: str, figure: Figure) -> dict[str, Any]:
    source = "data:image/png;base64," + base64.b64encode(to_png(figure)).decode("ascii")
    return {"heading": heading, "text": text, "source": source, "width": round(PIXELS_PER_INCH * figure.get_figwidth())}


def _flat(settings: Mapping[str, Any]) -> dict[str, str]:
    return {
        key: ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
        for key, value in leaves(settings, take_lists_apart=False)
    }
