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
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from raptor.core.atomic import PathLike, checked_path, write_atomically
from raptor.core.devices import find_device
from raptor.core.errors import UserError
from raptor.core.yaml_files import to_plain
from raptor.formats.checkpoint import check_values, is_width
from raptor.nn.activations import Activations
from raptor.nn.stacked_mlp import Layer, Layers
from raptor.nn.teachers import TeacherPopulation
from raptor.quadrotor.parameters import Quadrotors, is_finite_number

FORMAT, VERSION = "raptor-teachers", 1
DOCUMENT, WEIGHTS, QUADROTORS = "teachers.json", "teachers.safetensors", "quadrotors"
_FUNCTIONS = ("activation", "output_activation")
_LARGEST_DOCUMENT = 2**27  # bytes
_LARGEST_HEADER = 2**20  # bytes before the weights


def save_teachers(teachers: TeacherPopulation, folder: PathLike, overwrite: bool = False) -> None:
    """Write teachers, on any device, to a folder; each file appears complete or not at all.

    Numbers in records that are not finite are written as null. `overwrite` replaces the teachers that are there.
    """
    from safetensors.torch import save

    target = Path(folder)
    if len(teachers) == 0:
        raise UserError(f"there are no teachers to write to {target}: give at least one")
    tensors = {
        f"layers.{i}.{field}": tensor.detach().cpu().contiguous()
        for i, layer in enumerate(teachers.layers)
        for field, tensor in layer._asdict().items()
    }
    check_values(tensors, f"the teachers to be written to {target}", stacked=True)
    content = save(tensors)
    vehicles = teachers.quadrotors
    document = {
        "format": FORMAT,
        "version": VERSION,
        "architecture": {"widths": list(teachers.widths)}
        | dict(zip(_FUNCTIONS, dataclasses.astuple(teachers.activations), strict=True)),
        "weights_sha256": hashlib.sha256(content).hexdigest(),
        "quadrotors": None if vehicles is None else list(vehicles.names or map(str, range(len(vehicles)))),
        "teachers": [to_plain(record, f"records[{i}]", finite=True) for i, record in enumerate(teachers.records)],
    }
    if not overwrite and any((target / name).exists() for name in (DOCUMENT, WEIGHTS, QUADROTORS)):
        raise UserError(f"{target} already holds teachers: choose another folder, or overwrite")
    with contextlib.suppress(OSError):  # whatever is in the way is named by the writing below
        (target / DOCUMENT).unlink()
    if vehicles is not None:
        vehicles.to("cpu").save(target / QUADROTORS, overwrite, numbered=True)
    write_atomically(target / WEIGHTS, content)
    write_atomically(target / DOCUMENT, f"{json.dumps(document, indent=1, allow_nan=False)}\n")


def load_teachers(folder: PathLike, device: torch.device | str = "cpu") -> TeacherPopulation:
    """Read teachers with their vehicles and records from a folder of `save_teachers`, completely checked."""
    find_device(device)
    source = checked_path(folder, "the teachers")
    if not (source / DOCUMENT).is_file():
        other = "it is no folder" if source.exists() else "there is no such folder"
        reason = f"it lacks {DOCUMENT}" if source.is_dir() else other
        raise UserError(f"{source} holds no teachers ({reason}): give the output of raptor pre-train")
    document = _read_document(source / DOCUMENT)
    layers = _read_weights(source / WEIGHTS, document)
    quadrotors, names = None, document["quadrotors"]
    if names is not None:
        if not (vehicles := source / QUADROTORS).is_dir():
            raise UserError(f"{source} lacks the folder {QUADROTORS}: copy it along with {DOCUMENT}")
        quadrotors = Quadrotors.from_json(vehicles)
        if (num := len(quadrotors)) != len(names):
            raise UserError(f"{vehicles} holds {num} quadrotors, but {DOCUMENT} describes {len(names)} teachers")
        quadrotors = dataclasses.replace(quadrotors, names=tuple(names))
    return TeacherPopulation(layers, quadrotors, tuple(document["teachers"]), document["activations"]).to(device)


def _read_document(path: Path) -> dict[str, Any]:
    """The document, complete and checked, with `Activations` in it."""
    content = _read(path, _LARGEST_DOCUMENT)
    try:
        document = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is truncated or not valid JSON: {error}") from error
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise UserError(f"{path} describes no teachers of this package (format {FORMAT!r}): give another folder")
    if document.get("version") != VERSION:
        found = f"{path} has version {document.get('version')!r} of the format of teachers"
        remedy = "use the raptor-python that wrote it, or a newer one"
        raise UserError(f"{found}, this package reads {VERSION}: {remedy}")

    def check(holds: bool, sentence: str) -> None:
        if not holds:
            raise UserError(f"{sentence} ({path})")

    architecture = document.get("architecture")
    functions = dict(architecture) if isinstance(architecture, dict) else {}
    widths, names = functions.pop("widths", None), document.setdefault("quadrotors", None)
    records: Any = document.get("teachers")
    are_widths = isinstance(widths, list) and len(widths) > 1 and all(map(is_width, widths))
    check(are_widths, f"architecture.widths must be at least two whole numbers, got {widths!r}")
    are_named = set(functions) == set(_FUNCTIONS) and all(isinstance(name, str) for name in functions.values())
    check(are_named, f"architecture must have the widths, {' and '.join(_FUNCTIONS)}, got {functions}")
    are_records = isinstance(records, list) and records and all(isinstance(record, dict) for record in records)
    check(bool(are_records), "teachers must be a list with a group for each teacher")
    for i, record in enumerate(records):
        records[i] = to_plain(record, f"teachers[{i}]", from_file=path)
        offset = record.get("position_offset")
        are_numbers = isinstance(offset, list) and all(x is None or is_finite_number(x) for x in offset)
        is_vector = offset is None or (are_numbers and len(offset) == 3)
        check(is_vector, f"teachers[{i}].position_offset must be three numbers, got {offset!r}")
    if names is not None:
        are_names = isinstance(names, list) and all(isinstance(name, str) for name in names)
        check(are_names, "quadrotors must be a list of names, or null")
        check(len(names) == len(records), f"it describes {len(records)} teachers, but {len(names)} quadrotors")
        document["quadrotors"] = to_plain(names, "quadrotors", from_file=path)
    try:
        return document | {"activations": Activations(*(functions[name] for name in _FUNCTIONS))}
    except UserError as error:
        raise UserError(f"{error} ({path})") from error


def _read_weights(path: Path, document: Mapping[str, Any]) -> Layers:
    from safetensors import SafetensorError
    from safetensors.torch import load

    num, widths = len(document["teachers"]), document["architecture"]["widths"]
    shapes: dict[str, tuple[int, ...]] = {}
    for i, (fan_in, out) in enumerate(itertools.pairwise(widths)):
        shapes |= {f"layers.{i}.weight": (num, out, fan_in), f"layers.{i}.bias": (num, out)}
    content = _read(path, _LARGEST_HEADER + 8 * sum(map(math.prod, shapes.values())))
    try:
        tensors = load(content)
    except (SafetensorError, ValueError, KeyError) as error:
        raise UserError(f"{path} is truncated or no safetensors file: {error}") from error
    for name, shape in shapes.items():
        if name not in tensors:
            raise UserError(f"{path} lacks the weights {name}: it is damaged, or of another architecture")
        got = tuple(tensors[name].shape)
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


def _read(path: Path, largest: int) -> bytes:
    try:
        if (size := path.stat().st_size) > largest:
            raise UserError(f"{path} was refused: it has {size} bytes, at most {largest} are read")
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error
