"""Pictures show what was flown; the report needs nothing but itself."""

from __future__ import annotations

import base64
import html.parser
import math
import re

import pytest
import torch

from raptor.core.errors import UserError
from raptor.core.plotting import to_png
from raptor.environments.collectors import Recording
from raptor.evaluation import METRICS, Estimate, Evaluation, plots
from raptor.evaluation.plots import record_figure_eights, record_recovery
from raptor.evaluation.report import write_report
from raptor.quadrotor import PLATFORMS

CURVE = {
    "training/loss": [(0, 2.0), (10, 1.0)],
    "validation/return": [(0, -50.0), (10, 600.0)],
    "speed/updates_per_s": [(0, 1.0)],
}


def made_up(offset):
    """An evaluation result of one policy, all numbers invented."""

    def figures(*parts):
        keys = [*METRICS, *(f"{part}/{metric}" for part in parts for metric in METRICS)]
        return {key: Estimate(offset, offset - 0.01, offset + 0.01) for key in keys}

    eights = [f"{speed}/{name}" for speed in ("10s", "5s") for name in PLATFORMS]
    return {"unseen": figures(), "platforms": figures(*PLATFORMS), "figure-eight": figures("10s", "5s", *eights)}


@pytest.fixture
def evaluation():
    settings = {"figure_eight_intervals_s": [10.0, 5.0], "num_quadrotors": 77, "device": "cpu"}
    return Evaluation({"published": made_up(0.5), "<mine>": made_up(0.75)}, settings)


@pytest.fixture
def write(tmp_path, evaluation):
    def write(**changes):
        arguments = {
            "title": "Fly & see",
            "settings": {"num_updates": 123, "task": {"dt": 0.01}},
            "curve": CURVE,
            "evaluation": evaluation,
            "policies": {},
            "seed": 0,
            "compile": False,
        }
        return write_report(tmp_path / "report.html", **{**arguments, **changes})

    return write


