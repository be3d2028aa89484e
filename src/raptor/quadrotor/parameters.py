"""Quadrotors: the parameters of N vehicles, found by name or in files, with reading and writing at full precision.

Nine were measured by their builders, one JSON file each. Source: the parameter registry of rl-tools; rotors are in
crazyflie order, and what was corrected stands under `notes`. The schema of the files is that of `parameters_to_json` of
l2f 2.0.18; reward, start and trajectory mixture are those of RAPTOR's training.
"""

from __future__ import annotations

import copy
import dataclasses
import json
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from raptor.core.atomic import PathLike, write_atomically
from raptor.core.compilation import register
from raptor.core.errors import UserError
from raptor.quadrotor.files import find_files, format_document, is_finite_number, plain, read_json, shown
from raptor.quadrotor.validation import characteristics, validate
from raptor.quadrotor.vehicles import FIELDS, Vehicles
from raptor.quadrotor.vehicles import NUM_ROTORS as NUM_ROTORS

PLATFORMS = ("crazyflie", "x500_real", "x500_sim", "mrs", "fs", "race", "flightmare", "soft", "soft_rigid")
_MOTORS = ("rotor_time_constant_rising", "rotor_time_constant_falling")
PORTION = 50  # files between two reports of progress

TEMPLATE: dict[str, Any] = json.loads(Path(__file__).with_name("template.json").read_text(encoding="utf-8"))
"""A complete document. The numbers of the group `dynamics` are placeholders."""

DEFAULT_GROUPS: dict[str, Any] = {group: content for group, content in TEMPLATE.items() if group != "dynamics"}
"""What stands in for a group that a file leaves out."""


