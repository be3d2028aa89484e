"""`raptor evaluate`: columns, suites and what it refuses."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from rich.console import Console

from raptor.cli import policies
from raptor.evaluation import METRICS, Estimate, Evaluation, evaluate
from raptor.formats import load_policy, save_policy
from raptor.nn import RaptorPolicy
from raptor.tasks.components import DEFAULT

Run = Callable[..., str]
QUICK = ("--suite", "unseen", "--num-quadrotors", "2", "--no-compile")


@pytest.fixture
def policy_file(tmp_path: Path) -> Path:
    path = tmp_path / "mine.pt"
    published = load_policy("published")
    assert isinstance(published, RaptorPolicy)
    with torch.no_grad():
        published.output_layer.bias.add_(0.1)
    save_policy(published, path, {"what": "a policy of this test"})
    return path


def test_a_table_and_a_file_with_the_published_policy_beside(raptor: Run, policy_file: Path, tmp_path: Path) -> None:
    text = raptor("evaluate", policy_file, *QUICK, "--json", tmp_path / "out.json")
    header = next(line for line in text.splitlines() if "published" in line)
    assert header.index("published") < header.index("mine.pt")
    assert f"wrote {tmp_path / 'out.json'}" in text
    document = json.loads((tmp_path / "out.json").read_text())
    assert list(document["policies"]) == ["published", "mine.pt"]
    for suites in document["policies"].values():
        assert list(suites) == ["unseen"]
        assert set(METRICS) <= set(suites["unseen"])
    assert document["policies"]["published"] != document["policies"]["mine.pt"]
    assert document["settings"]["num_quadrotors"] == 2


def test_a_policy_that_looks_ahead_is_shown_the_present_if_one_says_so(
    raptor: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = []

    def look(columns: dict[str, RaptorPolicy], *given: object, **more: object) -> Evaluation:
        shown.append(columns["ahead.pt"].layout["observation"])
        return evaluate(columns, *given, **more)

    monkeypatch.setattr("raptor.evaluation.evaluate", look)
    policy = RaptorPolicy(observation_dim=25)
    policy.layout = {"observation": [*DEFAULT, "position_error@+60"]}
    save_policy(policy, tmp_path / "ahead.pt", {"what": "a policy of this test"})
    for option in ("--preview", "--no-preview"):
        raptor("evaluate", tmp_path / "ahead.pt", *QUICK, option)
    assert shown == [[*DEFAULT, "position_error@+60"], [*(f"{name}@0" for name in DEFAULT), "position_error@0"]]


def test_few_steps_are_flown_without_compiling(raptor: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cache"))
    raptor("evaluate", "published", *QUICK[:-1], "--json", tmp_path / "out.json")
    assert json.loads((tmp_path / "out.json").read_text())["settings"]["compiled"] is False
    assert not (tmp_path / "cache").exists()


def test_the_published_policy_can_be_left_out_and_is_never_there_twice(raptor: Run, policy_file: Path) -> None:
    assert "published" not in raptor("evaluate", policy_file, *QUICK, "--no-published")
    header = next(line for line in raptor("evaluate", "published", *QUICK).splitlines() if "published" in line)
    assert header.count("published") == 1


def test_policies_of_one_name_are_told_apart_by_their_paths(tmp_path: Path, policy_file: Path) -> None:
    from raptor.evaluation.results import column_names

    other = tmp_path / "other" / "mine.pt"
    other.parent.mkdir()
    other.write_bytes(policy_file.read_bytes())
    three = [str(policy_file), str(other), "published"]
    assert list(column_names(three).values()) == three
    assert list(column_names([str(policy_file), "published", "published"]).values()) == ["mine.pt", "published"]


def test_a_vehicle_of_ones_own_is_flown_with_a_table_and_a_picture_of_its_sensitivity(
    raptor: Run, tmp_path: Path
) -> None:
    description = tmp_path / "mine.yaml"
    description.write_text("name: mine\nmass: 0.65 ± 10 %\n", encoding="utf-8")
    flags = ("-q", description, "-q", "race", "-s", "sensitivity", "--num-quadrotors", 1, "--no-compile")
    text = raptor("evaluate", "published", *flags, "--plot", tmp_path / "out.png", "--json", tmp_path / "out.json")
    assert "sensitivity: mine, race, one quantity off at a time" in text
    assert "mass -10..20 %" in text
    assert (tmp_path / "out.png").read_bytes().startswith(b"\x89PNG")
    settings = json.loads((tmp_path / "out.json").read_text())["settings"]
    assert [vehicle["name"] for vehicle in settings["quadrotors"]] == ["mine", "race"]


def test_a_trajectory_by_name_takes_settings(raptor: Run, policy_file: Path, tmp_path: Path) -> None:
    settings = ["task.extra.circle.radius=0.5", "task.references.trajectory.duration=0.05"]
    size = ["--num-quadrotors", "1", "--no-compile", "--no-published", "-q", "race", "-s", "reference"]
    for name, scale in (("small", 0.1), ("large", 100)):
        given = [policy_file, "--reference", "circle", *settings, f"task.references.trajectory.scale={scale}"]
        raptor("evaluate", *given, *size, "--json", tmp_path / name)
    small, large = (Evaluation.load(tmp_path / name) for name in ("small", "large"))
    assert large.settings["trajectory"]["scale"] == 100
    assert large.settings["extra"] == {"circle": {"radius": 0.5, "period": 6.0, "facing": False}}
    (errors,) = ([e.policies[n]["reference"]["position_rmse"].value for e in (small, large)] for n in small.policies)
    assert errors[1] > 10 * errors[0]


@pytest.mark.parametrize("width", [80, 120, 160])
def test_tables_have_room_for_every_label_and_figure(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    figures = {metric: Estimate(123.456, 123.0, 124.0) for metric in METRICS}
    conditions = ("as-given", "mass-low", "mass-high")
    ends = {f"{condition}/{metric}": each for condition in conditions for metric, each in figures.items()}
    late = {f"motors-20ms-late/{metric}": each for metric, each in figures.items()}
    suites = {"robustness": {**figures, **late}, "sensitivity": ends}
    settings = {"quadrotors": [{"name": "a"}], "uncertainty": {"mass": [0.2]}}
    names = ["published", "default", "large", "agile", "a_policy_with_a_name"]
    file = io.StringIO()
    monkeypatch.setattr(policies, "wide_console", lambda: Console(file=file, width=width))
    policies.show_tables(Evaluation(dict.fromkeys(names, suites), settings))
    text = file.getvalue()
    assert "…" not in text
    rows = [line for line in text.splitlines() if "motors-20ms-late return" in line]
    assert sum(line.count("123.5 [123.0, 124.0]") for line in rows) >= len(names)
    ends_of_mass = [line for line in text.splitlines() if "mass +20 %" in line]
    assert sum(line.count("12345.60") for line in ends_of_mass) == len(names)
    for name in names:
        assert name in text


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["nothing.pt"], "there is no policy 'nothing.pt'"),
        (["publised"], "there is no policy 'publised', did you mean 'published'?"),
        (["published", "--suite", "unsen"], "unsen"),
        (["published", "--device", "cuda:99"], "device 'cuda:99' is not there"),
        (["published", "--num-quadrotors", "0"], "'--num-quadrotors'"),
        (["published", "--episodes", "-1"], "'--episodes'"),
        (["published", "--json", "no/such/folder/out.json"], "no/such/folder/out.json cannot be written"),
        (["published", "-q", "nimbus"], "there is no quadrotor 'nimbus'"),
        (["published", "-q", "race", "-s", "paper"], "the suite paper samples vehicles of its own"),
        (["published", "-s", "sensitivity"], "the suite sensitivity is of given vehicles"),
        (["published", "--plot", "out.png"], "--plot draws the suite sensitivity: give --quadrotor, or --reference"),
        (["published", "-q", "race", "-s", "platforms", "--plot", "out.png"], "--plot draws the suite sensitivity"),
        (["published", "task.extra.circle.radius=2"], "task.extra.circle is of a trajectory: give --reference circle"),
        (["published", "task.dt=0.02"], "suites have tasks of their own, of which you set task.extra."),
        (["published", "--reference", "circle", "task.references.trajectory.sped=2"], "did you mean speed?"),
        ([], "Missing argument 'POLICY'"),
    ],
)
def test_a_mistake_is_one_sentence(refused: Run, arguments: list[str], sentence: str) -> None:
    assert sentence in refused("evaluate", *arguments)


def test_a_damaged_policy_or_one_of_other_dimensions_is_refused_and_an_older_result_stays(
    refused: Run, policy_file: Path, tmp_path: Path
) -> None:
    result = tmp_path / "out.json"
    result.write_text("precious")
    damaged, other = tmp_path / "damaged.pt", tmp_path / "other.pt"
    damaged.write_bytes(policy_file.read_bytes()[:2000])
    save_policy(RaptorPolicy(observation_dim=26), other, {})
    assert str(damaged) in refused("evaluate", damaged, *QUICK, "--json", result)
    assert "26" in refused("evaluate", other, *QUICK, "--json", result)
    assert result.read_text() == "precious"
