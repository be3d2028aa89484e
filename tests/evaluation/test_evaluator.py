"""From policies and suites to figures with intervals, and to the file and table that hold them."""

from __future__ import annotations

import dataclasses
import io
import itertools
import json
import math

import pytest
import torch
from rich.console import Console

from raptor.core.errors import UserError
from raptor.environments.rollout import BLOCK_STEPS
from raptor.evaluation import METRICS, SUITES, Estimate, Evaluation, evaluate
from raptor.evaluation.evaluator import _batches
from raptor.evaluation.results import better, cell
from raptor.evaluation.suites import IMPAIRMENTS, THRUST_FACTORS, conditions
from raptor.nn import RaptorPolicy
from raptor.quadrotor import PLATFORMS

CONDITIONS = (*IMPAIRMENTS, *THRUST_FACTORS)


@pytest.fixture(scope="module")
def progress():
    return []


@pytest.fixture(scope="module")
def evaluation(published, progress):
    """The published policy beside one that keeps the motors off."""

    class Off:
        def initial_hidden_state(self, *shape):
            return torch.zeros(*shape, 1)

        def __call__(self, observation, hidden):
            return -torch.ones(len(observation), 4), hidden

    return evaluate(
        {"published": published, "off": Off()},
        ["unseen", "platforms", "robustness"],
        num_quadrotors=8,
        episodes=2,
        seed=3,
        progress=lambda *what: progress.append(what),
        compile=False,
    )


def shown(evaluation, **options):
    console = Console(file=io.StringIO(), width=120)
    console.print(evaluation.table(**options))
    return console.file.getvalue()


def test_every_suite_has_its_metrics_as_a_whole_and_for_each_of_its_parts(evaluation):
    suites = evaluation.policies["published"]
    assert set(suites["unseen"]) == set(METRICS)
    assert set(suites["platforms"]) == {*METRICS, *(f"{name}/{m}" for name in PLATFORMS for m in METRICS)}
    assert set(suites["robustness"]) == {*METRICS, *(f"{name}/{m}" for name in CONDITIONS for m in METRICS)}


def test_the_json_layout_is_policies_by_suite_by_metric_beside_the_settings(evaluation):
    document = json.loads(json.dumps(evaluation.to_dict(), allow_nan=False))
    assert set(document) == {"policies", "settings"}
    assert list(document["policies"]) == ["published", "off"]
    leaves = [leaf for suites in document["policies"].values() for suite in suites.values() for leaf in suite.values()]
    assert all(set(leaf) == {"value", "low", "high"} for leaf in leaves)
    numbers = [leaf for leaf in leaves if None not in leaf.values()]
    assert all(leaf["low"] - 1e-9 <= leaf["value"] <= leaf["high"] + 1e-9 for leaf in numbers)
    settings = document["settings"]
    assert (settings["num_quadrotors"], settings["episodes"], settings["seed"]) == (8, 2, 3)
    assert settings["suites"] == ["unseen", "platforms", "robustness"]


def test_a_policy_that_flies_differs_from_one_that_does_not(evaluation):
    flying, off = (evaluation.policies[name]["platforms"] for name in ("published", "off"))
    assert flying["x500_real/return"].value == pytest.approx(699, rel=0.03)
    assert flying["x500_real/terminated"].value == 0
    assert off["terminated"] == Estimate(1.0, 1.0, 1.0)
    assert off["return"].value < -60
    assert off["length"].value < 60


def test_where_nobody_survives_there_is_no_position_error(evaluation):
    assert all(map(math.isnan, evaluation.policies["off"]["unseen"]["position_rmse"]))
    assert evaluation.to_dict()["policies"]["off"]["unseen"]["steady_offset"]["value"] is None


def test_the_whole_is_the_mean_of_its_parts(evaluation):
    suites = evaluation.policies["published"]
    for suite, parts in (("platforms", PLATFORMS), ("robustness", CONDITIONS)):
        for metric in ("return", "terminated", "length"):
            mean = sum(suites[suite][f"{part}/{metric}"].value for part in parts) / len(parts)
            assert suites[suite][metric].value == pytest.approx(mean)


def test_lateness_costs(evaluation):
    found = evaluation.policies["published"]["robustness"]
    returns = [found[f"{late}/return"].value for late in ("10ms-late", "20ms-late", "30ms-late")]
    assert evaluation.policies["published"]["unseen"]["return"].value > returns[0] > returns[2]


def test_progress_names_what_is_flown_and_reaches_its_end(evaluation, progress):
    done = [step for _, step, _ in progress]
    assert done == sorted(done)
    assert done[-1] == progress[-1][2] > 0
    assert done == sorted(done)
    assert max(after - before for before, after in itertools.pairwise(done)) <= BLOCK_STEPS
    assert any("off: robustness" in what for what, _, _ in progress)


def test_the_same_seed_gives_the_same_figures(evaluation, published):
    again = evaluate({"again": published}, ["unseen"], num_quadrotors=8, episodes=2, seed=3, compile=False)
    assert again.policies["again"]["unseen"] == evaluation.policies["published"]["unseen"]


