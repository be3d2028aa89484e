"""Rollouts that are made to be looked at, and figures of them and of results."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import Any

import matplotlib
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from raptor.core.errors import UserError
from raptor.core.plotting import COLOURS, FAINT, INK, STYLE, grid
from raptor.environments.collectors import Recorder, Recording
from raptor.environments.episode import draw_noise, look
from raptor.environments.rollout import Policy
from raptor.evaluation.evaluator import fly
from raptor.evaluation.results import Evaluation
from raptor.evaluation.suites import (
    FIGURE_EIGHT_INTERVALS,
    NOMINAL,
    SURVIVAL,
    SURVIVAL_AXES,
    WINDY_DRAG,
    begin_together,
    conditions,
    figure_eight,
    following,
)
from raptor.quadrotor.parameters import PLATFORMS, Quadrotors, load_platform, load_platforms
from raptor.quadrotor.state import component_major, from_axis_angle
from raptor.tasks.initial_state import InitialStates
from raptor.tasks.observation import sense
from raptor.tasks.reference import Lissajous, References
from raptor.tasks.trajectories import Trajectory

SHOWN = ("crazyflie", "x500_real", "race", "soft")  # in figures: from 30 g to 2 kg, slow and nervous ones
RECOVERED_DISTANCE, RECOVERED_TILT = 0.5, 30.0  # m and degrees; recovered: within both for the last half second
MOST_DISTANCE = 3.0  # m; that is drawn of a recovery
RAMP = Lissajous().ramp[1]  # s; the figure eights reach their full speed after this time


def record_figure_eights(
    policy: Policy,
    intervals: Sequence[float] = FIGURE_EIGHT_INTERVALS,
    seed: int = 0,
    device: torch.device | str = "cpu",
    pad_to: int | None = None,
    compile: bool = True,
) -> dict[float, Recording]:
    """Record the ramp and one whole figure of each speed (s for a figure) with each of the nine platforms.

    Vehicles are in the order of `PLATFORMS`; `pad_to` as in `raptor.environments.rollout`.
    """
    platforms = load_platforms().to(torch.device(device))
    group = [figure_eight(interval, 1, seed, platforms).seen_by(policy) for interval in intervals]
    dt, places = group[0].task.dt, len(PLATFORMS)
    longest = dataclasses.replace(group[0], num_steps=round((RAMP + max(intervals)) / dt))
    recorder = Recorder(dt, places * len(group))
    fly(policy, longest, begin_together(group), pad_to, compile, recorder)
    whole = recorder.recording
    return {
        interval: whole[: round((RAMP + interval) / dt) + 1, index * places : (index + 1) * places]
        for index, interval in enumerate(intervals)
    }


def record_reference(
    policy: Policy,
    reference: str | Trajectory,
    quadrotors: Quadrotors | None = None,
    seed: int = 0,
    device: torch.device | str = "cpu",
    compile: bool = False,
) -> Recording:
    """Record a trajectory, by name or from a file, flown once by the platforms `SHOWN`, or by the first few given."""
    named = Quadrotors.concatenate(map(load_platform, SHOWN)) if quadrotors is None else quadrotors[: len(SHOWN)]
    condition = following(reference, 1, seed, named.to(torch.device(device))).seen_by(policy)
    recorder = Recorder(condition.task.dt)
    fly(policy, condition, begin_together([condition]), None, compile, recorder)
    return recorder.recording


def record_recovery(
    policy: Policy,
    num: int = 50,
    seed: int = 0,
    device: torch.device | str = "cpu",
    pad_to: int | None = None,
    compile: bool = True,
) -> Recording:
    """Drop sampled quadrotors at the origin, at rest and tilted by 90°, with rotors at the speed that would carry them.

    The seed is that of the quadrotors, and of the horizontal axis that each is tilted about.
    """
    condition = conditions("unseen", num, 1, seed, torch.device(device))[0].seen_by(policy)
    at_rest = InitialStates(guidance=1.0)
    starts = dataclasses.replace(condition.starts, initial_states=at_rest, references=References(langevin_share=0.0))
    start, generator = dataclasses.replace(condition, starts=starts).begin()
    task, quadrotors = condition.task, condition.quadrotors
    azimuth = 2 * math.pi * torch.rand(num, generator=generator, device=quadrotors.device)
    axis = torch.stack([azimuth.cos(), azimuth.sin(), torch.zeros_like(azimuth)], dim=-1)
    low, high = quadrotors.action_limit.unbind(-1)
    hover = quadrotors.hover_throttle
    state = dataclasses.replace(
        start.state,
        orientation=component_major(from_axis_angle(axis, torch.full_like(azimuth, math.pi / 2))),
        rotor_speed=component_major((low + (high - low) * hover).unsqueeze(-1).expand(-1, 4)),
    )
    held = component_major((2 * hover - 1).unsqueeze(-1).expand(-1, 4))
    seen = sense(state, start.reference, task.target_visible)
    sensed, commanded = (seen,) * len(start.sensed), (held,) * len(start.commanded)
    start = dataclasses.replace(start, state=state, previous_action=held, sensed=sensed, commanded=commanded)
    if not task.observes_default:
        noise = draw_noise(task, quadrotors.mass, generator)[0]
        start = dataclasses.replace(start, own=look(task, quadrotors, start, noise, None))
    recorder = Recorder(task.dt, num)
    fly(policy, condition, (quadrotors, start, generator), pad_to, compile, recorder)
    return recorder.recording


def _legend(figure: Figure, names: Sequence[str], extra: Sequence[Line2D] = ()) -> None:
    lines = [Line2D([], [], color=hue, lw=2.2, label=name) for name, hue in zip(names, cycle(COLOURS), strict=False)]
    figure.legend(handles=[*extra, *lines], loc="outside upper center", ncols=len(lines) + len(extra))


def figure_eights(recordings: Mapping[str, Mapping[float, Recording]], shown: Sequence[str] = SHOWN) -> Figure:
    """One whole figure at full speed from above, a row for each speed and a column for each platform `shown`.

    Recordings are by policy, then by seconds per figure, of all platforms in the order of `PLATFORMS`.
    """
    intervals = list(next(iter(recordings.values())))
    with matplotlib.rc_context(STYLE):
        size = 2.75 * len(shown) + 0.4, 1.85 * len(intervals) + 0.9
        figure, axes = grid(len(intervals), len(shown), size, sharex=True, sharey=True)
        for row, interval in zip(axes, intervals, strict=True):
            for axis, name in zip(row, shown, strict=True):
                flown = [by_interval[interval] for by_interval in recordings.values()]
                _figure_eight(axis, flown, PLATFORMS.index(name))
            row[0].set_ylabel(f"{interval:g} s per figure\nx (m)")
        for top, bottom, name in zip(axes[0], axes[-1], shown, strict=True):
            top.set_title(name, weight="bold")
            bottom.set_xlabel("y (m)")
        _legend(figure, list(recordings), [Line2D([], [], color=FAINT, lw=5, alpha=0.5, label="target")])
    return figure


def _figure_eight(axis: Axes, recordings: Sequence[Recording], place: int) -> None:
    """Draw the target, the path of each policy, and the RMSE of each."""
    settled = slice(round(RAMP / recordings[0].dt), None)
    target = recordings[0].target[settled, place].cpu()
    axis.plot(target[:, 1], target[:, 0], color=FAINT, lw=5, alpha=0.5)
    for index, (recording, colour) in enumerate(zip(recordings, cycle(COLOURS), strict=False)):
        flown = recording.position[settled, place].cpu()
        axis.plot(flown[:, 1], flown[:, 0], color=colour, lw=1.6)
        rmse = recording.tracking_error[settled, place].square().mean().sqrt().item()
        text = f"{100 * rmse:.1f} cm" if rmse < 1 else "lost"
        x, y = 0.02 + 0.96 * (index % 2), 0.03 + 0.86 * (index // 2)
        how: dict[str, Any] = {"transform": axis.transAxes, "ha": "right" if index % 2 else "left"}
        axis.text(x, y, text, color=colour, fontsize=8.5, weight="bold", **how)
    axis.set(xlim=(-1.45, 1.45), ylim=(-0.95, 0.95), aspect="equal")


def reference(recordings: Mapping[str, Recording], vehicles: Sequence[str] = SHOWN) -> Figure:
    """A trajectory from above, its height, and the distance from its target, a column for each of the vehicles.

    Recordings are by policy, of the vehicles in their order; a cross is where one is lost. What leaves the surroundings
    of the trajectory is cut off, as are distances of those that are lost.
    """
    with matplotlib.rc_context(STYLE):
        figure, axes = grid(3, len(vehicles), (3.2 * len(vehicles) + 0.4, 8.2), sharey="row")
        target = next(iter(recordings.values())).target.cpu()
        kept = [100 * each.tracking_error[each.flying].max().item() for each in recordings.values()]
        farthest = min(150.0, max(2.0, 1.1 * max(kept)))
        for place, (name, column) in enumerate(zip(vehicles, axes.T, strict=True)):
            x, y, z = target[:, place].T
            column[0].plot(x, y, color=INK, lw=1, ls=":")
            column[1].plot(next(iter(recordings.values())).time, z, color=INK, lw=1, ls=":")
            for recording, colour in zip(recordings.values(), cycle(COLOURS), strict=False):
                flying = recording.flying[:, place].cpu()
                flown = recording.position[:, place].cpu()[flying]
                apart = 100 * recording.tracking_error[:, place].cpu()[flying]
                time = recording.time[flying]
                curves = (flown[:, 0], flown[:, 1]), (time, flown[:, 2]), (time, apart)
                for axis, (across, up) in zip(column, curves, strict=True):
                    axis.plot(across, up, color=colour, lw=1.2)
                    if not flying.all():
                        axis.plot(across[-1], up[-1], color=colour, marker="x", ms=8, mew=2)
            margin = 0.5 + 0.1 * float(target.abs().amax())
            column[0].set(xlim=(x.min() - margin, x.max() + margin), ylim=(y.min() - margin, y.max() + margin))
            column[0].set(aspect="equal", xlabel="x (m)")
            column[0].set_title(name, weight="bold")
            column[1].set(xlabel="time (s)", ylim=(target[..., 2].min() - margin, target[..., 2].max() + margin))
            column[2].set(xlabel="time (s)", ylim=(0, farthest))
        for row, label in enumerate(("y (m)", "height (m)", "distance from target (cm)")):
            axes[row, 0].set_ylabel(label)
        _legend(figure, list(recordings), [Line2D([], [], color=INK, lw=1, ls=":", label="target")])
    return figure


def recovery(recordings: Mapping[str, Recording]) -> Figure:
    """Tilt and distance from the target over time, a line for each start and a column for each policy."""
    with matplotlib.rc_context(STYLE):
        size = max(4.2 * len(recordings), 6.0), 5.2
        figure, axes = grid(2, len(recordings), size, sharex=True, sharey="row")
        for (name, recording), colour, column in zip(recordings.items(), cycle(COLOURS), axes.T, strict=False):
            num = recording.position.shape[1]
            column[0].set_title(f"{name}: {num_recovered(recording)} of {num} recover", weight="bold")
            for axis, values in ((column[0], recording.tilt.rad2deg()), (column[1], recording.tracking_error)):
                axis.plot(recording.time, values.cpu(), color=colour, lw=0.8, alpha=0.3)
                axis.plot(recording.time, values.median(dim=1).values.cpu(), color=INK, lw=2)
            column[1].set_xlabel("time (s)")
        axes[0, 0].set(ylabel="tilt (°)", ylim=(0, 180), yticks=range(0, 181, 45))
        axes[1, 0].set(ylabel="distance from target (m)", ylim=(0, MOST_DISTANCE))
        lines = (FAINT, 0.8, "each start"), (INK, 2, "median")
        handles = [Line2D([], [], color=colour, lw=width, label=label) for colour, width, label in lines]
        figure.legend(handles=handles, loc="outside upper center", ncols=2)
    return figure


def num_recovered(recording: Recording) -> int:
    """How many stay near the target and near level throughout the last half second."""
    last = slice(-round(0.5 / recording.dt), None)
    near = recording.tracking_error[last] < RECOVERED_DISTANCE
    level = recording.tilt[last] < math.radians(RECOVERED_TILT)
    return int((near & level).all(dim=0).sum())


def platform_bars(evaluation: Evaluation) -> Figure:
    """Bars with intervals for each platform, or given vehicle, and policy: of hovering, and RMSE on figure eights."""
    names = evaluation.vehicles or PLATFORMS
    prefix = "" if len(names) == 1 else "{}/"
    panels = [
        ("platforms", f"{prefix}return", "return (at most 750)", 1),
        ("platforms", f"{prefix}position_rmse", "RMSE (cm), hovering", 100),
        ("platforms", f"{prefix}action_change", "action change per step, 1/1000", 1000),
    ]
    for interval in evaluation.settings.get("figure_eight_intervals_s", ()):
        title = f"RMSE (cm), {interval:g} s figure eight"
        panels.append(("figure-eight", f"{interval:g}s/{prefix}position_rmse", title, 100))
    flown = evaluation.policies.values()
    panels = [panel for panel in panels if any(panel[1].format(names[0]) in each.get(panel[0], ()) for each in flown)]
    height = 0.8 / len(evaluation.policies)
    with matplotlib.rc_context(STYLE):
        size = 2.6 * max(1, len(panels)) + 0.8, 0.6 + len(names) * (0.2 + 0.2 * len(evaluation.policies))
        figure, axes = grid(1, max(1, len(panels)), size, sharey=True)
        for axis, (suite, key, title, scale) in zip(axes[0], panels, strict=False):
            for index, (suites, colour) in enumerate(zip(flown, cycle(COLOURS), strict=False)):
                if key.format(names[0]) in suites.get(suite, ()):
                    places = np.arange(len(names)) - 0.4 + height * (index + 0.5)
                    value, low, high = scale * np.array([suites[suite][key.format(name)] for name in names]).T
                    axis.barh(places, value, height=0.9 * height, color=colour)
                    axis.errorbar(value, places, xerr=[value - low, high - value], fmt="none", ecolor=INK, elinewidth=1)
            axis.set_title(title)
            axis.grid(visible=False, axis="y")
            axis.xaxis.set_major_locator(MaxNLocator(4))
        axes[0, 0].set_yticks(range(len(names)), names)
        axes[0, 0].invert_yaxis()
        _legend(figure, list(evaluation.policies))
    return figure


def sensitivity(evaluation: Evaluation) -> Figure:
    """Return, RMSE and lost episodes with each uncertain quantity at both of its ends; dashed: vehicles as given."""
    quantities, policies = evaluation.uncertain, evaluation.policies
    if not quantities:
        raise UserError("nothing about these vehicles is uncertain, so that there is no sensitivity to draw")
    panels = {"return": ("return", 1), "position_rmse": ("position RMSE (cm)", 100)}
    panels["terminated"] = ("lost (%)", 100)
    with matplotlib.rc_context(STYLE):
        size = 3.1 * len(panels) + 1.6, 1.1 + len(quantities) * (0.2 + 0.2 * len(policies))
        figure, axes = grid(1, len(panels), size, sharey=True)
        for axis, (metric, (title, scale)) in zip(axes[0], panels.items(), strict=True):
            for index, (suites, colour) in enumerate(zip(policies.values(), cycle(COLOURS), strict=False)):
                found, ends = suites["sensitivity"], []
                places = np.arange(len(quantities)) + 0.8 * ((index + 0.5) / len(policies) - 0.5)
                for end, marker in (("low", "<"), ("high", ">")):
                    value, low, high = scale * np.array([found[f"{name}-{end}/{metric}"] for name in quantities]).T
                    how: dict[str, Any] = {"color": colour, "mec": "white", "mew": 0.5, "ms": 7, "elinewidth": 0.8}
                    axis.errorbar(value, places, xerr=[value - low, high - value], fmt=marker, **how)
                    ends.append(value)
                axis.hlines(places, *ends, color=colour, lw=2, alpha=0.5)
                axis.axvline(scale * found[f"{NOMINAL}/{metric}"].value, color=colour, lw=1, ls="--")
            axis.set_title(title)
            low, high = axis.get_xlim()
            axis.set_xlim(low if metric == "return" else -0.02 * high, high if metric == "return" else max(5, high))
            axis.xaxis.set_major_locator(MaxNLocator(4))
        names = [f"{name.replace('_', ' ')} ±{amount}" for name, amount in quantities.items()]
        axes[0, 0].set_yticks(range(len(quantities)), names)
        axes[0, 0].invert_yaxis()
        marks = (("--", None, "as given"), ("", "<", "less"), ("", ">", "more"))
        extra = [Line2D([], [], color=INK, lw=1, ls=ls, marker=marker, label=label) for ls, marker, label in marks]
        _legend(figure, list(policies), extra)
    return figure


def survival(evaluation: Evaluation) -> Figure:
    """Return with its interval, and lost episodes below, against delay, noise, thrust and wind."""
    labels = {
        "delay": "delay (ms)",
        "noise": "noise (of the suite robustness)",
        "thrust": "thrust (of the modelled)",
        "wind": f"wind (m/s), drag {WINDY_DRAG:g} 1/s",
    }
    metrics = {"return": ("return (at most 750)", 1), "terminated": ("lost (%)", 100)}
    with matplotlib.rc_context(STYLE):
        figure, axes = grid(2, len(labels), (3.1 * len(labels) + 0.6, 5.4), sharex="col", sharey="row")
        for column, (name, label) in enumerate(labels.items()):
            amounts = SURVIVAL_AXES[name]
            for row, (metric, (title, scale)) in enumerate(metrics.items()):
                axis = axes[row, column]
                for suites, colour in zip(evaluation.policies.values(), cycle(COLOURS), strict=False):
                    found = [suites[SURVIVAL][f"{name}-{amount:g}/{metric}"] for amount in amounts]
                    value, low, high = scale * np.array(found).T
                    axis.plot(amounts, value, color=colour, lw=1.8, marker="o", ms=3.5)
                    axis.fill_between(amounts, low, high, color=colour, alpha=0.2, lw=0)
                if column == 0:
                    axis.set_ylabel(title)
            axes[1, column].set_xlabel(label)
        axes[0, 0].set_ylim(bottom=0)
        axes[1, 0].set_ylim(0, 100)
        _legend(figure, list(evaluation.policies))
    return figure


def learning_curve(
    curve: Mapping[str, Sequence[tuple[float, float]]],
    levels: Mapping[str, Mapping[str, float]] | None = None,
    unit: str = "update",
) -> Figure:
    """A panel from 0 on for each quantity: its points (step, value), and its `levels` by name as horizontal lines."""
    with matplotlib.rc_context(STYLE):
        figure, axes = grid(1, len(curve), (4.2 * len(curve) + 0.6, 3.2))
        for axis, (name, points) in zip(axes[0], curve.items(), strict=True):
            x, y = np.array(points, dtype=float).reshape(-1, 2).T
            axis.plot(x, y, color=COLOURS[1], lw=1.8, marker="o" if len(x) < 40 else None, ms=3.5)
            low, high = axis.get_ylim()
            axis.set_ylim(min(0.0, low if y.min() < 0 else 0.0), 1.04 * high if high > 0 else high)
            for label, level in (levels or {}).get(name, {}).items():
                axis.axhline(level, color=COLOURS[0], lw=1.4, ls="--")
                below = level > np.mean(axis.get_ylim())
                va, shift = ("top", -4) if below else ("bottom", 3)
                left = abs(y[0] - level) > abs(y[-1] - level)  # where the curve is farther away
                ha, side, inwards = ("left", 0, 3) if left else ("right", 1, -3)
                place = {"xytext": (inwards, shift), "textcoords": "offset points", "ha": ha, "va": va}
                axis.annotate(label, (side, level), xycoords=axis.get_yaxis_transform(), color=COLOURS[0], **place)
            axis.set(title=name.replace("/", " ").replace("_", " "), xlabel=unit)
    return figure
