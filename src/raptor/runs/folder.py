"""A run is a folder: resolved settings, a log, metrics, TensorBoard scalars, checkpoints."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, TypeVar

import yaml

from raptor.config import load_config
from raptor.core.atomic import write_atomically
from raptor.core.errors import UserError
from raptor.runs.checkpoints import Checkpoints

T = TypeVar("T")

MARK = "# raptor run: "
"""How the configuration of a run begins; by it a run is told from a folder of something else."""

CONFIGS = ("config.yaml", "params/config.yaml", "params/agent.yaml")
"""Where a job may keep its configuration, within the folder."""

PRODUCTS = ("evaluation.json", "policy.onnx", "report.html")
"""What is made from the policy of a run, beside it; it goes when the run is overwritten."""


class RunFolder:
    """The files of one run. Nothing is written before `open`.

    Args:
        path: the folder.
        job: what runs in it, as it is called on the command line.
        keep: how many of the newest checkpoints to keep.
        own: names of further files and folders that the job writes, or patterns of them.
        config: where the resolved settings are, one of `CONFIGS`.
        checkpoints: instead of those in a folder of their own.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        job: str,
        keep: int = 3,
        own: Sequence[str] = (),
        config: str = "config.yaml",
        checkpoints: Checkpoints | None = None,
    ) -> None:
        self.path, self.job, self.own = Path(path), job, tuple(own)
        self.config = self.path / config
        self.log_file = self.path / "train.log"
        self.metrics = self.path / "metrics.jsonl"
        self.summary = self.path / "summary.json"
        self.tensorboard = self.path / "tensorboard"
        self.checkpoints = checkpoints or Checkpoints(self.path / "checkpoints", keep)
        self.writes = True  # False where another process writes for this one
        self._closing = contextlib.ExitStack()
        self._metrics: IO[str] | None = None
        self._writer: Any = None

    def holds_run(self) -> bool:
        """Whether a run has been here.

        Raises:
            UserError: it holds a run of another job, or something else under the names that a run needs.
        """
        if self.path.exists() and not self.path.is_dir():
            raise UserError(f"{self.path} is a file: choose another output folder")
        jobs = [job for name in CONFIGS if (job := _job_of(self.path / name)) is not None]
        for job in jobs:
            if job != self.job:
                raise UserError(f"{self.path} holds a run of {job}, not of {self.job}: choose another output folder")
        parts = [self.config, self.log_file, self.metrics, self.summary, self.tensorboard, *self._own_parts()]
        present = [str(part.relative_to(self.path)) for part in parts if part.exists()]
        if present and not jobs:
            raise UserError(f"{self.path} holds {', '.join(present)} that no run wrote: choose another output folder")
        return bool(jobs)

    def check(self, resume: bool, overwrite: bool) -> bool:
        """Whether a run is to be resumed; changes nothing.

        Raises:
            UserError: the folder holds a run, and it is to be neither resumed nor overwritten.
        """
        if resume and overwrite:
            raise UserError("--resume and --overwrite exclude each other: keep one of them")
        holds = self.holds_run()
        if holds and not (resume or overwrite):
            raise UserError(
                f"{self.path} already holds a run: go on with --resume, replace it with --overwrite, "
                "or choose another output folder"
            )
        return holds and resume

    def refuse_changes(self, changed: Sequence[str]) -> None:
        """Refuse to go on with settings other than the run began with.

        Args:
            changed: each setting that differs, as `raptor.config.differences` tells it; none is no problem.

        Raises:
            UserError: names them.
        """
        if changed:
            raise UserError(
                f"the run in {self.path} was begun with other settings: {', '.join(changed)}; "
                "resume it without them, or choose another output folder"
            )

    def open(self, config: str, resume: bool = False, overwrite: bool = False) -> None:
        """Take hold of the folder.

        Args:
            config: the resolved settings, as YAML.
            resume: go on with the run that is there, if any.
            overwrite: delete what an earlier run wrote, and nothing else.

        Raises:
            UserError: see `check`; or another process is at work in the folder, or it cannot be written.
        """
        if not self.writes:
            return
        self.check(resume, overwrite)
        with explained(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
        self._closing.enter_context(locked(self.path))
        if self.check(resume, overwrite):  # once more: nobody else can come in between now
            self.checkpoints.clear_remains()
            return
        with explained(self.path):
            if overwrite and self.holds_run():
                self.clear()
            write_atomically(self.config, f"{MARK}{self.job}\n{config}")
            self.checkpoints.folder.mkdir(exist_ok=True)

    def record_from(self, update: int) -> None:
        """Begin recording after `update`; records of later updates, of a run that was killed, are dropped."""
        if not self.writes:
            return
        from torch.utils.tensorboard import SummaryWriter

        with explained(self.path):
            kept = [line for line in read_metrics(self.metrics) if line["update"] <= update]
            write_atomically(self.metrics, "".join(f"{json.dumps(line)}\n" for line in kept))
            self._metrics = self._closing.enter_context(self.metrics.open("a", encoding="utf-8"))
            self._writer = SummaryWriter(self.tensorboard, purge_step=update + 1 if update else None, flush_secs=10)
            self._closing.callback(self._writer.close)

    def record(self, update: int, values: Mapping[str, float]) -> None:
        """Append to the metrics and to TensorBoard; names are `group/name`."""
        if not self.writes:
            return
        assert self._metrics is not None
        with explained(self.path):
            self._metrics.write(f"{json.dumps({'update': update, **values})}\n")
            self._metrics.flush()
            for name, value in values.items():
                self._writer.add_scalar(name, value, update)

    def log(self, message: str) -> None:
        """Append a line to the log."""
        if not self.writes:
            return
        with explained(self.log_file), open(self.log_file, "a", encoding="utf-8") as file:
            file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')}  {message}\n")

    def clear(self) -> None:
        """Delete what a run wrote. The configuration goes last: by it the folder is known as that of a run."""
        self.checkpoints.clear()
        written = (self.log_file, self.metrics, self.summary, *(self.path / name for name in PRODUCTS))
        for path in (*self.tensorboard.glob("events.out.tfevents.*"), *written):
            path.unlink(missing_ok=True)
        for part in self._further():
            if part.is_dir():
                shutil.rmtree(part)
            else:
                part.unlink(missing_ok=True)
        self.config.unlink(missing_ok=True)
        parents = {(self.path / name).parent for name in self.own}
        for folder in {self.tensorboard, self.checkpoints.folder, self.config.parent, *parents} - {self.path}:
            with contextlib.suppress(OSError):  # something else is in it, or it is not there
                folder.rmdir()

    def _own_parts(self) -> list[Path]:
        """What only this job writes: its checkpoints, or the folder that they have to themselves, and all else."""
        kept, further = self.checkpoints, self._further()
        if kept.folder != self.path:
            return [kept.folder, *further]
        return [*kept.paths().values(), kept.best, *further]

    def _further(self) -> list[Path]:
        return [part for name in self.own for part in sorted(self.path.glob(name))]

    def close(self) -> None:
        """Let go of the folder."""
        with explained(self.path):
            self._closing.close()


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep other processes that do the same out of a folder.

    Raises:
        UserError: one is at work there.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"another process is at work in {folder}: wait for it, or choose another folder") from None
        yield
    finally:
        os.close(descriptor)


