"""Quadrotors: the parameters of N vehicles, with reading and writing."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from raptor.core.atomic import PathLike
from raptor.core.compilation import register
from raptor.quadrotor import documents as converting
from raptor.quadrotor import files
from raptor.quadrotor.vehicles import NUM_ROTORS, Vehicles

__all__ = ["NUM_ROTORS", "Quadrotors"]


@register(constant=("names", "documents"))
@dataclasses.dataclass(frozen=True)
class Quadrotors(Vehicles):
    """Parameters of N quadrotors; the leading axis of every tensor is the population.

    Rotors are in crazyflie order: front-right, back-right, back-left, front-left. Body frame FLU. The last four tensor
    fields are not dynamics; they travel with a vehicle because each is scaled to it.
    """

    @classmethod
    def from_json(
        cls,
        paths: PathLike | Sequence[PathLike],
        dtype: torch.dtype = torch.float32,
        device: torch.device | str | None = None,
    ) -> Quadrotors:
        """Read one file, a list of files, or a folder of `*.json` (in natural order: 2.json, 10.json) in l2f's schema.

        Raises:
            UserError: names the file and the JSON path of what is missing, of the wrong shape, or impossible.
        """
        found = files.find(paths)
        contents = [files.load(file) for file in found]
        return cls.from_dicts(contents, dtype, device, [file.stem for file in found], found)

    @classmethod
    def from_dicts(
        cls,
        documents: Iterable[Mapping[str, Any]],
        dtype: torch.dtype = torch.float32,
        device: torch.device | str | None = None,
        names: Sequence[str] | None = None,
        sources: Sequence[PathLike] | None = None,
    ) -> Quadrotors:
        """Build vehicles from documents in l2f's schema.

        The group `dynamics` is enough; another group that is there must be complete. Unknown keys are kept.

        Args:
            documents: one for each vehicle; left untouched.
            dtype: of the tensors; the documents keep every digit for writing.
            device: of the tensors.
            names: one for each vehicle.
            sources: the file of each vehicle, for error messages.

        Raises:
            UserError: names the JSON path, the file and the value.
        """
        return converting.from_dicts(cls, documents, dtype, names, sources).to(device)

    def to_dicts(self) -> list[dict[str, Any]]:
        """One complete document in l2f's schema for each vehicle.

        A number that is still the one read from a vehicle's document is written as it stood there, digit for digit,
        also where the tensors are of lower precision. `hovering_throttle_relative` is computed from the thrust curve.
        """
        return converting.to_dicts(self)

    def save(
        self,
        folder: PathLike,
        overwrite: bool = False,
        numbered: bool = False,
        progress: Callable[[int, int], None] | None = None,
    ) -> list[Path]:
        """Write one JSON file for each vehicle.

        Everything is checked before the first file is written, and each file appears complete or not at all.

        Args:
            folder: created if it is not there.
            overwrite: replace files of the same names; otherwise a folder that holds JSON files is an error.
            numbered: name the files 0000.json, 0001.json, ... instead of by the vehicles, and remove the numbered files
                of a larger population that was there. So they are also named where the names do not serve.
            progress: called now and then with how many files are written, and how many there are to be.

        Returns:
            The paths, in the order of the vehicles.

        Raises:
            UserError: no vehicle, an impossible one, or a folder that cannot be written.
        """
        return files.save(self, folder, overwrite, numbered, progress)
