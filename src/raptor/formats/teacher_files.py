"""A folder of teachers: their weights, what is known about them, and the vehicle of each; read without executing code.

`teachers.safetensors` holds the stacked weights, `teachers.json` the architecture and the records, `quadrotors/` one
JSON file for each vehicle. The JSON file is written last: a folder without it is not complete.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import itertools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from raptor.core.atomic import PathLike, checked_path, write_atomically
from raptor.core.devices import find_device
from raptor.core.errors import UserError
from raptor.core.plain import to_plain
from raptor.formats.weights import LARGEST_WIDTH, check_values
from raptor.nn.activations import Activations
from raptor.nn.stacked_mlp import Layer, Layers
from raptor.nn.teachers import TeacherPopulation
from raptor.quadrotor import Quadrotors
from raptor.quadrotor.documents import is_finite_number
from raptor.quadrotor.numbered import save_numbered

FORMAT = "raptor-teachers"
VERSION = 1
DOCUMENT, WEIGHTS, QUADROTORS = "teachers.json", "teachers.safetensors", "quadrotors"
_LARGEST_DOCUMENT = 2**27  # bytes
_LARGEST_HEADER = 2**20  # bytes before the weights


def save_teachers(teachers: TeacherPopulation, folder: PathLike, overwrite: bool = False) -> None:
    """Write teachers to a folder; each file appears complete or not at all.

    Numbers in records that are not finite are written as null.

    Args:
        teachers: on any device.
        folder: created if it is not there.
        overwrite: replace the teachers that are there.

    Raises:
        UserError: no teacher, weights that are not finite, a record of other than plain data, teachers in the folder
            that are not to be replaced, or a file that cannot be written.
    """
    from safetensors.torch import save

    target = Path(folder)
    if len(teachers) == 0:
        raise UserError(f"there are no teachers to write to {target}: give at least one")
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in _named(teachers.layers).items()}
    check_values(tensors, f"the teachers to be written to {target}", stacked=True)
    content = save(tensors)
    vehicles = teachers.quadrotors
    document = {
        "format": FORMAT,
        "version": VERSION,
        "architecture": {
            "widths": list(teachers.widths),
            "activation": teachers.activations.hidden,
            "output_activation": teachers.activations.output,
        },
        "weights_sha256": hashlib.sha256(content).hexdigest(),
        "quadrotors": None if vehicles is None else list(vehicles.names or map(str, range(len(vehicles)))),
        "teachers": [to_plain(record, f"records[{i}]", finite=True) for i, record in enumerate(teachers.records)],
    }
    if not overwrite and any((target / name).exists() for name in (DOCUMENT, WEIGHTS, QUADROTORS)):
        raise UserError(f"{target} already holds teachers: choose another folder, or overwrite")
    with contextlib.suppress(OSError):  # whatever is in the way is named by the writing below
        (target / DOCUMENT).unlink()
    if vehicles is not None:
        save_numbered(vehicles.to("cpu"), target / QUADROTORS, overwrite)
    write_atomically(target / WEIGHTS, content)
    write_atomically(target / DOCUMENT, f"{json.dumps(document, indent=1, allow_nan=False)}\n")


def load_teachers(folder: PathLike, device: torch.device | str = "cpu") -> TeacherPopulation:
    """Read teachers with their vehicles and records.

    Args:
        folder: of `save_teachers`.
        device: of the weights and of the vehicles.

    Raises:
        UserError: a file is missing, truncated, damaged or of another kind, weights have wrong shapes or are not
            finite, or the numbers of weights, records and vehicles differ; names the file and the thing.
    """
    find_device(device)
    source = checked_path(folder, "the teachers")
    if not (source / DOCUMENT).is_file():
        other = "it is no folder" if source.exists() else "there is no such folder"
        reason = f"it lacks {DOCUMENT}" if source.is_dir() else other
        raise UserError(f"{source} holds no teachers ({reason}): give the output of raptor pre-train")
    document = _read_document(source / DOCUMENT)
    layers = _read_weights(source / WEIGHTS, document)
    activations = _activations(document, source / DOCUMENT)
    quadrotors, records = _read_quadrotors(source, document), tuple(document["teachers"])
    return TeacherPopulation(layers, quadrotors, records, activations).to(device)


def _read_document(path: Path) -> dict[str, Any]:
    content = _read(path, _LARGEST_DOCUMENT)
    try:
        document = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is truncated or not valid JSON: {error}") from error
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise UserError(f"{path} describes no teachers of this package (format {FORMAT!r}): give another folder")
    if document.get("version") != VERSION:
        raise UserError(
            f"{path} has version {document.get('version')!r} of the format of teachers, this package reads {VERSION}: "
            "use the raptor-python that wrote it, or a newer one"
        )
    widths = document.get("architecture", {}).get("widths") if isinstance(document.get("architecture"), dict) else None
    if not isinstance(widths, list) or len(widths) < 2 or not all(map(_is_width, widths)):
        raise UserError(f"architecture.widths must be at least two whole numbers, got {widths!r} ({path})")
    records, names = document.get("teachers"), document.get("quadrotors")
    if not isinstance(records, list) or not records or not all(isinstance(record, dict) for record in records):
        raise UserError(f"teachers must be a list with a group for each teacher ({path})")
    for i, record in enumerate(records):
        records[i] = to_plain(record, f"teachers[{i}]", from_file=path)
        offset = record.get("position_offset")
        if offset is not None and not _is_vector(offset):
            raise UserError(f"teachers[{i}].position_offset must be three numbers, got {offset!r} ({path})")
    if names is not None:
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise UserError(f"quadrotors must be a list of names, or null ({path})")
        if len(names) != len(records):
            raise UserError(f"{path} describes {len(records)} teachers, but {len(names)} quadrotors: it is damaged")
    return document


def _activations(document: Mapping[str, Any], path: Path) -> Activations:
    """The activation functions by the architecture in a document."""
    found = {key: value for key, value in document["architecture"].items() if key != "widths"}
    known = ("activation", "output_activation")
    if set(found) != set(known) or not all(isinstance(value, str) for value in found.values()):
        raise UserError(f"architecture must have the widths, {' and '.join(known)}, got {found} ({path})")
    try:
        return Activations(*(found[name] for name in known))
    except UserError as error:
        raise UserError(f"{error} ({path})") from error


def _read_weights(path: Path, document: Mapping[str, Any]) -> Layers:
    from safetensors import SafetensorError
    from safetensors.torch import load

    num, widths = len(document["teachers"]), document["architecture"]["widths"]
    numbers = num * sum((fan_in + 1) * out for fan_in, out in itertools.pairwise(widths))
    content = _read(path, _LARGEST_HEADER + 8 * numbers)
    try:
        tensors = load(content)
    except (SafetensorError, ValueError, KeyError) as error:
        raise UserError(f"{path} is truncated or no safetensors file: {error}") from error
    shapes: dict[str, tuple[int, ...]] = {}
    for i, (fan_in, out) in enumerate(itertools.pairwise(widths)):
        shapes |= {f"layers.{i}.weight": (num, out, fan_in), f"layers.{i}.bias": (num, out)}
    for name, shape in shapes.items():
        got = tuple(tensors[name].shape) if name in tensors else None
        if got is None:
            raise UserError(f"{path} lacks the weights {name}: it is damaged, or of another architecture")
        if got[1:] == shape[1:] and got[:1] != shape[:1]:
            raise UserError(f"{path} holds {got[0]} teachers, but {DOCUMENT} beside it describes {num}")
        if got != shape:
            raise UserError(f"{name} must have shape {shape} by {DOCUMENT}, got {got} ({path})")
    if extra := sorted(tensors.keys() - shapes):
        raise UserError(f"{path} holds another architecture: {DOCUMENT} beside it knows of no {extra[0]}")
    check_values(tensors, path, stacked=True)
    if document.get("weights_sha256") not in (None, hashlib.sha256(content).hexdigest()):
        raise UserError(f"{path} is damaged or not the one that {DOCUMENT} beside it describes: its checksum differs")
    return tuple(Layer(tensors[f"layers.{i}.weight"], tensors[f"layers.{i}.bias"]) for i in range(len(widths) - 1))


def _read_quadrotors(source: Path, document: Mapping[str, Any]) -> Quadrotors | None:
    names, folder = document.get("quadrotors"), source / QUADROTORS
    if names is None:
        return None
    if not folder.is_dir():
        raise UserError(f"{source} lacks the folder {QUADROTORS}: copy it along with {DOCUMENT}")
    quadrotors = Quadrotors.from_json(folder)
    if len(quadrotors) != len(names):
        raise UserError(f"{folder} holds {len(quadrotors)} quadrotors, but {DOCUMENT} describes {len(names)} teachers")
    return dataclasses.replace(quadrotors, names=tuple(to_plain(names, "quadrotors", source / DOCUMENT)))


def _read(path: Path, largest: int) -> bytes:
    """The content of a file, if it is no larger than so many bytes."""
    try:
        if path.stat().st_size > largest:
            raise UserError(f"{path} was refused: it has {path.stat().st_size} bytes, at most {largest} are read")
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error


def _named(layers: Layers) -> dict[str, Tensor]:
    """The weights by their names in the file."""
    return {
        f"layers.{i}.{field}": tensor
        for i, layer in enumerate(layers)
        for field, tensor in zip(Layer._fields, layer, strict=True)
    }


def _is_width(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= LARGEST_WIDTH


def _is_vector(value: Any) -> bool:
    """Whether it is three numbers, each of which may be unknown."""
    return isinstance(value, list) and len(value) == 3 and all(x is None or is_finite_number(x) for x in value)
