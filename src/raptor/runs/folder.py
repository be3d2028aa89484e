"""A run is a folder: a manifest with its settings, a log, metrics, TensorBoard scalars, checkpoints, policies."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

from raptor.config import differences, from_dict, load_config, to_dict, to_yaml
from raptor.config.files import MANIFEST
from raptor.core.atomic import FolderStore, PathLike, explained, write_atomically
from raptor.core.errors import UserError
from raptor.core.yaml_files import dump_yaml, read_yaml
from raptor.runs.checkpoints import Checkpoints
from raptor.runs.progress import Metrics
from raptor.tasks.trajectory_files import COPY, keep_copy, recall_copy

T = TypeVar("T")

HEADER = "# Written by raptor: what runs here, its status and its settings.\n"
VERSION = 2
"""Of the layout of a run. Version 1 had no manifest: its settings stand under `OLD_MARK` in one of `OLD_SETTINGS`."""

OLD_MARK = "# raptor run: "
OLD_SETTINGS = ("config.yaml", "params/config.yaml", "params/agent.yaml")

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
        """Whether it holds a run of this job; refuses another job's, and other files with a run's names."""
        if self.path.exists() and not self.path.is_dir():
            raise UserError(f"{self.path} is a file: choose another output folder")
        job = job_of(self.path)
        if job not in (None, self.layout.job):
            raise UserError(f"{self.path} holds a run of {job}, not of {self.layout.job}: choose another output folder")
        if job is None and (present := [str(part.relative_to(self.path)) for part in self._parts() if part.exists()]):
            raise UserError(f"{self.path} holds {', '.join(present)} that no run wrote: choose another output folder")
        return job is not None

    def check(self, resume: bool, overwrite: bool) -> bool:
        """Whether a run is to be resumed; refuses what can be neither resumed nor overwritten, and changes nothing."""
        if resume and overwrite:
            raise UserError("--resume and --overwrite exclude each other: keep one of them")
        holds = self.holds_run()
        if holds and not (resume or overwrite):
            remedy = "go on with --resume, replace it with --overwrite, or choose another output folder"
            raise UserError(f"{self.path} already holds a run: {remedy}")
        if holds and resume and not self.manifest.exists():
            raise UserError(
                f"the run in {self.path} was begun by an older version of raptor-python, whose checkpoints this one "
                "cannot go on from: its policies can be loaded; start anew with --overwrite or in another folder"
            )
        return holds and resume

    def settings(self, cls: type[T]) -> T:
        """The settings that the run began with."""
        stored = read_manifest(self.path)["settings"]
        recall_copy(self.path, stored)
        return from_dict(cls, stored)

    def refuse_changes(self, stored: Any, given: Any, free: Sequence[str] = ()) -> None:
        """Refuse settings that would change the result: all but groups in `free` and settings declared `free=True`."""
        if changed := differences(stored, _except_free(stored, given, free)):
            remedy = "resume it without them, or choose another output folder"
            raise UserError(f"the run in {self.path} was begun with other settings: {', '.join(changed)}; {remedy}")

    def open(self, settings: Any, resume: bool = False, overwrite: bool = False, patience_s: float = 0.0) -> None:
        """Take hold of the folder, to go on with the run that is there or to begin one; see `check` and `locked`."""
        if not self.writes:
            return
        self.check(resume, overwrite)
        with explained(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
        self._closing.enter_context(locked(self.path, patience_s=patience_s))
        resumes = self.check(resume, overwrite)  # once more: no other process can come in between now
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
            text = self.manifest.read_text(encoding="utf-8")
            write_atomically(self.manifest, re.sub(r"^status: .*$", f"status: {status}", text, flags=re.MULTILINE))

    def write_manifest(self, settings: Any, status: str = "running") -> None:
        """Note what runs here; see `note_status`."""
        if not self.writes:
            return
        if self.layout.settings is not None:
            write_atomically(self.path / self.layout.settings, to_yaml(settings))
        keep_copy(settings, self.path)
        facts = {"version": VERSION, "job": self.layout.job, "raptor-python": version("raptor-python")}
        document = {**facts, "status": status, "settings": to_dict(settings)}
        write_atomically(self.manifest, f"{HEADER}{dump_yaml(document)}")

    def record_from(self, step: int, validated: bool = True) -> None:
        """Begin recording after `step`; what a run that was killed recorded later is dropped.

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
        last, layout = [*old_runs(self.path), self.manifest], self.layout
        products = [self.path / name for name in PRODUCTS]
        for part in {*self._parts(), *products, *self.tensorboard.glob("events.*")} - {self.tensorboard, *last}:
            shutil.rmtree(part) if part.is_dir() else part.unlink(missing_ok=True)
        named = [layout.checkpoints, layout.best, layout.settings, *layout.own, *OLD_SETTINGS]
        for folder in {self.tensorboard, *((self.path / name).parent for name in named if name)} - {self.path}:
            with contextlib.suppress(OSError):  # something else is in it, or it is not there
                folder.rmdir()
        for file in last:
            file.unlink(missing_ok=True)

    def _parts(self) -> list[Path]:
        """The files and folders that only this job writes."""
        own = [self.manifest, self.log_file, self.metrics, self.summary, self.tensorboard, self.path / COPY]
        named = [self.path / name for name in (self.layout.best, self.layout.settings) if name]
        kept = [self.path / name for name in self.checkpoints.names().values()] if self.path.is_dir() else []
        further = [part for name in self.layout.own for part in sorted(self.path.glob(name))]
        return [*own, *kept, *named, *further]

    def close(self) -> None:
        """Release the folder."""
        self._closing.close()


