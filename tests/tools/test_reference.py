"""The reference pages say what the code says."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import api
import pytest
import reference

import raptor
from raptor.config.settings import meanings_of
from raptor.quadrotor import Distribution
from raptor.training import TrainDirectConfig
from raptor.training.teachers.config import PreTrainConfig

FOLDER = Path(__file__).parents[2] / "docs" / "reference"


@pytest.mark.parametrize("name", ["api.md", "configuration.md", "command-line.md"])
def test_the_committed_page_is_up_to_date(name: str) -> None:
    # Mend it with: python tools/reference.py docs/reference
    assert (FOLDER / name).read_text() == reference.pages()[name]


def test_every_public_name_is_explained_with_its_attributes_and_their_units() -> None:
    page = api.api_page()
    for name in raptor.__all__:
        assert name == "__version__" or f"\n### {name}\n" in page
    state = page.split("### State")[1].split("\n### ")[0]
    assert "| `position` | `Tensor` | (..., 3) m, world FLU (x forward, y left, z up) |" in state
    assert "| `mass` | `Tensor` | (N,) kg |" in page
    env = page.split("### QuadrotorEnv")[1].split("\n### ")[0]
    assert "| `state` | `State` | Position, orientation, velocities and rotor speeds of each vehicle now" in env
    assert "`step(action: Tensor) -> StepResult`" in env
    assert "- `UserError`: names every unknown key" in page  # of a section of a docstring


def test_what_a_base_has_is_shown_once() -> None:
    summary = api.api_page().split("### TrainDirectSummary")[1].split("\n### ")[0]
    assert "[RunSummary](#runsummary)" in summary
    assert "`diverged`" in summary
    assert "`wall_clock_s`" not in summary


def test_the_pages_are_written_where_they_are_asked_for(tmp_path: Path) -> None:
    reference.main(tmp_path / "new")
    assert {path.name for path in (tmp_path / "new").iterdir()} == set(reference.pages())


def test_every_setting_is_explained() -> None:
    def unexplained(config: Any) -> list[str]:
        comments = meanings_of(type(config))
        values = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
        groups = [value for value in values.values() if dataclasses.is_dataclass(value)]
        own = [name for name, value in values.items() if value not in groups and not comments.get(name)]
        return [
            *(f"{type(config).__name__}.{name}" for name in own),
            *(x for group in groups for x in unexplained(group)),
        ]

    assert unexplained(TrainDirectConfig()) == []
    assert unexplained(PreTrainConfig()) == []
    assert unexplained(Distribution()) == []


def test_a_row_has_the_default_the_limits_and_the_meaning() -> None:
    page = reference.configuration_page()
    assert "| `gradient_decay` | " in page
    assert ", 0 to 1 | factor on each vehicle's adjoint" in page
    assert "### task.references.lissajous" in page
    assert "### sac.replay" in page.split("## raptor pre-train")[1].split("## raptor sample")[0]
    assert "| `max_position` | `0.5`, ≥ 0 or null |" in page
    for preset in ("`large` of `raptor train-direct`", "`paper` of `raptor pre-train`"):
        assert preset in page


def test_a_group_of_several_jobs_is_described_once_and_linked_with_the_defaults_that_differ() -> None:
    page = reference.configuration_page()
    headings = re.findall(r"^#+ (.*)$", page, re.MULTILINE)
    assert len(set(headings)) == len(headings)
    jobs, shared = page.split("## Shared groups")
    for group in ("task", "task.references.langevin", "objective", "distribution", "curriculum", "student"):
        assert f"\n### {group}\n" in shared
        assert f"\n### {group}\n" not in jobs
    assert page.count("| `langevin_share` |") == 1
    assert "`apg.objective`: as [objective](#objective), with these defaults: `speed` `30.0`" in jobs
    assert "As [distribution](#distribution)." in jobs.split("## raptor sample")[1]


def test_a_setting_of_several_jobs_is_described_once_and_listed_with_its_default_for_each() -> None:
    page = reference.configuration_page()
    assert page.count("| `segment_steps` |") == 1
    rest = page.split("### fine_tune\n")[1].split("As of [raptor train-direct")[1].split("\n")[0]
    assert "`segment_steps` `200`" in rest
    assert "`num_updates`" not in rest  # it has a meaning of its own there


def test_every_option_of_a_command_is_on_the_page() -> None:
    page = reference.command_line_page()
    for text in (
        "`--num-quadrotors N` | `2048`: ",
        "`--episodes N` | `1`: ",
        "`--output, -o DIR` | required: ",
        "## raptor card",
    ):
        assert text in page
    assert "raptor train-direct [OPTIONS] [KEY=VALUE]..." in page
