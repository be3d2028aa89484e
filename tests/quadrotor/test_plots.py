"""Histograms of a population show every vehicle."""

from __future__ import annotations

from raptor.core.plotting import to_png
from raptor.quadrotor import sample_quadrotors
from raptor.quadrotor.plots import plot_population


def test_a_size_that_spans_decades_has_a_logarithmic_axis_and_nothing_else_has() -> None:
    wide, narrow = sample_quadrotors(300, 0), sample_quadrotors(3, 0)
    assert wide.mass.max() / wide.mass.min() > 100 > narrow.mass.max() / narrow.mass.min()

    def scales(quadrotors) -> dict[str, str]:
        return {axis.get_xlabel(): axis.get_xscale() for axis in plot_population(quadrotors).axes}

    assert {label for label, scale in scales(wide).items() if scale == "log"} == {"mass (kg)"}
    assert "log" not in scales(narrow).values()
    assert len(scales(wide)) == 9


def test_every_vehicle_is_in_a_bar_of_every_histogram() -> None:
    for num in (1, 3, 300):
        figure = plot_population(sample_quadrotors(num, 0))
        assert figure.get_suptitle().startswith(f"{num} quadrotor")
        for axis in figure.axes:
            assert sum(bar.get_height() for bar in axis.patches) == num, axis.get_xlabel()
        assert to_png(figure).startswith(b"\x89PNG")
