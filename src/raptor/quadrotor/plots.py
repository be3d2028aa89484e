"""Plots of populations: a histogram for each characteristic."""

from __future__ import annotations

import math

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

from raptor.core.plotting import COLOURS, STYLE, grid
from raptor.quadrotor.validation import Characteristic, characteristics
from raptor.quadrotor.vehicles import Vehicles


def plot_population(quadrotors: Vehicles) -> Figure:
    """A histogram for each characteristic of the vehicles, with the median as a line."""
    with matplotlib.rc_context(STYLE):
        figure, axes = grid(3, 3, (10.5, 7.8))
        for axis, trait in zip(axes.flat, characteristics(quadrotors).values(), strict=True):
            _histogram(axis, trait)
        for axis in axes[:, 0]:
            axis.set_ylabel("quadrotors")
        figure.suptitle(f"{len(quadrotors)} quadrotor{'s' if len(quadrotors) > 1 else ''}; the lines are medians")
    return figure


def label_axis(axis: Axes, trait: Characteristic) -> None:
    """Write a characteristic below the horizontal axis, which is logarithmic where its values span decades."""
    axis.set_xlabel(trait.title)
    if trait.spans_decades:
        axis.set_xscale("log")
        axis.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axis.xaxis.set_major_formatter("{x:g}")
        axis.xaxis.set_minor_locator(NullLocator())
    else:
        axis.xaxis.set_major_locator(MaxNLocator(5, steps=(1, 2, 2.5, 5, 10)))


def _histogram(axis: Axes, trait: Characteristic) -> None:
    values = trait.values.detach().cpu().double().numpy()
    values = values[np.isfinite(values)]
    if values.size:
        low, high = values.min(), values.max()
        margin = 0.0 if high > low else 0.05 * abs(low) or 0.05
        bins = min(30, max(5, math.ceil(2 * values.size**0.5)))
        spaced = np.geomspace if trait.spans_decades else np.linspace
        edges = spaced(low - margin, high + margin, bins + 1).tolist()
        axis.hist(values, edges, color=COLOURS[0], alpha=0.85, edgecolor="white", linewidth=0.4)
        axis.axvline(np.median(values), color=COLOURS[1], lw=1.6)
    label_axis(axis, trait)
    axis.yaxis.set_major_locator(MaxNLocator(4, integer=True))
    axis.grid(visible=False, axis="x")
