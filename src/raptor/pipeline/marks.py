"""The stamp of a stage while it runs."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Iterator
from pathlib import Path

from raptor.pipeline.plan import Step
from raptor.pipeline.stamps import STAMP, Stamp, material, write_stamp


class Marks:
    """The stamp of a stage while it runs: it tells at any moment what a kill leaves behind."""

    def __init__(self, step: Step) -> None:
        self.step = step
        goes_on = step.action == "resume" and step.before is not None
        self.before_s = step.before.wall_clock_s if goes_on and step.before is not None else 0.0
        self.started = time.perf_counter()
        replacing = step.action == "anew" and step.stage.job.trains
        self.stamp = Stamp(
            "replacing" if replacing else "begun",
            step.stage.job.name,
            material(step.stage),
            step.inputs,
            step.recipe,
            wall_clock_s=self.before_s,
        )
        self.found = _entries(step.folder)

    def note(self) -> None:
        """The job lives: what it was to replace may be gone by now."""
        if self.stamp.state == "replacing" and _entries(self.step.folder) != self.found:
            self._write(dataclasses.replace(self.stamp, state="begun"))

    def finished(self, content: str, result: str) -> None:
        """The job is done."""
        self._write(dataclasses.replace(self.stamp, state="finished", content=content, result=result))

    @contextlib.contextmanager
    def kept(self) -> Iterator[None]:
        """Mark the stage while the block lasts; a job that fails before it writes leaves the mark that it found."""
        self._write(self.stamp)
        try:
            yield
        except BaseException:
            if _entries(self.step.folder) == self.found:
                self._take_back()
            else:
                self._stopped()
            raise
        if self.stamp.state != "finished":
            self._stopped()

    def _stopped(self) -> None:
        self.note()
        self._write(self.stamp)  # how long it took so far

    def _take_back(self) -> None:
        if self.step.before is not None:
            write_stamp(self.step.folder, self.step.before)
        else:
            (self.step.folder / STAMP).unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # something invisible is in it
                self.step.folder.rmdir()

    def _write(self, stamp: Stamp) -> None:
        seconds = self.before_s + time.perf_counter() - self.started
        self.stamp = dataclasses.replace(stamp, wall_clock_s=round(seconds, 3))
        write_stamp(self.step.folder, self.stamp)


def _entries(folder: Path) -> dict[str, int]:
    """What is in a folder besides the stamp, and when each was written."""
    if not folder.is_dir():
        return {}
    return {entry.name: entry.stat().st_mtime_ns for entry in folder.iterdir() if entry.name != STAMP}
