"""The documentation is true: links lead somewhere, code runs, commands and settings exist, tables match the code."""

from __future__ import annotations

import dataclasses
import importlib.util
import re
import shlex
from pathlib import Path

import pytest
import typer
import yaml

from raptor.cli.app import app
from raptor.config import load_config, presets
from raptor.quadrotor import Distribution, load_platforms
from raptor.tasks import Task, components, terms
from raptor.tasks.terms import terms_of_kind
from raptor.tasks.views import DisturbanceView, ObservationView, StepView, Wrench
from raptor.training.direct.config import TRAINING_TASK
from raptor.training.direct.job import TrainDirectConfig
from raptor.training.distillation.config import PostTrainConfig
from raptor.training.teachers.config import PreTrainConfig

ROOT = Path(__file__).parents[1]
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")])
COMMANDS = typer.main.get_command(app).commands
OPTIONAL = {"stable_baselines3": "stable_baselines3", "raptor/L2F-v0": "l2f", "interop.mujoco": "mujoco"}
SETTINGS = {
    "train-direct": TrainDirectConfig,
    "quickstart": TrainDirectConfig,
    "pre-train": PreTrainConfig,
    "post-train": PostTrainConfig,
}
LIGHT = ("platforms", "sample", "describe", "card")


def name(page):
    return str(page.relative_to(ROOT))


def fenced(page, language):
    """The fenced blocks of a page in a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


def prose(page):
    return re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)


def anchors(page):
    """Anchors of a page's headings, as MkDocs makes them."""
    headings = re.findall(r"^#+ (.*)$", prose(page), re.MULTILINE)
    words = (re.sub(r"[^\w\s-]", "", heading).strip().lower() for heading in headings)
    return {re.sub(r"[-\s]+", "-", text) for text in words}


def shell_commands(page):
    lines = "".join(fenced(page, "bash")).replace("\\\n", " ").splitlines()
    return [shlex.split(line, comments=True) for line in lines if line.strip() and not line.startswith("#")]


PYTHON_PAGES = [page for page in PAGES if fenced(page, "python")]
RAPTOR_COMMANDS = sorted({tuple(words) for page in PAGES for words in shell_commands(page) if words[0] == "raptor"})


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if "://" in target or target.startswith("mailto:"):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), f"{name(page)} links to {target}, which is not there"
        if anchor:
            assert anchor in anchors(file), f"{name(page)} links to {target}, whose heading is not there"


def test_the_site_shows_every_page_once():
    def files(entry):
        if isinstance(entry, str):
            return [entry]
        return [file for inner in (entry.values() if isinstance(entry, dict) else entry) for file in files(inner)]

    shown = files(yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"])
    pages = [str(page.relative_to(ROOT / "docs")) for page in PAGES if (ROOT / "docs") in page.parents]
    assert sorted(shown) == sorted(pages)


@pytest.mark.parametrize("page", PYTHON_PAGES, ids=name)
def test_python_code_runs(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(terms, "_registered", dict(terms._registered))
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    for number, code in enumerate(fenced(page, "python"), start=1):
        for word, package in OPTIONAL.items():
            if word in code and importlib.util.find_spec(package) is None:
                break
        else:
            exec(compile(code, f"{name(page)}, block {number}", "exec"), {"__name__": "docs"})


@pytest.mark.parametrize("words", RAPTOR_COMMANDS, ids=" ".join)
def test_commands_are_accepted_by_the_command_line(words, monkeypatch):
    monkeypatch.setattr(terms, "_registered", dict(terms._registered))
    monkeypatch.setattr(terms, "_extensions", {})
    _, command, *arguments = words
    assert command in COMMANDS, f"there is no command {command}"
    context = COMMANDS[command].make_context(command, list(arguments))  # refuses unknown options
    for file in context.params.get("extend") or ():
        if (ROOT / file).is_file():
            terms.extend(ROOT / file)
    settings = context.params.get("settings") or []
    if settings:
        preset = context.params.get("config")
        load_config(SETTINGS[command], preset if preset in presets(command) else None, settings)
    load_config(Distribution, None, context.params.get("ranges") or [])


def test_light_commands_run(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    light = [words for words in RAPTOR_COMMANDS if words[1] in LIGHT]
    assert light
    for words in light:
        assert app(list(words[1:]), standalone_mode=False) == 0, capfd.readouterr().err


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_commands_mentioned_in_the_text_exist(page):
    targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    for words in re.findall(r"`(raptor|make) ([a-z][a-z-]*)", page.read_text(encoding="utf-8")):
        tool, first = words
        assert first in (COMMANDS if tool == "raptor" else targets), f"{name(page)} mentions {tool} {first}"
    for words in shell_commands(page):
        if words[0] == "make":
            assert words[1] in targets, f"{name(page)} mentions make {words[1]}"


def test_the_table_of_platforms_is_that_of_the_files():
    text = (ROOT / "docs" / "physics.md").read_text(encoding="utf-8")
    table = text.split("<!-- platforms:start -->")[1].split("<!-- platforms:end -->")[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.strip().splitlines()[2:]]
    quadrotors = load_platforms()
    measured = [
        [vehicle, f"{mass:.4f}", f"{arm:.3f}", f"{ratio:.2f}", f"{agility:.0f}", f"{hover:.3f}"]
        for vehicle, mass, arm, ratio, agility, hover in zip(
            quadrotors.names,
            quadrotors.mass.tolist(),
            quadrotors.arm_length.tolist(),
            quadrotors.thrust_to_weight.tolist(),
            quadrotors.torque_to_inertia.tolist(),
            quadrotors.hover_throttle.tolist(),
            strict=True,
        )
    ]
    assert rows == measured


def test_every_departure_of_the_default_task_from_the_paper_is_explained():
    text = (ROOT / "docs" / "explanation" / "paper-and-default.md").read_text(encoding="utf-8")
    default, paper = Task(), Task.paper()
    departures = [f.name for f in dataclasses.fields(Task) if getattr(default, f.name) != getattr(paper, f.name)]
    assert departures
    table = text.split("## The task")[1].split("## Training")[0]
    assert re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE) == departures


def test_the_references_of_training_are_those_of_the_code():
    text = (ROOT / "docs" / "explanation" / "paper-and-default.md").read_text(encoding="utf-8")
    shares = TRAINING_TASK.references
    hover = 1 - shares.langevin_share - shares.lissajous_share - shares.way_points_share
    assert (f"{hover:.0%} hover, {shares.langevin_share:.0%} Langevin, {shares.lissajous_share:.0%} Lissajous").replace(
        "%", " %"
    ) in text


def test_the_components_of_observations_and_what_terms_are_given_are_those_of_the_code():
    text = (ROOT / "docs" / "reference" / "components.md").read_text(encoding="utf-8")
    own = {
        name: known
        for name, known in terms_of_kind("observation").items()
        if known.function.__module__ == components.__name__
    }
    rows = re.findall(r"^\| `(\w+)` \| (.*) \|$", text.split("### Components of observations")[1], re.MULTILINE)
    assert rows == [(name, known.meaning) for name, known in own.items()]
    for view in (StepView, ObservationView, DisturbanceView, Wrench):
        (row,) = (line for line in text.splitlines() if f"`{view.__name__}`:" in line)
        assert set(view._fields) <= set(re.findall(r"`(\w+)`", row))


def test_the_readme_has_room_for_measured_results():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert text.index("<!-- results:start -->") < text.index("<!-- results:end -->")