def test_a_policy_is_shown_the_components_of_its_layout(monkeypatch):
    monkeypatch.setattr("raptor.evaluation.evaluator.conditions", briefly)
    names = ("position_error", "rotation", "linear_velocity", "angular_velocity", "previous_action")
    torch.manual_seed(0)
    same, turned = RaptorPolicy(), RaptorPolicy()
    order = (*names[::-1], "position_error@-1")
    turned.layout, turned.observation_dim = {"observation": list(order)}, 25
    columns = [torch.arange(22)[part] for part in (slice(3), slice(3, 12), slice(12, 15), slice(15, 18), slice(18, 22))]
    with torch.no_grad():
        turned.load_state_dict(same.state_dict())
        weight = same.input_layer.weight[:, torch.cat(columns[::-1])]
        turned.input_layer = torch.nn.Linear(25, 16)
        turned.input_layer.weight.copy_(torch.cat([weight, torch.zeros(16, 3)], -1))
        turned.input_layer.bias.copy_(same.input_layer.bias)
    found = evaluate({"same": same, "turned": turned}, ["unseen"], num_quadrotors=4, compile=False).policies
    for metric in ("return", "length"):
        ours, theirs = (found[name]["unseen"][metric].value for name in ("same", "turned"))
        assert ours == pytest.approx(theirs, rel=1e-4)


def briefly(*given):
    return [dataclasses.replace(condition, num_steps=20) for condition in conditions(*given)]


def test_conditions_share_a_flight_while_there_is_room():
    group = conditions("robustness", 8, 1, 0, torch.device("cpu"))
    assert [len(batch) for batch in _batches(group, pad_to=24)] == [3, 3, 3]
    assert [len(batch) for batch in _batches(group, pad_to=4)] == [1] * 9


def odd():
    policy = RaptorPolicy()
    policy.layout = {"observation": ["position_error"]}
    return policy


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (({},), "no policy to evaluate"),
        (({"p": RaptorPolicy()}, ["unseen", "seen"]), "no suite 'seen'"),
        (({"p": RaptorPolicy()}, "unseen"), "suites must be some of paper"),
        (({"wide": RaptorPolicy(observation_dim=26)},), "policy 'wide' maps 26 numbers to 4.*must map 22 to 4"),
        (({"odd": odd()},), "policy 'odd' maps 22 numbers to 4.*must map 3 to 4"),
        (({"p": RaptorPolicy()}, SUITES, 8, 1, 0, "abacus"), "device"),
    ],
)
def test_what_cannot_be_evaluated_is_refused_before_anything_flies(arguments, message):
    with pytest.raises(UserError, match=message):
        evaluate(*arguments, compile=False)


def test_a_file_is_written_whole_or_not_at_all(evaluation, tmp_path):
    file = evaluation.save(tmp_path / "results" / "evaluation.json")
    assert json.loads(file.read_text()) == evaluation.to_dict()
    before = file.read_text()
    broken = Evaluation(evaluation.policies, {"not": {1, 2}})
    with pytest.raises(TypeError):
        broken.save(file)
    assert file.read_text() == before
    assert [path.name for path in file.parent.iterdir()] == ["evaluation.json"]
    with pytest.raises(UserError, match="cannot write"):
        evaluation.save(tmp_path)


def test_the_table_shows_every_policy_suite_and_platform(evaluation):
    text = shown(evaluation)
    for expected in ("published", "off", "unseen", "platforms", "robustness", *PLATFORMS, *CONDITIONS):
        assert expected in text
    for figure in ("mrs position RMSE (m)", "mrs action change per step", "noise action change per step"):
        assert figure in text
    value = evaluation.policies["published"]["unseen"]["return"]
    assert f"{value.value:.1f} [{value.low:.1f}, {value.high:.1f}]" in text
    assert "–" in text  # the position error of nobody
    brief = shown(evaluation, details=False)
    assert "crazyflie" not in brief
    assert "unseen" in brief


def test_better_is_what_beats_the_first_policy_beyond_both_intervals():
    first = Estimate(5.0, 4.0, 6.0)
    assert better(Estimate(7.0, 6.5, 8.0), first, "return")
    assert not better(Estimate(7.0, 5.5, 8.0), first, "return")
    assert better(Estimate(3.0, 2.0, 3.9), first, "position_rmse")
    assert not better(Estimate(7.0, 6.5, 8.0), first, "position_rmse")
    assert not better(Estimate(*[math.nan] * 3), first, "return")
    assert not better(None, first, "return")


def test_shares_are_shown_in_percent_and_distances_in_metres():
    assert cell(Estimate(0.0423, 0.035, 0.05), "terminated") == "4.23 [3.50, 5.00]"
    assert cell(Estimate(0.0423, 0.035, 0.05), "position_rmse") == "0.042 [0.035, 0.050]"
    assert cell(None, "return") == "–"


def test_a_better_policy_is_green_in_the_table():
    policies = {
        "first": {"unseen": {"return": Estimate(1.0, 0.9, 1.1)}},
        "second": {"unseen": {"return": Estimate(2.0, 1.9, 2.1)}},
    }
    table = Evaluation(policies, {}).table()
    styles = [list(column.cells)[-1].style for column in table.columns[1:]]
    assert styles == ["", "green"]
