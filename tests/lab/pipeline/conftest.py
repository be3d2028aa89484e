"""Jobs that are done at once: they write down what they were told and what they read."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import pytest

from raptor.config.settings import Settings, not_negative, setting
from raptor.core.errors import UserError
from raptor.lab.pipeline import Job, Outcome, Work
from raptor.lab.pipeline.stages import EVALUATION, QUADROTORS, REPORT, reference

FILE = "note.txt"


@dataclasses.dataclass(frozen=True)
class Note(Settings):
    """What can be said of a note."""

    text: str = ""
    number: float = setting(0.0, "", not_negative)
    seed: int = 0
    stops: bool = False
    breaks: bool = False
    pace: int = 0
    reads: tuple[str, ...] | None = reference(EVALUATION)


def write(work: Work) -> Outcome:
    """Write the text and what is read; a training that goes on adds a line instead."""
    if work.keys.breaks:
        raise UserError("the pen is broken")
    path = work.folder / FILE
    before = path.read_text() if path.exists() and not work.overwrite else ""
    read = "".join(Path(source).read_text() for source in work.sources.get("reads", ()))
    path.write_text(f"{before}{work.keys.text}\n{read}")
    work.progress("written")
    return Outcome(not work.keys.stops, f"{work.keys.text} in writing")


@pytest.fixture
def jobs() -> Mapping[str, Job]:
    """A cheap job, an expensive one, one whose notes nobody can read, and one that must be told what to read."""
    aside = frozenset({"stops", "breaks"})
    note = Job("note", EVALUATION, Note, write, product=lambda keys: FILE, inherits=("seed",), free=aside)
    return {
        "note": note,
        "train": dataclasses.replace(note, name="train", trains=True, held=frozenset({"pace"})),
        "draw": dataclasses.replace(note, name="draw", gives=QUADROTORS),
        "publish": dataclasses.replace(note, name="publish", gives=REPORT, needs=(("reads",),)),
    }
