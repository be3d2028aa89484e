"""Vehicles that are given fly in place of the named and sampled ones, and with each quantity a little off."""

from __future__ import annotations

import dataclasses
import io
import math

import pytest
import torch
from rich.console import Console

from raptor.core.errors import UserError
from raptor.core.plotting import to_png
from raptor.evaluation import GIVEN_SUITES, METRICS, Estimate, Evaluation, evaluate, plots
from raptor.evaluation.evaluator import identity
from raptor.evaluation.suites import MOST_GROUPS, VISIBLE, conditions, names_of
from raptor.quadrotor import PLATFORMS, Quadrotors, from_description, load_platform, load_platforms, sample_quadrotors
from raptor.quadrotor.population import QUANTITIES

CPU = torch.device("cpu")
ENDS = [f"{quantity}-{end}" for quantity in QUANTITIES for end in ("low", "high")]


@pytest.fixture(scope="module")
def mine():
    quadrotor, _ = from_description({"name": "mine", "mass": 0.65, "arm_length": 0.11, "thrust_to_weight": 4.0})
    return dataclasses.replace(quadrotor, documents=None)  # which says how uncertain it is


def given(suite, quadrotors, num_quadrotors=16, episodes=1):
    return conditions(suite, num_quadrotors, episodes, 0, CPU, quadrotors)


def test_a_vehicle_flies_within_its_own_boxes_and_figure_eights_within_two_metres(mine):
    (hovering,) = given("platforms", mine)
    assert hovering.quadrotors.position_threshold.tolist() == pytest.approx([2.2, 2.2])  # 20 arm lengths
    assert hovering.quadrotors.names == ("mine", "mine")
    eights = given("figure-eight", mine)
    assert [condition.name for condition in eights] == ["10s", "6.5s", "5s"]
    assert {x for condition in eights for x in condition.quadrotors.position_threshold.tolist()} == {2.0}


def test_the_named_platforms_are_what_flies_where_nobody_gives_others():
    for suite in ("platforms", "figure-eight"):
        for own, named in zip(given(suite, load_platforms()), conditions(suite, 16, 1, 0, CPU), strict=True):
            assert own.groups == named.groups == PLATFORMS
            assert torch.equal(own.quadrotors.mass, named.quadrotors.mass)
            assert torch.equal(own.begin()[0].state.position, named.begin()[0].state.position)


def test_robustness_impairs_the_given_vehicles(mine):
    found = {condition.name: condition for condition in given("robustness", mine)}
    assert set(found) == {condition.name for condition in conditions("robustness", 8, 1, 0, CPU)}
    weak = found["thrust-0.8"].quadrotors.thrust_to_weight
    torch.testing.assert_close(weak, torch.full((2,), 0.8 * mine.thrust_to_weight.item()))
    assert torch.equal(found["noise"].quadrotors.mass, found["thrust-0.8"].quadrotors.mass)


def test_sensitivity_has_each_quantity_off_at_both_ends_from_the_same_starts(mine):
    plain, *varied = given("sensitivity", mine, 32)
    assert [plain.name, *(condition.name for condition in varied)] == ["as-given", *ENDS]
    mass = {condition.name: condition.quadrotors.mass[0].item() for condition in (plain, *varied)}
    assert [mass[name] for name in ("mass-low", "as-given", "mass-high")] == pytest.approx([0.52, 0.65, 0.78])
    assert mass["thrust-low"] == mass["as-given"]
    starts = [condition.begin()[0].state.position for condition in (plain, *varied)]
    assert all(torch.equal(start, starts[0]) for start in starts)
    assert {condition.task for condition in varied} == {VISIBLE}


def test_sensitivity_goes_by_the_uncertainty_that_a_description_carries(mine):
    document = mine.to_dicts()[0] | {"uncertainty": {"mass": 0.05} | dict.fromkeys([*QUANTITIES][1:-1], 0)}
    known = Quadrotors.from_dicts([document], names=["mine"])
    found = {condition.name: condition.quadrotors for condition in given("sensitivity", known)}
    assert list(found) == ["as-given", "mass-low", "mass-high", "torque_constant-low", "torque_constant-high"]
    assert found["mass-high"].mass[0].item() == pytest.approx(1.05 * 0.65)


def test_a_few_vehicles_have_figures_of_their_own_and_many_only_in_common(mine):
    assert given("platforms", mine)[0].groups == ()
    assert given("platforms", Quadrotors.concatenate([mine, load_platform("race")]))[0].groups == ("mine", "race")
    (many,) = given("platforms", sample_quadrotors(MOST_GROUPS + 1, seed=0), num_quadrotors=40)
    assert (many.groups, many.episodes, len(many.quadrotors)) == ((), 2, 2 * (MOST_GROUPS + 1))


def test_names_in_results_are_told_apart_and_hold_no_slash():
    vehicles = load_platforms()[:3]
    assert names_of(dataclasses.replace(vehicles, names=("a/b", "c", "c"))) == ("a-b", "c (2)", "c (3)")
    assert names_of(dataclasses.replace(vehicles, names=None)) == ("0", "1", "2")


