"""Plots of populations show every teacher and say how many are not solved."""

from __future__ import annotations

import matplotlib.colors
import pytest
import torch

from raptor.core.errors import UserError
from raptor.core.plotting import to_png
from raptor.nn import TeacherPopulation
from raptor.nn.stacked_mlp import initial_layers
from raptor.quadrotor import sample_quadrotors
from raptor.training.teachers.plots import (
    SHOWN,
    SOLVED,
    UNSOLVED,
    plot_curves,
    plot_teachers,
)


def teachers(returns: list[float | None], solved: list[bool]) -> TeacherPopulation:
    layers = initial_layers(len(returns), (26, 4, 4), torch.Generator().manual_seed(0))
    records = tuple({"return": r, "solved": s} for r, s in zip(returns, solved, strict=True))
    return TeacherPopulation(layers, sample_quadrotors(len(returns), 0), records)


def legend_of(figure) -> list[str]:
    return [text.get_text() for legend in figure.legends for text in legend.get_texts()]


def test_each_panel_shows_every_teacher_at_its_return_and_marks_the_unsolved() -> None:
    population = teachers([600.0, 300.0, 650.0, 100.0], [True, False, True, False])
    figure = plot_teachers(population, solved_return=500.0)
    assert len(figure.axes) == len(SHOWN)
    axis = figure.axes[SHOWN.index("thrust_to_weight")]
    good, bad = axis.collections
    ratio = population.quadrotors.thrust_to_weight
    torch.testing.assert_close(
        torch.tensor(good.get_offsets().data), torch.stack([ratio[[0, 2]], torch.tensor([600.0, 650.0])], -1).double()
    )
    torch.testing.assert_close(
        torch.tensor(bad.get_offsets().data), torch.stack([ratio[[1, 3]], torch.tensor([300.0, 100.0])], -1).double()
    )
    for marks, colour in ((good, SOLVED), (bad, UNSOLVED)):
        assert matplotlib.colors.same_color(marks.get_edgecolor()[0][:3], colour)
    assert [line.get_ydata()[0] for line in axis.lines] == [500.0]
    assert legend_of(figure) == ["2 solved", "2 not solved", "solved from 500 on"]
    assert figure.get_suptitle() == "4 teachers, mean return 412.5"
    assert to_png(figure).startswith(b"\x89PNG")


def test_a_teacher_without_a_return_is_counted_but_not_averaged() -> None:
    figure = plot_teachers(teachers([600.0, None, 500.0], [True, False, True]))
    assert figure.get_suptitle() == "3 teachers, mean return 550.0, 1 without a return"
    assert legend_of(figure) == ["2 solved", "1 not solved"]
    assert plot_teachers(teachers([None], [False])).get_suptitle() == ("1 teacher, no return known, 1 without a return")


def test_teachers_without_vehicles_cannot_be_drawn() -> None:
    population = TeacherPopulation(initial_layers(2, (26, 4, 4), torch.Generator().manual_seed(0)))
    with pytest.raises(UserError, match="come without their quadrotors"):
        plot_teachers(population)


def points(end_s: float, level: float) -> list[dict[str, float]]:
    return [
        {
            "elapsed_s": share * end_s,
            "env_steps": share * 2e9,
            "mean": share * level,
            "p10": share * level - 50,
            "p90": share * level + 30,
            "worst": share * level - 200,
        }
        for share in (0.25, 0.5, 1.0)
    ]


def test_algorithms_share_one_time_axis_with_mean_band_and_worst() -> None:
    figure = plot_curves({"sac": points(3600.0 * 4, 600.0), "apg": points(3600.0, 650.0), "none": []})
    [axis] = figure.axes
    assert axis.get_xlabel() == "training time (h)"
    worst, mean = axis.lines[2:4]
    assert list(mean.get_xdata()) == [0.25, 0.5, 1.0]
    assert list(mean.get_ydata()) == [162.5, 325.0, 650.0]
    assert list(worst.get_ydata()) == [-37.5, 125.0, 450.0]
    heights = axis.collections[1].get_paths()[0].vertices[:, 1]
    assert (heights.min(), heights.max()) == (112.5, 680.0)
    assert [text.get_text() for text in axis.get_legend().get_texts()] == [
        "sac: 600.0 after 2 G steps",
        "apg: 650.0 after 2 G steps",
        "none: no validation",
    ]
    assert to_png(figure).startswith(b"\x89PNG")


@pytest.mark.parametrize(("end_s", "unit"), [(30.0, "s"), (600.0, "min"), (36000.0, "h")])
def test_the_time_is_in_a_unit_that_fits(end_s: float, unit: str) -> None:
    assert plot_curves({"a": points(end_s, 1.0)}).axes[0].get_xlabel() == f"training time ({unit})"


def test_nothing_to_draw_is_an_error_that_says_why() -> None:
    for curves in ({}, {"sac": []}):
        with pytest.raises(UserError, match="no validations to draw"):
            plot_curves(curves)