@register(constant=("names", "documents"))
@dataclasses.dataclass(frozen=True)
class Quadrotors(Vehicles):
    """Parameters of N quadrotors; the leading axis of every tensor is the population.

    Rotors are in crazyflie order: front-right, back-right, back-left, front-left. Body frame FLU. The last four tensor
    fields are not dynamics; they travel with a vehicle because each is scaled to it.
    """

    def __repr__(self) -> str:
        """How many, their first names, and the range of what characterises them, in five lines."""
        names = ", ".join((self.names or ())[:3]) + (", ..." if len(self.names or ()) > 3 else "")
        lines = [f"Quadrotors: {self.shape.numel()}{f' ({names})' if names else ''}, {self.dtype} on {self.device}"]
        if type(self.mass) is Tensor and self.mass.numel() and not self.mass.is_meta:
            traits = characteristics(self)
            for group in (
                ("mass", "arm_length"),
                ("thrust_to_weight", "torque_to_inertia"),
                ("hover_throttle",),
                _MOTORS,
            ):
                ranges = []
                for label, unit, values in ((traits[key].label, traits[key].unit, traits[key].values) for key in group):
                    low, high = values.min().item(), values.max().item()
                    number = f"{low:.4g}" if low == high else f"{low:.4g} to {high:.4g}"
                    ranges.append(f"{label} {number} {unit}".rstrip())
                lines.append(f"  {'; '.join(ranges)}")
        return "\n".join(lines)

    @classmethod
    def from_json(
        cls,
        paths: PathLike | Sequence[PathLike],
        dtype: torch.dtype = torch.float32,
        device: torch.device | str | None = None,
    ) -> Quadrotors:
        """Read one file, a list of files, or a folder of `*.json` (in natural order: 2.json, 10.json) in l2f's schema.

        Errors name the file and the JSON path of what is missing, of the wrong shape, or impossible.
        """
        found = find_files(paths)
        return cls.from_dicts(map(read_json, found), dtype, device, [file.stem for file in found], found)

    @classmethod
    def from_dicts(
        cls,
        documents: Iterable[Mapping[str, Any]],
        dtype: torch.dtype = torch.float32,
        device: torch.device | str | None = None,
        names: Sequence[str] | None = None,
        sources: Sequence[PathLike] | None = None,
    ) -> Quadrotors:
        """Build vehicles from documents in l2f's schema, one for each; errors name the file, which is in `sources`.

        The group `dynamics` is enough; another group that is there must be complete. Unknown keys are kept, and so is
        every digit, whatever the `dtype` of the tensors, for writing.
        """
        given = [
            _complete(document, f" ({f'vehicle {i}' if sources is None else os.fspath(sources[i])})")
            for i, document in enumerate(documents)
        ]
        if not given:
            raise UserError("no quadrotors were given: at least one document is needed")
        exact = cls(**_tensors(given), names=None if names is None else tuple(names), documents=tuple(given))
        valid = validate(exact, sources)
        if valid is not exact:  # the inertia of some was rebuilt
            for document, rebuilt in zip(given, valid.inertia.tolist(), strict=True):
                FIELDS["inertia"].write(document, rebuilt)
        cast = valid.to(dtype=dtype)
        for field, tensor in cast.tensors().items():
            numbers = getattr(valid, field)
            lost = ~torch.isfinite(tensor) | ((tensor == 0) & (numbers != 0))
            if lost.any():
                number = numbers[lost][0].item()
                raise UserError(f"{field} holds {number!r}, which {dtype} cannot: read with dtype=torch.float64")
        return cast.to(device)

    def to_dicts(self) -> list[dict[str, Any]]:
        """One complete document in l2f's schema for each vehicle.

        A number that is still the one read from a vehicle's document is written as it stood there, digit for digit,
        also where the tensors are of lower precision. `hovering_throttle_relative` is computed from the thrust curve.
        """
        tensors = {name: tensor.detach().cpu() for name, tensor in self.tensors().items()}
        read = self.documents or [None] * len(self)
        documents = [copy.deepcopy(TEMPLATE if document is None else dict(document)) for document in read]
        for i, document in enumerate(documents):
            for name, field in FIELDS.items():
                field.write(document, _numbers(tensors[name][i], None if read[i] is None else field.read(read[i])))
        if documents:
            hover_throttle = dataclasses.replace(self, **_tensors(documents)).hover_throttle
            for document, hover in zip(documents, hover_throttle.tolist(), strict=True):
                document["dynamics"]["hovering_throttle_relative"] = hover
        return documents

    def save(
        self,
        folder: PathLike,
        overwrite: bool = False,
        numbered: bool = False,
        progress: Callable[[int, int], None] | None = None,
    ) -> list[Path]:
        """Write one JSON file for each vehicle; everything is checked before, and each file appears complete or not.

        A folder that holds JSON files is an error, unless those of the same names may be overwritten. The files are
        `numbered` 0000.json, 0001.json, ..., also where the vehicles' names do not serve; asked for so, the numbered
        files of a larger population that was there are removed. `progress` is called now and then with how many files
        are written, and how many there are to be.
        """
        target, num = Path(folder), len(self)
        if num == 0:
            raise UserError(f"there are no quadrotors to write to {target}: give at least one")
        validate(self)
        if target.exists() and not target.is_dir():
            raise UserError(f"{target} is a file, but the quadrotors need a folder: choose another name")
        if not overwrite and target.is_dir() and any(target.glob("*.json")):
            raise UserError(f"{target} already holds JSON files: choose another folder, or overwrite")
        try:
            target.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"cannot write quadrotors to {target}: {error.strerror}") from error
        by_name = not numbered and _are_file_names(self.names or ())
        stems: Any = self.names if by_name else (f"{i:04d}" for i in range(num))
        paths = [target / f"{stem}.json" for stem in stems]
        for begin in range(0, num, PORTION):
            part = slice(begin, begin + PORTION)
            for path, document in zip(paths[part], self[part].to_dicts(), strict=True):
                write_atomically(path, format_document(document) + "\n")
            if progress is not None:
                progress(min(begin + PORTION, num), num)
        for path in set(target.glob("*.json")) - set(paths) if numbered else ():
            if re.fullmatch(r"[0-9]{4,}", path.stem):
                path.unlink(missing_ok=True)
        return paths


