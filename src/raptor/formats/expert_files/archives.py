"""Archives from strangers: looked through before anything is unpacked, and read without executing code."""

from __future__ import annotations

import io
import os
import pickle
import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch

from raptor.core.atomic import PathLike
from raptor.core.errors import UserError

LARGEST_ARCHIVE = 2**31
"""Bytes unpacked; a teacher of a few layers takes a few MB."""

LARGEST_RATIO = 100
"""Of unpacked to packed; weights hardly shrink."""

_SMALL = 2**20  # bytes; whatever the ratio is, so much does no harm
_CONVERT = (
    "open it where it was made and you trust it, and write its weights alone: "
    'torch.save({"model_state_dict": policy.state_dict()}, "weights.pt")'
)


def check_archive(file: PathLike | io.BytesIO, path: PathLike) -> list[str]:
    """The names of what a zip archive holds.

    Args:
        file: the archive.
        path: what it is called in error messages.

    Raises:
        UserError: it is no zip archive, truncated or damaged, or it unpacks to more than a teacher can be.
    """
    try:
        if not zipfile.is_zipfile(file):
            raise UserError(_no_archive(file, path))
        with zipfile.ZipFile(file) as archive:
            members = archive.infolist()
            packed = sum(member.compress_size for member in members)
            unpacked = sum(member.file_size for member in members)
            if unpacked > LARGEST_ARCHIVE or unpacked > max(_SMALL, LARGEST_RATIO * packed):
                raise UserError(
                    f"{path} was refused: its {packed} bytes unpack to {unpacked}, which no teacher takes; give the "
                    "file that the library wrote"
                )
            damaged = archive.testzip()
    except UserError:
        raise
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error
    except Exception as error:  # whatever a damaged archive makes zipfile and zlib raise
        raise UserError(f"{path} is truncated or damaged: {error}") from error
    if damaged is not None:
        raise UserError(f"{path} is damaged: the checksum of {damaged} is wrong; copy it again")
    return [member.filename for member in members]


def read_member(path: PathLike, name: str) -> bytes:
    """One file of an archive that was checked."""
    with zipfile.ZipFile(path) as archive:
        return archive.read(name)


def read_tensors(file: PathLike | io.BytesIO, path: PathLike) -> dict[str, Any]:
    """What `torch.save` wrote, if it is a dictionary of tensors and plain data.

    Args:
        file: to read.
        path: what it is called in error messages.

    Raises:
        UserError: as `check_archive`, or it holds code, or something else.
    """
    names = check_archive(file, path)
    if any("code" in name.split("/")[:-1] for name in names):
        raise UserError(
            f"{path} is a TorchScript program, which would have to be executed: give the checkpoint that it was "
            "exported from"
        )
    if isinstance(file, io.BytesIO):
        file.seek(0)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            document = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UserError(
            f"{path} was refused and not executed: it holds pickled code beside its tensors; {_CONVERT}"
        ) from error
    except Exception as error:  # whatever a damaged archive makes torch raise
        reason = (str(error).splitlines() or ["no message"])[0]
        raise UserError(f"{path} is damaged or no checkpoint of torch: {reason}") from error
    if not isinstance(document, dict) or not all(isinstance(key, str) for key in document):
        raise UserError(f"{path} holds a {type(document).__name__} instead of named weights: {_CONVERT}")
    return document


def _no_archive(file: PathLike | io.BytesIO, path: PathLike) -> str:
    if isinstance(file, (str, os.PathLike)):
        with Path(file).open("rb") as stream:
            begins = stream.read(2)
        if len(begins) == 2 and begins[0] == 0x80 and begins[1] <= pickle.HIGHEST_PROTOCOL:
            return (
                f"{path} was refused and not executed: it is a pickle, which can hold code; {_CONVERT}; "
                "the numbers of a VecNormalize go into a raptor.nn.Normalizer"
            )
    return f"{path} is truncated, or no checkpoint that is known: {KNOWN}"


KNOWN = (
    "give a checkpoint of rsl_rl (.pt), an archive of stable-baselines3 (.zip), a teacher of rl-tools (.h5), a "
    "memoryless policy of this package (.pt), or a folder of teachers with the number of one (teachers:3)"
)
