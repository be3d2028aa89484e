"""Jobs that are done at once: they write down their text and what they read."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import pytest

from raptor.config.settings import not_negative, setting
from raptor.core.errors import UserError
from raptor.lab.pipeline import Job, StageContext, StageOutcome
from raptor.lab.pipeline.jobs import EVALUATION, QUADROTORS, REPORT, reference

FILE = "note.txt"


@dataclasses.dataclass(frozen=True)
class Note(Job):
    """Writes the text and what is read; a training that goes on adds a line instead."""

    NAME, GIVES, PRODUCT, INHERITS, FREE = "note", EVALUATION, FILE, ("seed",), ("stops", "breaks")

    text: str = ""
    number: float = setting(0.0, "", not_negative)
    seed: int = 0
    stops: bool = False
    breaks: bool = False
    pace: int = 0
    reads: tuple[str, ...] | None = reference(EVALUATION)

    def run(self, stage: StageContext) -> StageOutcome:
        if self.breaks:
            raise UserError("the pen is broken")
        path = stage.folder / FILE
        before = path.read_text() if path.exists() and not stage.overwrite else ""
        read = "".join(Path(source).read_text() for source in stage.sources["reads"].values())
        path.write_text(f"{before}{self.text}\n{read}")
        stage.progress("written")
        return StageOutcome(not self.stops, f"{self.text} in writing")


class Train(Note):
    NAME, TRAINS, HELD = "train", True, ("pace",)


class Draw(Note):
    NAME, GIVES = "draw", QUADROTORS


class Publish(Note):
    NAME, GIVES, NEEDS = "publish", REPORT, ("reads",)


@pytest.fixture
def jobs() -> Mapping[str, type[Job]]:
    """A cheap job, an expensive one, one whose notes nobody can read, and one that must be given what to read."""
    return {job.NAME: job for job in (Note, Train, Draw, Publish)}