def load_platform(name: str, dtype: torch.dtype = torch.float32) -> Quadrotors:
    """One of `PLATFORMS` as a population of one."""
    if name not in PLATFORMS:
        raise UserError(f"there is no platform {name!r}: choose one of {', '.join(PLATFORMS)}")
    return Quadrotors.from_json(Path(__file__).parent / "platforms" / f"{name}.json", dtype)


def load_platforms(dtype: torch.dtype = torch.float32) -> Quadrotors:
    """All platforms as one population, in the order of `PLATFORMS`."""
    return Quadrotors.concatenate(load_platform(name, dtype) for name in PLATFORMS)


def _are_file_names(names: Sequence[str]) -> bool:
    usable = all(re.fullmatch(r"[^/\\:*?\"<>|\x00-\x1f.][^/\\:*?\"<>|\x00-\x1f]*", name) for name in names)
    return bool(names) and usable and len({name.casefold() for name in names}) == len(names)


def _tensors(documents: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return {
        name: torch.tensor([field.read(document) for document in documents], dtype=torch.float64)
        for name, field in FIELDS.items()
    }


def _numbers(tensor: Tensor, read: Any) -> Any:
    """The numbers of a tensor as Python floats, each as it was read where the tensor still holds that number."""
    if tensor.dtype == torch.float32:  # the shortest decimals that read back as the same float32
        numbers = tensor.numpy().astype(str).astype(np.float64)
    else:
        numbers = tensor.to(torch.float64).numpy()
    if read is None:
        return numbers.tolist()
    exact = torch.tensor(read, dtype=torch.float64)
    same = (exact.to(tensor.dtype) == tensor) | (exact.to(torch.float32) == tensor)
    return np.where(same.numpy(), np.asarray(read, dtype=object), numbers.astype(object)).tolist()


def _complete(document: Any, where: str) -> dict[str, Any]:
    """A copy with missing groups filled in, every key and shape checked; `where` it is from ends errors."""
    if not isinstance(document, Mapping):
        raise UserError(f"a quadrotor must be a JSON object with the group dynamics, got {shown(document)}{where}")
    filled = {**copy.deepcopy(DEFAULT_GROUPS), **plain(document)}
    ordered = {key: filled[key] for key in (*document, *filled)}
    _check(ordered, TEMPLATE, "", where)
    if ordered["trajectory"]["MIXTURE_N"] != 2:
        raise UserError(f"trajectory.MIXTURE_N must be 2, got {ordered['trajectory']['MIXTURE_N']}{where}")
    return ordered


def _check(value: Any, template: Any, path: str, where: str) -> None:
    def refuse(wanted: str, got: str) -> None:
        raise UserError(f"{path} must be {wanted}, got {got}{where}")

    if isinstance(template, Mapping):
        if not isinstance(value, Mapping):
            refuse(f"an object with keys {', '.join(template)}", shown(value))
        for key, inner in template.items():
            inner_path = f"{path}.{key}" if path else key
            if key not in value:
                group = path.split(".")[0]
                remedy = f", or leave out the whole group {group}" if group in DEFAULT_GROUPS else ""
                raise UserError(f"{inner_path} is missing{where}: add it{remedy}")
            _check(value[key], inner, inner_path, where)
    elif isinstance(template, list):
        wanted = np.shape(template)
        try:
            got = f"shape {np.shape(value)}"
        except ValueError:
            got = "ragged rows"
        if got != f"shape {wanted}":
            refuse(f"an array of shape {wanted}", f"{got}: {shown(value)}")
        for i, (entry, inner) in enumerate(zip(value, template, strict=True)):
            _check(entry, inner, f"{path}[{i}]", where)
    elif isinstance(template, bool) and not isinstance(value, bool):
        refuse("true or false", shown(value))
    elif not isinstance(template, bool) and not is_finite_number(value):
        refuse("a finite number", shown(value))
