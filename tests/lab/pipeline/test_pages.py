"""What the docs show of pipelines is true."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import pytest

from raptor.config import presets
from raptor.lab.pipeline import JOBS, load_pipeline

DOCS = Path(__file__).parents[3] / "docs"
PAGE = (DOCS / "reference" / "pipeline.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"^```yaml\n(# .*?stages:.*?)^```", PAGE, re.DOTALL | re.MULTILINE)


def commands() -> Iterator[list[str]]:
    """Every `raptor run` of the docs that names a preset."""
    for page in DOCS.rglob("*.md"):
        for line in re.findall(r"^raptor run [^\n]*", page.read_text(encoding="utf-8"), re.MULTILINE):
            words = shlex.split(line, comments=True)
            if words[2] in presets("run"):
                yield words


@pytest.mark.parametrize("text", EXAMPLES, ids=lambda text: text.splitlines()[0])
def test_example_pipelines_are_accepted(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_quadrotors").mkdir()
    (tmp_path / "pipeline.yaml").write_text(text)
    assert load_pipeline("pipeline.yaml").stages


def test_changes_on_the_command_lines_are_accepted() -> None:
    given = [(words[2], [word for word in words[3:] if "=" in word]) for words in commands()]
    assert given
    for preset, changes in given:
        load_pipeline(preset, changes)


@pytest.mark.parametrize("job", JOBS)
def test_every_key_of_every_job_is_explained(job: str) -> None:
    section = PAGE.split(f"### {job}\n")[1].split("\n#")[0]
    shared = re.findall(r"`(config|settings)`", PAGE.split("Trainings have two more keys:")[1].split(".\n")[0])
    keys = set(re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)) | (set(shared) if JOBS[job].TRAINS else set())
    assert keys == {field.name for field in fields(JOBS[job])}
