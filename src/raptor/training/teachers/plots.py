"""Plots of teachers: how good they became, and how they got there."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import cycle
from typing import Any

import matplotlib
import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from raptor.core.errors import UserError
from raptor.core.plotting import COLOURS, FAINT, INK, STYLE, grid
from raptor.nn import TeacherPopulation
from raptor.quadrotor.plots import label_axis
from raptor.quadrotor.validation import characteristics

ROTORS = ("rotor_time_constant_rising", "rotor_time_constant_falling")
SHOWN = ("thrust_to_weight", "torque_to_inertia", "mass", *ROTORS, "hover_throttle")
"""What the return of a teacher is drawn against."""

QUANTILES = {"p10": 0.1, "p50": 0.5, "p90": 0.9}

SOLVED, UNSOLVED = COLOURS[0], COLOURS[1]


def plot_teachers(population: TeacherPopulation, solved_return: float | None = None) -> Figure:
    """The return of each teacher against what characterises its vehicle; those that are not solved stand out.

    A record without a `return` is left out of the panels, not of the counts; `solved_return` is drawn as a line.
    """
    if population.quadrotors is None:
        raise UserError("these teachers come without their quadrotors, against which their returns would be drawn")
    returns = _numbers(record.get("return") for record in population.records)
    solved, traits = population.solved.cpu().numpy(), characteristics(population.quadrotors)
    size, alpha = (36, 0.9) if len(returns) < 50 else (12, 0.55)
    handles = [
        Line2D([], [], color=SOLVED, marker="o", ls="", ms=5, label=f"{solved.sum()} solved"),
        Line2D([], [], color=UNSOLVED, marker="x", ls="", ms=7, mew=1.6, label=f"{(~solved).sum()} not solved"),
    ]
    with matplotlib.rc_context(STYLE):
        figure, axes = grid(2, 3, (11.5, 6.6), sharey=True)
        for axis, trait in zip(axes.flat, (traits[name] for name in SHOWN), strict=True):
            x = trait.values.detach().cpu().double().numpy()
            axis.scatter(x[solved], returns[solved], s=size, color=SOLVED, alpha=alpha, linewidths=0, zorder=2)
            unsolved = {"s": 2 * size, "color": UNSOLVED, "marker": "x", "linewidths": 1.4}
            axis.scatter(x[~solved], returns[~solved], zorder=3, **unsolved)
            label_axis(axis, trait)
            if solved_return is not None:
                axis.axhline(solved_return, color=INK, lw=1.2, ls="--", zorder=1)
        if solved_return is not None:
            handles.append(Line2D([], [], color=INK, lw=1.2, ls="--", label=f"solved from {solved_return:g} on"))
        for axis in axes[:, 0]:
            axis.set_ylabel("return")
        figure.suptitle(_title(returns), weight="bold")
        figure.legend(handles=handles, loc="outside lower center", ncols=3)
    return figure


def plot_curves(curves: Mapping[str, Sequence[Mapping[str, float]]]) -> Figure:
    """The validation return of populations over training time: mean, band from the 10th to the 90th percentile, worst.

    There is a `population_curve` for each label, an algorithm.
    """
    if not any(map(len, curves.values())):
        raise UserError("there are no validations to draw: train with a shorter validation_interval")
    longest = max(point["elapsed_s"] for points in curves.values() for point in points)
    unit, seconds = next((u, s) for u, s in (("h", 3600), ("min", 60), ("s", 1)) if longest >= 2 * s or s == 1)
    labels = []
    with matplotlib.rc_context(STYLE):
        figure, axes = grid(1, 1, (8.2, 4.8))
        axis = axes[0, 0]
        for (label, points), colour in zip(curves.items(), cycle(COLOURS), strict=False):
            keys = ("elapsed_s", "mean", "p10", "p90", "worst")
            time, mean, low, high, worst = (_numbers(point[key] for point in points) for key in keys)
            axis.fill_between(time / seconds, low, high, color=colour, alpha=0.16, lw=0)
            axis.plot(time / seconds, worst, color=colour, lw=1.3, ls=":")
            axis.plot(time / seconds, mean, color=colour, lw=2, marker="o" if len(time) < 25 else None, ms=3.5)
            labels.append(Line2D([], [], color=colour, lw=2.2, label=f"{label}: {_reached(points)}"))
        axis.set_xlabel(f"training time ({unit})")
        axis.set_ylabel("validation return")
        axis.set_xlim(left=0)
        axis.legend(handles=labels, loc="lower right")
        styles = [
            Line2D([], [], color=INK, lw=2, label="mean"),
            Patch(color=FAINT, alpha=0.4, lw=0, label="10th to 90th percentile"),
            Line2D([], [], color=INK, lw=1.3, ls=":", label="mean of the worst ten"),
        ]
        figure.legend(handles=styles, loc="outside upper center", ncols=3)
    return figure


def population_curve(curves: Sequence[Mapping[str, Any]]) -> list[dict[str, float]]:
    """The validation returns of a whole population over steps: mean, quantiles, and mean of the worst ten.

    From `curves.json`, the points that every shard has, in the order of steps; they took `elapsed_s` together.
    """
    by_steps: dict[float, list[Mapping[str, Any]]] = {}
    for point in (point for shard in curves for point in shard["points"]):
        by_steps.setdefault(point["env_steps"], []).append(point)
    rows = []
    for steps, points in sorted(by_steps.items()):
        returns = torch.tensor([v for p in points for v in p["returns"] if v is not None], dtype=torch.float64)
        if len(points) == len(curves) and len(returns):
            row = {"env_steps": steps, "elapsed_s": sum(p["elapsed_s"] for p in points), "mean": float(returns.mean())}
            row |= {name: float(returns.quantile(q)) for name, q in QUANTILES.items()}
            rows.append(row | {"worst": float(returns.sort().values[:10].mean())})
    return rows


def _title(returns: np.ndarray) -> str:
    known = returns[np.isfinite(returns)]
    mean = f"mean return {known.mean():.1f}" if known.size else "no return known"
    missing = f", {returns.size - known.size} without a return" if known.size < returns.size else ""
    return f"{returns.size} teacher{'s' if returns.size > 1 else ''}, {mean}{missing}"


def _reached(points: Sequence[Mapping[str, float]]) -> str:
    """The last mean, and how much experience it took."""
    if not points:
        return "no validation"
    steps = points[-1]["env_steps"]
    size, letter = next((s, x) for s, x in ((1e9, " G"), (1e6, " M"), (1e3, " k"), (1, "")) if steps >= s or s == 1)
    return f"{points[-1]['mean']:.1f} after {steps / size:.3g}{letter} steps"


def _numbers(values: Iterable[float | None]) -> np.ndarray:
    return np.array([math.nan if value is None else float(value) for value in values])