@pytest.mark.parametrize(
    ("suite", "own", "message"),
    [
        ("paper", True, "the suite paper samples vehicles of its own.*choose from platforms, figure-eight"),
        ("unseen", True, "the suite unseen samples"),
        ("sensitivity", False, "the suite sensitivity is of given vehicles: give some with --quadrotor"),
        ("sensible", True, "no suite 'sensible'"),
    ],
)
def test_suites_that_make_no_sense_are_refused(mine, suite, own, message):
    with pytest.raises(UserError, match=message):
        given(suite, mine if own else None)


@pytest.fixture(scope="module")
def evaluation(mine, published):
    pair = Quadrotors.concatenate([mine, load_platform("mrs")])
    suites = ["platforms", "sensitivity"]
    return evaluate({"published": published}, suites, num_quadrotors=8, compile=False, quadrotors=pair)


def test_results_name_the_vehicles_and_what_they_were(evaluation, mine):
    settings = evaluation.settings
    assert [vehicle["name"] for vehicle in settings["quadrotors"]] == ["mine", "mrs"]
    fingerprints = [vehicle["fingerprint"] for vehicle in settings["quadrotors"]]
    twice = identity(mine.to(dtype=torch.float64).repeat_interleave(2))["quadrotors"]
    assert [vehicle["fingerprint"] for vehicle in twice] == [fingerprints[0]] * 2
    assert fingerprints[0] != fingerprints[1]
    assert settings["uncertainty"]["mass"] == [0.2, 0.2]
    keys = set(evaluation.policies["published"]["platforms"])
    assert keys == {*METRICS, *(f"{name}/{metric}" for name in ("mine", "mrs") for metric in METRICS)}


def test_all_suites_that_given_vehicles_can_fly_are_the_default(mine, published):
    with pytest.raises(UserError, match=f"suites must be some of {', '.join(GIVEN_SUITES)}, got"):
        evaluate({"published": published}, [], quadrotors=mine)


def printed(table):
    console = Console(file=io.StringIO(), width=120)
    console.print(table)
    return console.file.getvalue()


def test_tables_name_the_vehicles_and_say_how_far_off_each_quantity_is(evaluation):
    text = printed(evaluation.table())
    assert "platforms: mine, mrs, hovering" in text
    assert "mrs return" in text
    rows = printed(evaluation.sensitivity_table()).splitlines()
    found = evaluation.policies["published"]["sensitivity"]
    (row,) = (row for row in rows if "motor time constant +20 %" in row)
    assert f"{found['motor_time_constant-high/return'].value:.1f}" in row
    assert f"{100 * found['motor_time_constant-high/terminated'].value:.2f}" in row
    assert sum("%" in row for row in rows) == len(ENDS) + 2  # heading and caption


def made_up(uncertainty):
    """Sensitivity of one policy that minds the mass, in invented numbers."""
    values = {"as-given": 700.0, **dict.fromkeys(ENDS, 690.0), "mass-low": 400.0}
    metrics = {f"{name}/{metric}": value for name, value in values.items() for metric in METRICS}
    figures = {key: Estimate(value, value - 5, value + 5) for key, value in metrics.items()}
    settings = {"quadrotors": [{"name": "a"}, {"name": "b"}], "uncertainty": uncertainty}
    return Evaluation({"it": {"sensitivity": figures}}, settings)


def test_what_is_worse_than_as_given_is_red():
    table = made_up({quantity: [0.2, 0.2] for quantity in QUANTITIES}).sensitivity_table()
    styles = dict(zip(table.columns[0].cells, (cell.style for cell in table.columns[1].cells), strict=True))
    assert (styles["as given"], styles["mass -20 %"], styles["mass +20 %"]) == ("", "red", "")


def test_uncertainties_that_differ_are_a_range_and_those_of_nothing_are_left_out():
    found = made_up({"mass": [0.05, 0.2], "thrust": [0.0, 0.0], "inertia": [0.1, 0.1]})
    assert found.uncertain == {"mass": "5..20 %", "inertia": "10 %"}


def test_the_picture_of_sensitivity_has_both_ends_of_each_quantity():
    figure = plots.sensitivity(made_up({quantity: [0.2, 0.2] for quantity in QUANTITIES}))
    returns, rmse, lost = figure.axes
    assert returns.get_yticklabels()[0].get_text() == "mass ±20 %"
    marks = {line.get_marker(): line.get_xdata()[0] for line in returns.lines if line.get_marker() in "<>"}
    assert marks == {"<": 400.0, ">": 690.0}
    assert all(axis.get_xlim()[0] <= 0 for axis in (rmse, lost))
    assert 300 < returns.get_xlim()[0] < 400  # drawn as large as the differences are
    with pytest.raises(UserError, match="nothing about these vehicles is uncertain"):
        plots.sensitivity(made_up({"mass": [0.0, 0.0]}))


def test_a_policy_that_loses_every_vehicle_has_no_position_error_in_the_picture():
    found = made_up({quantity: [0.2, 0.2] for quantity in QUANTITIES})
    figures = found.policies["it"]["sensitivity"]
    figures |= {key: Estimate(*[math.nan] * 3) for key in figures if key.endswith("position_rmse")}
    assert to_png(plots.sensitivity(found)).startswith(b"\x89PNG")