def job_of(folder: Path) -> str | None:
    """The job that runs in a folder, also one of an older version; None where it holds no run."""
    if (folder / MANIFEST).is_file() and (folder / MANIFEST).read_text(errors="replace").startswith(HEADER):
        return str(read_manifest(folder).get("job"))
    return next(iter(old_runs(folder).values()), None)


def read_manifest(folder: PathLike) -> dict[str, Any]:
    """What `run.yaml` says."""
    path = Path(folder) / MANIFEST
    try:
        document = read_yaml(path)
        if not isinstance(document, dict) or not isinstance(document.get("settings"), dict):
            raise UserError(f"{path} lacks the group settings")
    except UserError as error:
        raise UserError(f"{error}: start anew with --overwrite") from error
    return document


def read_settings(run: PathLike) -> dict[str, Any]:
    """The settings of a run, nested; none where the folder is that of no run."""
    if (Path(run) / MANIFEST).is_file():
        return dict(read_manifest(run)["settings"])
    return next((dict(read_yaml(old)) for old in old_runs(Path(run))), {})


def old_runs(folder: Path) -> dict[Path, str]:
    """The files of settings that an older version left in a folder, and the job of each."""
    files = [folder / name for name in OLD_SETTINGS if (folder / name).is_file()]
    first = {file: file.read_text(encoding="utf-8", errors="replace").partition("\n")[0] for file in files}
    return {file: line.removeprefix(OLD_MARK) for file, line in first.items() if line.startswith(OLD_MARK)}


@contextlib.contextmanager
def locked(folder: Path, shared: bool = False, patience_s: float = 0.0) -> Iterator[None]:
    """Keep others that do the same out of a folder, or share it; `UserError` where it is not free in `patience_s`."""
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    descriptor, deadline = os.open(folder, os.O_RDONLY), time.monotonic() + patience_s
    try:
        while True:
            try:
                fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    what = f"another process is at work in {folder}"
                    raise UserError(f"{what}: wait for it, or choose another folder") from None
                time.sleep(0.1)
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
    """The settings that a file and overrides say, over those of the run in the folder `run` where it is resumed."""
    folder = RunFolder(run, layout)
    if file is not None:
        recall_copy(Path(file), read_settings(file))
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
