"""A run is a folder: a manifest with its settings, a log, metrics, TensorBoard scalars, checkpoints, policies."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from raptor.config import differences, from_dict, load_config, to_yaml
from raptor.config.files import MANIFEST
from raptor.core.atomic import PathLike, explained, write_atomically
from raptor.core.errors import UserError
from raptor.runs.checkpoints import Checkpoints
from raptor.runs.manifest import OLD_SETTINGS, job_of, note_status, old_runs, read_manifest, write_manifest
from raptor.runs.progress import Metrics
from raptor.runs.store import FolderStore

T = TypeVar("T")

PRODUCTS = ("evaluation.json", "policy.onnx", "report.html")
"""What is made from the policy of a run, beside it; it is deleted when the run is overwritten."""


@dataclasses.dataclass(frozen=True)
class Layout:
    """The names of a job's files within the folder of a run."""

    job: str  # as it is called on the command line
    unit: str = "update"  # what a step is
    checkpoints: str = "checkpoints/update_"  # what their names begin with; the number of the step follows
    best: str | None = "checkpoints/best.pt"  # the best policy by validation
    settings: str | None = None  # where other tools expect the settings, beside the manifest
    own: tuple[str, ...] = ()  # further files and folders that the job writes, or patterns of them


class RunFolder:
    """The files of one run. Nothing is written before `open`."""

    def __init__(self, path: PathLike, layout: Layout) -> None:
        self.path, self.layout = Path(path), layout
        self.manifest, self.log_file = self.path / MANIFEST, self.path / "train.log"
        self.metrics, self.tensorboard = self.path / "metrics.jsonl", self.path / "tensorboard"
        self.summary = self.path / "summary.json"
        self.checkpoints = Checkpoints(FolderStore(path), layout.checkpoints, log=self.log)
        self.writes = True  # False where another process writes for this one
        self._closing = contextlib.ExitStack()
        self._recorder: Metrics | None = None

    def holds_run(self) -> bool:
        """Whether a run has been here.

        Raises:
            UserError: it holds a run of another job, or something else under the names that a run needs.
        """
        if self.path.exists() and not self.path.is_dir():
            raise UserError(f"{self.path} is a file: choose another output folder")
        job = job_of(self.path)
        if job not in (None, self.layout.job):
            raise UserError(f"{self.path} holds a run of {job}, not of {self.layout.job}: choose another output folder")
        if job is None and (present := [str(part.relative_to(self.path)) for part in self._parts() if part.exists()]):
            raise UserError(f"{self.path} holds {', '.join(present)} that no run wrote: choose another output folder")
        return job is not None

    def check(self, resume: bool, overwrite: bool) -> bool:
        """Whether a run is to be resumed; changes nothing.

        Raises:
            UserError: the folder holds a run, and it is to be neither resumed nor overwritten; or an older version of
                this package began it, and it is to be resumed.
        """
        if resume and overwrite:
            raise UserError("--resume and --overwrite exclude each other: keep one of them")
        holds = self.holds_run()
        if holds and not (resume or overwrite):
            raise UserError(
                f"{self.path} already holds a run: go on with --resume, replace it with --overwrite, "
                "or choose another output folder"
            )
        if holds and resume and not self.manifest.exists():
            raise UserError(
                f"the run in {self.path} was begun by an older version of raptor-python, whose checkpoints this one "
                "cannot go on from: its policies can be loaded; start anew with --overwrite or in another folder"
            )
        return holds and resume

    def settings(self, cls: type[T]) -> T:
        """The settings that the run began with."""
        return from_dict(cls, read_manifest(self.path)["settings"])

    def refuse_changes(self, stored: Any, given: Any, free: Sequence[str] = ()) -> None:
        """Refuse to go on with settings that would change the result, by their names.

        Groups in `free` may change, and so may settings that are declared `free=True`.
        """
        if changed := differences(stored, _except_free(stored, given, free)):
            raise UserError(
                f"the run in {self.path} was begun with other settings: {', '.join(changed)}; "
                "resume it without them, or choose another output folder"
            )

    def open(self, settings: Any, resume: bool = False, overwrite: bool = False) -> None:
        """Take hold of the folder, to go on with the run that is there or to begin one.

        Raises:
            UserError: see `check`; or another process is at work in the folder, or it cannot be written.
        """
        if not self.writes:
            return
        self.check(resume, overwrite)
        with explained(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
        self._closing.enter_context(locked(self.path))
        resumes = self.check(resume, overwrite)  # once more: nobody else can come in between now
        with explained(self.path):
            for remains in (*self.path.glob(".*.tmp"), *self.path.glob("*/.*.tmp")):  # what a killed process left
                remains.unlink(missing_ok=True)
            if resumes:
                self.note_status("running")
                return
            if self.holds_run():
                self.clear()
            self.write_manifest(settings)

    def note_status(self, status: str) -> None:
        """Note how the run stands: running, stopped or finished."""
        if self.writes:
            note_status(self.path, status)

    def write_manifest(self, settings: Any, status: str = "running") -> None:
        """Note what runs here; see `note_status`."""
        if not self.writes:
            return
        if self.layout.settings is not None:
            write_atomically(self.path / self.layout.settings, to_yaml(settings))
        write_manifest(self.path, self.layout.job, settings, status)

    def record_from(self, step: int, validated: bool = True) -> None:
        """Begin recording after `step`; records of later steps, of a run that was killed, are dropped everywhere.

        So is the validation of this step where the state that the run goes on from was saved before it.
        """

        def keep(line: Mapping[str, float]) -> bool:
            is_validation = any(name.startswith("evaluation/") for name in line)
            return line["update"] < step or (line["update"] == step and (validated or not is_validation))

        self.record_where(keep)

    def record_where(self, keep: Callable[[Mapping[str, float]], bool]) -> None:
        """Begin recording behind those lines of an earlier session that are to be kept."""
        if self.writes:
            self._recorder = Metrics(self.metrics, self.tensorboard, keep)
            self._closing.callback(self._recorder.close)

    def record(self, step: int, values: Mapping[str, float]) -> None:
        """Append to the metrics and to TensorBoard; names are `group/name`."""
        if self._recorder is not None:
            self._recorder.record(step, values)

    def log(self, message: str) -> None:
        """Append a line to the log."""
        if self.writes:
            with explained(self.log_file), open(self.log_file, "a", encoding="utf-8") as file:
                file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')}  {message}\n")

    def clear(self) -> None:
        """Delete what a run wrote. The manifest goes last: by it the folder is known as that of a run."""
        last = [*old_runs(self.path), self.manifest]
        parts = [*self._parts(), *(self.path / name for name in PRODUCTS), *self.tensorboard.glob("events.*")]
        for part in parts:
            if part.is_dir() and part != self.tensorboard:
                shutil.rmtree(part)
            elif part not in (self.tensorboard, *last):
                part.unlink(missing_ok=True)
        named = [self.layout.checkpoints, self.layout.best, self.layout.settings, *self.layout.own, *OLD_SETTINGS]
        for folder in {self.tensorboard, *((self.path / name).parent for name in named if name)} - {self.path}:
            with contextlib.suppress(OSError):  # something else is in it, or it is not there
                folder.rmdir()
        for file in last:
            file.unlink(missing_ok=True)

    def _parts(self) -> list[Path]:
        """The files and folders that only this job writes."""
        own = [self.manifest, self.log_file, self.metrics, self.summary, self.tensorboard]
        named = [self.path / name for name in (self.layout.best, self.layout.settings) if name]
        kept = [self.path / name for name in self.checkpoints.names().values()] if self.path.is_dir() else []
        further = [part for name in self.layout.own for part in sorted(self.path.glob(name))]
        return [*own, *kept, *named, *further]

    def close(self) -> None:
        """Release the folder."""
        self._closing.close()


class BusyError(UserError):
    """Another process is at work in a folder."""


@contextlib.contextmanager
def locked(folder: Path, shared: bool = False) -> Iterator[None]:
    """Keep other processes that do the same out of a folder; those that share it let each other in.

    Raises:
        BusyError: one is at work there.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BusyError(f"another process is at work in {folder}: wait for it, or choose another folder") from None
        yield
    finally:
        os.close(descriptor)


def settings_of(
    cls: type[T],
    layout: Layout,
    run: PathLike,
    file: str | Path | None = None,
    overrides: Sequence[str] = (),
    resume: bool = True,
) -> T:
    """The settings that a file and overrides say, over those of the run in the folder `run` where it is resumed.

    Raises:
        UserError: see `load_config`, and `RunFolder.check`.
    """
    folder = RunFolder(run, layout)
    stored = folder.settings(cls) if resume and folder.check(True, False) else None
    return load_config(cls, file, overrides, default=stored)


def _except_free(stored: Any, given: Any, free: Sequence[str] = ()) -> Any:
    """What is given, with the settings that the result does not depend on as they are stored."""
    kept: dict[str, Any] = {}
    for field in dataclasses.fields(stored):
        before, now = getattr(stored, field.name), getattr(given, field.name)
        if field.metadata.get("free") or field.name in free:
            kept[field.name] = before
        elif dataclasses.is_dataclass(before) and type(before) is type(now):
            kept[field.name] = _except_free(before, now)
    return dataclasses.replace(given, **kept)
