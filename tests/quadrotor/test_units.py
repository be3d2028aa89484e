"""Numbers are read with the units and uncertainties that people write beside them."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raptor.quadrotor.units import KINDS, listed, parse


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [
        ("650 g", "mass", 0.65),
        ("1.5kg", "mass", 1.5),
        ("2 lb", "mass", 0.90718474),
        ("22 ms", "time", 0.022),
        ("220 mm", "length", 0.22),
        ('5"', "length", 0.127),
        ("5 inches", "length", 0.127),
        ("1.6 kgf", "thrust", 15.69064),
        ("1600 g", "thrust", 15.69064),
        ("12 N", "thrust", 12.0),
        ("18000 rpm", "speed", 600 * math.pi),
        ("18000 RPM", "speed", 600 * math.pi),
        ("1880 rad/s", "speed", 1880.0),
        ("300 Hz", "speed", 600 * math.pi),
        ("1750 KV", "KV", 1750.0),
        ("6S", "cells", 6.0),
        ("35 %", "ratio", 0.35),
        ("9.8:1", "ratio", 9.8),
        ("9416 g mm²", "inertia", 9.416e-6),
        ("94.16 g·cm^2", "inertia", 9.416e-6),
        ("18 kg*cm^2", "inertia", 1.8e-3),
        ("9 N mm/N", "lever", 0.009),
        ("9 mm", "lever", 0.009),
        ("1.5e-6 N s^2", "thrust coefficient", 1.5e-6),
        ("1.645e-8 N/rpm^2", "thrust coefficient", 1.5e-6),
        ("1e-3", "mass", 1e-3),
        (3, "mass", 3.0),
    ],
)
def test_units_beside_numbers(text, kind, value):
    found = parse(text, kind)
    assert found is not None
    assert found.value == pytest.approx(value, rel=1e-3)
    assert found.uncertainty is None


@pytest.mark.parametrize(
    ("text", "value", "uncertainty"),
    [
        ("650 g ± 5 %", 0.65, 0.05),
        ("650 g +- 20 g", 0.65, 20 / 650),
        ("650 g +/- 0.02 kg", 0.65, 20 / 650),
        ("650 ± 20 g", 0.65, 20 / 650),
        ("0.65 ± 0.02", 0.65, 20 / 650),
        ("0.65±5%", 0.65, 0.05),
    ],
)
def test_uncertainties_beside_numbers_are_relative_half_ranges(text, value, uncertainty):
    assert parse(text, "mass") == (pytest.approx(value), pytest.approx(uncertainty))


@pytest.mark.parametrize(
    "given_",
    ["650 mm", "heavy", "", "g", "1,5 kg", "650 g ± 5 s", "650 g ± 120 %", "1 ± 2 ± 3", "nan", None, True, [1]],
)
def test_what_is_no_such_quantity_is_none(given_):
    assert parse(given_, "mass") is None


def test_lengths_in_one_line_are_a_list():
    assert listed("220 x 180 x 60 mm ± 5 %") == ["220 mm ± 5 %", "180 mm ± 5 %", "60 mm ± 5 %"]
    assert listed("650 g") == "650 g"
    assert listed([1, 2]) == [1, 2]


@given(st.sampled_from([(kind, unit) for kind in KINDS for unit in KINDS[kind]]), st.floats(1e-6, 1e6))
def test_every_unit_is_its_factor(kind_and_unit, number):
    kind, unit = kind_and_unit
    found = parse(f"{number!r} {unit}", kind)
    assert found is not None
    assert found.value == pytest.approx(number * KINDS[kind][unit])


@given(st.text(max_size=20), st.sampled_from(list(KINDS)))
def test_any_text_is_a_finite_number_or_none(text, kind):
    found = parse(text, kind)
    assert found is None or math.isfinite(found.value)