class Page(html.parser.HTMLParser):
    """What a browser would see: text, images, and everything that it would fetch."""

    def __init__(self, path):
        super().__init__()
        self.text, self.images, self.fetched, self.open = "", {}, [], []
        self.feed(path.read_text(encoding="utf-8"))
        self.close()

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        if tag == "img":
            self.images[attributes["alt"]] = attributes["src"]
        self.fetched += [v for k, v in attributes.items() if k in ("src", "href", "srcset", "data") and v]
        if tag not in ("meta", "img", "br", "link"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def recorded(positions, tilts):
    """A made-up recording: positions (T, N, 3) about a target at the origin, tilts (T, N) rad."""
    position, tilt = torch.tensor(positions), torch.tensor(tilts)
    zero = torch.zeros_like(tilt)
    orientation = torch.stack([(tilt / 2).cos(), (tilt / 2).sin(), zero, zero], dim=-1)
    return Recording(position, orientation, zero, torch.zeros_like(position), tilt == tilt, dt=0.01)


def test_the_report_needs_no_other_file_and_no_network(write):
    path = write()
    page, text = Page(path), path.read_text(encoding="utf-8")
    assert page.open == []
    assert page.fetched
    assert all(source.startswith("data:image/png;base64,") for source in page.fetched)
    assert not re.search(r"https?:|file:|@import|url\(|<script|<link", re.sub(r"base64,[A-Za-z0-9+/=]+", "", text))


def test_the_report_holds_settings_results_curve_and_bars(write):
    page = Page(write())
    assert "Fly & see" in page.text
    assert "num_updates" in page.text
    assert "123" in page.text
    assert "task.dt" in page.text
    assert "0.8 [0.7, 0.8]" in page.text
    assert list(page.images) == ["Learning curve", "Platform by platform"]
    for source in page.images.values():
        assert base64.b64decode(source.partition(",")[2]).startswith(b"\x89PNG")


def test_the_curve_of_a_distillation_is_that_of_vehicles_without_a_teacher(write, monkeypatch):
    draw, drawn = plots.learning_curve, []
    monkeypatch.setattr(plots, "learning_curve", lambda *given: drawn.append(draw(*given)) or drawn[-1])
    points = [(10, 100.0), (20, 600.0)]
    names = ("training/loss", "evaluation/termination_rate", "evaluation/mean_return", "data_collection/mean_return")
    page = Page(write(curve=dict.fromkeys(names, points)))
    returns, terminated, loss = drawn[0].axes
    assert [axis.get_title() for axis in drawn[0].axes] == [
        "evaluation mean return",
        "evaluation termination rate",
        "training loss",
    ]
    assert returns.lines[0].get_xydata().tolist() == [[10, 100], [20, 600]]
    assert returns.lines[1].get_ydata()[0] == terminated.lines[1].get_ydata()[0] == 0.5
    assert {axis.get_xlabel() for axis in drawn[0].axes} == {"epoch"}
    assert "Dashed: published on the suite unseen, which has none." in page.text
    assert len(loss.lines) == 1


def test_nothing_is_said_of_vehicles_and_levels_that_a_curve_does_not_show(write):
    page = Page(write(curve={"training/loss": CURVE["training/loss"]}))
    assert "Learning curve" in page.images
    assert "Dashed" not in page.text
    assert "training does not fly" not in page.text


def test_names_cannot_smuggle_markup_into_the_report(write):
    path = write(title="<b>bold</b>")
    assert "<mine>" not in path.read_text(encoding="utf-8")
    page = Page(path)
    assert "<mine>" in page.text
    assert "<b>bold</b>" in page.text


def test_a_report_without_training_has_no_learning_curve(write):
    page = Page(write(curve={}, settings={}))
    assert list(page.images) == ["Platform by platform"]


def test_a_report_that_cannot_be_written_is_an_error_and_leaves_the_old_one(write, tmp_path):
    before = write().read_bytes()
    with pytest.raises(ZeroDivisionError):
        write(policies={"broken": None}, progress=lambda *_: 1 / 0)
    assert (tmp_path / "report.html").read_bytes() == before
    with pytest.raises(UserError, match="cannot write"):
        write_report(tmp_path, title="", settings={}, curve={}, evaluation=Evaluation({}, {}), policies={}, seed=0)


def test_rollouts_are_recorded_for_the_report(write, published):
    reported = []
    brief = Evaluation({"published": {}}, {"figure_eight_intervals_s": [0.2, 0.1]})
    policies = {"published": published}
    page = Page(write(evaluation=brief, policies=policies, progress=lambda *what: reported.append(what)))
    assert list(page.images)[1:] == ["Figure eights", "Recovery from tilted starts"]
    assert [done for _, done, _ in reported] == [0, 1, 2]
    assert reported[-1][2] == 2
    assert "tilted by 90°" in page.text


def test_figure_eights_are_recorded_through_the_ramp_and_one_figure(constant):
    recordings = record_figure_eights(constant(0), intervals=(0.2, 0.1), compile=False)
    assert {interval: r.position.shape for interval, r in recordings.items()} == {
        0.2: (321, 9, 3),
        0.1: (311, 9, 3),
    }
    assert recordings[0.2].target.abs().amax((0, 1)).tolist() == pytest.approx([0.5, 1.0, 0.0], abs=0.1)


def test_recoveries_start_at_rest_at_the_target_and_tilted_by_a_right_angle(published):
    recording = record_recovery(published, num=12, compile=False)
    assert not recording.position[0].any()
    assert not recording.linear_velocity[0].any()
    torch.testing.assert_close(recording.tilt[0], torch.full((12,), math.pi / 2))
    azimuth = torch.atan2(recording.orientation[0, :, 2], recording.orientation[0, :, 1])
    assert azimuth.std() > 0.5
    assert plots.num_recovered(recording) >= 9


def test_recovered_is_who_stays_near_and_level_to_the_end():
    near, far = [[0.1, 0.0, 0.0]] * 60, [[0.0, 0.0, -0.6]] * 60
    leaving = near[:59] + far[:1]
    positions = [list(step) for step in zip(near, far, leaving, near, strict=True)]
    tilts = [[0.1, 0.1, 0.1, 0.1]] * 30 + [[0.1, 0.1, 0.1, 0.8]] * 30
    assert plots.num_recovered(recorded(positions, tilts)) == 1


def test_pictures_of_recovery_have_a_column_for_each_policy():
    recording = recorded([[[0.1, 0.0, 0.0]] * 3] * 60, [[0.1] * 3] * 60)
    figure = plots.recovery({"one": recording, "two": recording})
    assert len(figure.axes) == 4
    assert figure.axes[1].get_title() == "two: 3 of 3 recover"
    assert len(figure.axes[0].lines) == 3 + 1  # and their median
    assert to_png(figure).startswith(b"\x89PNG")


def test_pictures_of_figure_eights_say_how_far_off_each_policy_was(constant):
    recordings = record_figure_eights(constant(0), intervals=(0.1,), compile=False)
    figure = plots.figure_eights({"one": recordings, "two": recordings}, shown=("mrs", "soft"))
    assert [axis.get_title() for axis in figure.axes] == ["mrs", "soft"]
    assert all(len(axis.lines) == 3 for axis in figure.axes)
    assert {text.get_text() for axis in figure.axes for text in axis.texts} == {"lost"}
    small = {0.1: recordings[0.1][:, :]}
    small[0.1].position.copy_(small[0.1].target + torch.tensor([0.03, 0.0, 0.04]))
    figure = plots.figure_eights({"one": small}, shown=("mrs",))
    assert figure.axes[0].texts[0].get_text() == "5.0 cm"


def test_bars_are_as_long_as_the_figures(evaluation):
    figure = plots.platform_bars(evaluation)
    returns, hover, change, slow, fast = figure.axes
    assert [bar.get_width() for bar in returns.patches] == [0.5] * 9 + [0.75] * 9
    assert [bar.get_width() for bar in slow.patches] == [50.0] * 9 + [75.0] * 9
    assert [bar.get_width() for bar in hover.patches] == [50.0] * 9 + [75.0] * 9
    assert [bar.get_width() for bar in change.patches] == [500.0] * 9 + [750.0] * 9
    assert fast.get_title() == "RMSE (cm), 5 s figure eight"
    assert [label.get_text() for label in returns.get_yticklabels()] == list(PLATFORMS)


def test_figures_that_an_evaluation_lacks_have_no_bars(evaluation):
    for suites in evaluation.policies.values():
        suites["platforms"] = {k: v for k, v in suites["platforms"].items() if not k.endswith("action_change")}
    titles = [axis.get_title() for axis in plots.platform_bars(evaluation).axes]
    assert titles[:2] == ["return (at most 750)", "RMSE (cm), hovering"]
    assert not any("action change" in title for title in titles)


def test_learning_curves_show_the_level_to_beat():
    figure = plots.learning_curve(
        {"validation/return": CURVE["validation/return"]}, {"validation/return": {"it": 500.0}}
    )
    (axis,) = figure.axes
    assert axis.lines[0].get_xydata().tolist() == [[0, -50], [10, 600]]
    assert axis.lines[1].get_ydata()[0] == 500
    assert axis.texts[0].get_text() == "it"


def test_learning_curves_are_not_cut_above_zero():
    figure = plots.learning_curve({"training/loss": [(1, 8.0), (2, 6.0)], "evaluation/mean_return": [(1, -50.0)]})
    loss, returns = figure.axes
    assert loss.get_ylim()[0] == 0
    assert returns.get_ylim()[0] < -50
