"""What a stage was made from, recorded in its folder, and fingerprints of what stages read and make."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch

from raptor.config import to_dict
from raptor.config.documents import leaves
from raptor.config.load import changed
from raptor.core.atomic import PathLike, write_atomically
from raptor.core.errors import UserError
from raptor.core.yaml_files import dump_yaml, read_yaml, to_plain
from raptor.formats import load_policy
from raptor.formats.teacher_files import QUADROTORS as VEHICLES
from raptor.formats.teacher_files import WEIGHTS
from raptor.lab.pipeline.job import POLICY, QUADROTORS, TEACHERS, Job

RECORD = "stage.yaml"
HEADER = "# Written by raptor run: what this folder was made from.\n"
RENAMED = {"recipe": "fingerprint"}
"""Keys of records that earlier versions wrote."""

SHOWN = "policies"
"""The key of which the result shows the names, so that others make it another result."""


@dataclasses.dataclass(frozen=True)
class Identity:
    """What something is that a stage reads."""

    key: str  # of the stage, which names it
    name: str
    fingerprint: str  # of what it is made from
    content: str | None  # fingerprint of itself; None where it is still to be made


@dataclasses.dataclass(frozen=True)
class StageRecord:
    """What a stage was made from."""

    state: Literal["begun", "finished"]
    job: str
    settings: Mapping[str, Any]  # by dotted key
    inputs: tuple[Identity, ...]
    fingerprint: str  # of all of these
    content: str | None = None  # fingerprint of what it made
    result: str = ""


def read_record(folder: Path) -> StageRecord | None:
    """The record in a folder; None where there is none, or where a stage began and left nothing else.

    Raises:
        UserError: it cannot be read, or the folder holds something that no pipeline wrote.
    """
    path, others = folder / RECORD, sorted(name for name in _entries(folder) if name[0] != ".")
    if not path.exists():
        if others or (folder.exists() and not folder.is_dir()):
            what = f"holds {', '.join(others[:3])} that no pipeline wrote" if others else "is a file"
            raise UserError(f"{folder} {what}: choose another output folder")
        return None
    try:
        document = _renamed(read_yaml(path))
        inputs = tuple(Identity(**_renamed(each)) for each in document.pop("inputs"))
        record = StageRecord(inputs=inputs, **document)
    except (UserError, TypeError, KeyError, AttributeError) as error:
        raise UserError(f"{path} cannot be read: move {folder} away, or choose another output folder") from error
    return record if others or record.state == "finished" else None


class RecordWriter:
    """Records in the folder of a stage that it is at work, and then what came of it.

    Where it replaces a training, the record of that stays until the job changes something there: it may fail before.
    """

    def __init__(self, folder: Path, record: StageRecord, replaces: bool) -> None:
        self.folder, self.record = folder, record
        self._before = _entries(folder) if replaces else None
        self._has_begun = False
        self.begin()

    def begin(self) -> None:
        """Write the record, when it is time and once."""
        if not self._has_begun and _entries(self.folder) != self._before:
            self._write(self.record)

    def finish(self, content: str, result: str) -> None:
        """Record what came of it."""
        self._write(dataclasses.replace(self.record, state="finished", content=content, result=result))

    def _write(self, record: StageRecord) -> None:
        write_atomically(self.folder / RECORD, HEADER + dump_yaml(to_plain(record)))
        self._has_begun = True


def relevant_settings(job: Job, without: Iterable[str] = ()) -> dict[str, Any]:
    """All that can make a difference to a stage except for what it reads, by dotted key, `without` some groups."""
    left_out = {*job.references(), "config", *job.FREE, *without} - {SHOWN}
    return {
        key: value
        for key, value in leaves(to_dict(job), take_lists_apart=False)
        if not any(key == each or key.startswith(f"{each}.") for each in left_out)
    }


def changes(job: Job, record: StageRecord, goes_on: bool = False) -> list[str]:
    """What is said of a stage now that was not when it was made: `settings.batch_size (64, now 32)`.

    A setting that the record does not know came with a newer version of the package; its default changes nothing.
    What must stay until the stage has finished counts if it `goes_on`.
    """
    now = relevant_settings(job, () if goes_on else job.HELD)
    defaults = dict(leaves(to_dict(job.default(to_dict(job))), take_lists_apart=False))
    return changed({key: record.settings.get(key, defaults.get(key)) for key in now}, now)


def fingerprint(job: Job, inputs: Sequence[Identity]) -> str:
    """Fingerprint of all that a stage is made from."""
    settings = relevant_settings(job, job.HELD)
    facts = [job.NAME, settings, [[each.key, each.fingerprint] for each in inputs]]
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def content(kind: str, source: PathLike) -> str:
    """Fingerprint of something that a stage reads or made: a folder, a file, or a policy by name.

    Raises:
        UserError: it is not there, or cannot be read.
    """
    path, digest = Path(source), hashlib.sha256()
    if kind == POLICY and not path.is_file():
        policy = load_policy(source)
        assert isinstance(policy, torch.nn.Module)
        for name, tensor in policy.state_dict().items():  # whatever its card says
            digest.update(f"{name} {tuple(tensor.shape)}\n".encode())
            digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()
    files = [path]
    if kind == TEACHERS:
        files = [path / WEIGHTS, *sorted((path / VEHICLES).glob("*.json"))]
    elif kind == QUADROTORS and path.is_dir():
        files = sorted(path.glob("*.json"))
        if not files:
            raise UserError(f"{path} holds no quadrotors: make some with raptor sample, or name another folder")
    try:
        for file in files:
            digest.update(f"{file.name}\n".encode() if path.is_dir() else b"")
            digest.update(file.read_bytes())
    except OSError as error:
        raise UserError(f"cannot read {error.filename or path}: {error.strerror}") from error
    return digest.hexdigest()


def _entries(folder: Path) -> dict[str, int]:
    """What is in a folder besides the record, and when each was written."""
    if not folder.is_dir():
        return {}
    return {entry.name: entry.stat().st_mtime_ns for entry in folder.iterdir() if entry.name != RECORD}


def _renamed(document: Mapping[str, Any]) -> dict[str, Any]:
    return {RENAMED.get(key, key): value for key, value in document.items()}