def read_metrics(path: str | os.PathLike[str]) -> list[dict[str, float]]:
    """The lines of a `metrics.jsonl`, up to the first one that a killed process left incomplete."""
    lines: list[dict[str, float]] = []
    if not Path(path).exists():
        return lines
    for line in Path(path).read_text(encoding="utf-8").splitlines():
        try:
            lines.append(json.loads(line))
        except ValueError:
            break
    return lines


def read_curve(run: str | os.PathLike[str]) -> dict[str, list[tuple[float, float]]]:
    """The learning curve of a run: for each name, (update, value) in the order of updates."""
    curve: dict[str, list[tuple[float, float]]] = {}
    for line in read_metrics(Path(run) / "metrics.jsonl"):
        for name, value in line.items():
            if name != "update":
                curve.setdefault(name, []).append((line["update"], value))
    return curve


def read_settings(run: str | os.PathLike[str]) -> dict[str, Any]:
    """The settings of a run, nested; none where the folder is that of no run."""
    configs = (Path(run) / name for name in CONFIGS)
    return next((yaml.safe_load(path.read_text(encoding="utf-8")) for path in configs if _job_of(path)), {})


def _job_of(config: Path) -> str | None:
    """What runs in the folder of this configuration; None where it is that of no run."""
    begins = config.read_text(encoding="utf-8", errors="replace") if config.is_file() else ""
    return begins.splitlines()[0][len(MARK) :] if begins.startswith(MARK) else None


def settings_of(
    cls: type[T], folder: RunFolder, file: str | Path | None = None, overrides: Sequence[str] = (), resume: bool = True
) -> T:
    """The settings of a run: those that it was begun with, under those that are given now.

    Args:
        cls: of the settings of the run's job.
        folder: of the run.
        file: see `load_config`.
        overrides: see `load_config`.
        resume: False ignores what the folder holds.

    Raises:
        UserError: see `load_config`, and `RunFolder.holds_run`.
    """
    stored = load_config(cls, folder.config) if resume and folder.holds_run() else None
    return load_config(cls, file, overrides, default=stored)


@contextlib.contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn an error of the file system into one that says what to do."""
    try:
        yield
    except OSError as error:
        raise UserError(f"cannot write {error.filename or path}: {error.strerror}") from error
