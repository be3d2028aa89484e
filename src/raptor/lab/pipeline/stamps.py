"""What a stage was made from, noted in its folder, and fingerprints of what stages read and make."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import torch
import yaml

from raptor.config import to_dict
from raptor.config.load import changed, leaves
from raptor.core.atomic import PathLike, write_atomically
from raptor.core.errors import UserError
from raptor.formats import load_policy
from raptor.formats.teacher_files import QUADROTORS as VEHICLES
from raptor.formats.teacher_files import WEIGHTS
from raptor.lab.pipeline.graph import Stage
from raptor.lab.pipeline.stages import POLICY, QUADROTORS, TEACHERS, references

STAMP = "stage.yaml"
HEADER = "# Written by raptor run: what this folder was made from.\n"
SHOWN = "policies"
"""The key of which the result shows the names, so that others make it another result."""


@dataclasses.dataclass(frozen=True)
class Identity:
    """What something that a stage reads is."""

    key: str  # of the stage, which names it
    name: str
    recipe: str  # fingerprint of what it is made from
    content: str | None  # fingerprint of itself; None where it is still to be made


@dataclasses.dataclass(frozen=True)
class Stamp:
    """What a stage was made from."""

    state: Literal["begun", "finished"]
    job: str
    settings: Mapping[str, Any]  # by dotted key
    inputs: tuple[Identity, ...]
    recipe: str
    content: str | None = None  # of what it made
    result: str = ""


def read_stamp(folder: Path) -> Stamp | None:
    """The stamp in a folder; None where none is, or where a stage began and left nothing else.

    Raises:
        UserError: it cannot be read, or the folder holds something that no pipeline wrote.
    """
    path, others = folder / STAMP, sorted(name for name in _entries(folder) if name[0] != ".")
    if not path.exists():
        if others or (folder.exists() and not folder.is_dir()):
            what = f"holds {', '.join(others[:3])} that no pipeline wrote" if others else "is a file"
            raise UserError(f"{folder} {what}: choose another output folder")
        return None
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
        inputs = tuple(Identity(**each) for each in document.pop("inputs"))
        stamp = Stamp(inputs=inputs, **document)
    except (OSError, yaml.YAMLError, UnicodeDecodeError, TypeError, KeyError, AttributeError) as error:
        raise UserError(f"{path} cannot be read: move {folder} away, or choose another output folder") from error
    return stamp if others or stamp.state == "finished" else None


def write_stamp(folder: Path, stamp: Stamp) -> None:
    """Note in a folder what it is made from."""
    document = dataclasses.asdict(stamp) | {"inputs": [dataclasses.asdict(each) for each in stamp.inputs]}
    text = yaml.safe_dump(document, sort_keys=False, default_flow_style=None, allow_unicode=True, width=120)
    write_atomically(folder / STAMP, HEADER + text)


class Mark:
    """Notes that a stage is at work in a folder.

    Args:
        folder: of the stage.
        stamp: of what it begins to make.
        replaces: leave the stamp of the earlier training until the job lays hands on that: it may fail before.
    """

    def __init__(self, folder: Path, stamp: Stamp, replaces: bool) -> None:
        self.folder, self.stamp = folder, stamp
        self._before = _entries(folder) if replaces else None
        self._is_set = False
        self.set()

    def set(self) -> None:
        """Write the stamp when it is time."""
        if not self._is_set and _entries(self.folder) != self._before:
            self._write(self.stamp)

    def finish(self, content: str, result: str) -> None:
        """Note what came of it."""
        self._write(dataclasses.replace(self.stamp, state="finished", content=content, result=result))

    def _write(self, stamp: Stamp) -> None:
        write_stamp(self.folder, stamp)
        self._is_set = True


def material(stage: Stage, without: Iterable[str] = ()) -> dict[str, Any]:
    """All that can make a difference to a stage but what it reads, by dotted key.

    Args:
        stage: the stage.
        without: keys that shall not count either, with all that they hold.
    """
    left_out = {*references(stage.job.keys), "job", "config", *stage.job.free, *without} - {SHOWN}
    return {
        key: value
        for key, value in leaves(to_dict(stage.keys), take_lists_apart=False)
        if not any(key == each or key.startswith(f"{each}.") for each in left_out)
    }


def changes(stage: Stage, stamp: Stamp, goes_on: bool = False) -> list[str]:
    """What is said of a stage now that was not when it was made: `settings.batch_size (64, now 32)`.

    A setting that the stamp does not know came with a newer version of the package; its default changes nothing.

    Args:
        stage: as it is now.
        stamp: as it was.
        goes_on: count what must stay until the stage has finished, too.
    """
    now = material(stage, () if goes_on else stage.job.held)
    defaults = dict(leaves(to_dict(type(stage.keys)()), take_lists_apart=False))
    return changed({key: stamp.settings.get(key, defaults.get(key)) for key in now}, now)


def recipe(stage: Stage, inputs: tuple[Identity, ...]) -> str:
    """Fingerprint of all that a stage is made from."""
    told = [stage.job.name, material(stage, stage.job.held), [[each.key, each.recipe] for each in inputs]]
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


def content(kind: str, source: PathLike) -> str:
    """Fingerprint of something that a stage reads or made.

    Args:
        kind: see `raptor.lab.pipeline.stages`.
        source: a folder, a file or the name of a policy.

    Raises:
        UserError: it is not there, or cannot be read.
    """
    path, digest = Path(source), hashlib.sha256()
    if kind == POLICY and not path.is_file():
        policy = load_policy(source)
        assert isinstance(policy, torch.nn.Module)
        for name, tensor in policy.state_dict().items():  # whatever its card tells
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
    """What is in a folder besides the stamp, and when each was written."""
    if not folder.is_dir():
        return {}
    return {entry.name: entry.stat().st_mtime_ns for entry in folder.iterdir() if entry.name != STAMP}
