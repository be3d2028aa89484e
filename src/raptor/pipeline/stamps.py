"""What a stage was made from, noted in its folder, and fingerprints of what stages read and make."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import torch
import yaml

from raptor.atomic import PathLike, write_atomically
from raptor.config import to_dict
from raptor.config.schema import show
from raptor.errors import UserError
from raptor.nn import load_policy
from raptor.nn.teacher_files import WEIGHTS
from raptor.pipeline.graph import Stage
from raptor.pipeline.stages import POLICY, QUADROTORS, TEACHERS, references

STAMP = "stage.yaml"
HEADER = "# Written by raptor run: what this folder was made from.\n"


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

    state: Literal["replacing", "begun", "finished"]  # replacing: what was there before may still be there
    job: str
    settings: Mapping[str, Any]  # by dotted key
    inputs: tuple[Identity, ...]
    recipe: str
    content: str | None = None  # of what it made
    wall_clock_s: float = 0.0  # over all sessions
    result: str = ""


def read_stamp(folder: Path) -> Stamp | None:
    """The stamp in a folder; None where none is.

    Raises:
        UserError: it cannot be read, or the folder holds something that no pipeline wrote.
    """
    path = folder / STAMP
    if not path.exists():
        visible = sorted(entry.name for entry in folder.iterdir() if entry.name[0] != ".") if folder.is_dir() else []
        if visible or (folder.exists() and not folder.is_dir()):
            what = f"holds {', '.join(visible[:3])} that no pipeline wrote" if visible else "is a file"
            raise UserError(f"{folder} {what}: choose another output folder")
        return None
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
        inputs = tuple(Identity(**each) for each in document.pop("inputs"))
        return Stamp(inputs=inputs, **document)
    except (OSError, yaml.YAMLError, UnicodeDecodeError, TypeError, KeyError, AttributeError) as error:
        raise UserError(f"{path} cannot be read: move {folder} away, or choose another output folder") from error


def write_stamp(folder: Path, stamp: Stamp) -> None:
    """Note in a folder what it is made from."""
    text = yaml.safe_dump(
        dataclasses.asdict(stamp) | {"inputs": [dataclasses.asdict(i) for i in stamp.inputs]},
        sort_keys=False,
        default_flow_style=None,
        allow_unicode=True,
        width=120,
    )
    write_atomically(folder / STAMP, HEADER + text)


def material(stage: Stage) -> dict[str, Any]:
    """All that makes a difference to the result of a stage but what it reads, by dotted key."""
    hidden = {reference.key for reference in references(stage.job.keys) if not reference.shown}
    told = {key: value for key, value in to_dict(stage.keys).items() if key not in hidden | {"job", "config"}}
    incidental = stage.job.incidental
    return {
        key: value
        for key, value in _leaves(told)
        if not any(key == each or key.startswith(f"{each}.") for each in incidental)
    }


def changes(stage: Stage, stamp: Stamp) -> list[str]:
    """What is said of a stage now that was not when it was made: `settings.batch_size (64, now 32)`.

    A setting that the stamp does not know came with a newer version of the package; its default changes nothing.
    """
    now, defaults = material(stage), dict(_leaves(to_dict(type(stage.keys)())))
    before = {key: stamp.settings.get(key, defaults.get(key)) for key in now}
    return [f"{key} ({_short(before[key])}, now {_short(now[key])})" for key in now if before[key] != now[key]]


def recipe(stage: Stage, inputs: tuple[Identity, ...]) -> str:
    """Fingerprint of all that a stage is made from."""
    return _digest([stage.job.name, material(stage), [[each.key, each.recipe] for each in inputs]])


def content(kind: str, source: PathLike) -> str:
    """Fingerprint of something that a stage reads or made.

    Args:
        kind: see `raptor.pipeline.stages`.
        source: a folder, a file or the name of a policy.

    Raises:
        UserError: it is not there, or cannot be read.
    """
    if kind == POLICY and not Path(source).is_file():
        policy = load_policy(source)
        assert isinstance(policy, torch.nn.Module)
        return _weights(policy)
    path = Path(source)
    try:
        files = [path]
        if kind == TEACHERS:
            files = [path / WEIGHTS]
        elif kind == QUADROTORS and path.is_dir():
            files = sorted(path.glob("*.json"))
        digest = hashlib.sha256()
        for file in files:
            digest.update(f"{file.name}\n".encode() if path.is_dir() else b"")
            digest.update(file.read_bytes())
    except OSError as error:
        raise UserError(f"cannot read {error.filename or path}: {error.strerror}") from error
    if not files:
        raise UserError(f"{path} holds no quadrotors: make some with raptor sample, or name another folder")
    return digest.hexdigest()


def _weights(policy: torch.nn.Module) -> str:
    """Of what a policy is, whatever its card tells."""
    digest = hashlib.sha256()
    for name, tensor in policy.state_dict().items():
        digest.update(f"{name} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _digest(document: Any) -> str:
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()


def _leaves(document: Mapping[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    for key, value in document.items():
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, (*path, key))
        else:
            yield ".".join((*path, key)), value


def _short(value: Any) -> str:
    text = show(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
