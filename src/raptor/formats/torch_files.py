"""Files of `torch.save` from anybody: looked through before anything is unpacked, and read as data, never executed."""

from __future__ import annotations

import contextlib
import functools
import io
import math
import re
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from raptor.core.atomic import PathLike
from raptor.core.errors import UserError, first_line
from raptor.formats.pickles import Record, read_pickle

SMALL, LARGEST_RATIO = 2**24, 4
"""A file that unpacks to more bytes than these, and to more than so many times its size, is refused."""

_LARGEST_PICKLE = 2**24  # bytes of the description of a file's tensors
_BEFORE_1_6 = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
_DTYPES = {f"torch.{name}": dtype for name, dtype in vars(torch).items() if isinstance(dtype, torch.dtype)}
_TYPES = {"Double": torch.float64, "Float": torch.float32, "Half": torch.float16, "BFloat16": torch.bfloat16}
_TYPES |= {"Long": torch.int64, "Int": torch.int32, "Short": torch.int16, "Char": torch.int8, "Bool": torch.bool}
_STORAGES = {f"torch.{kind}Storage": dtype for kind, dtype in _TYPES.items()}
_STORAGES |= {"torch.ByteStorage": torch.uint8, "torch.storage.UntypedStorage": torch.uint8}
_MADE = {"torch._utils._rebuild_parameter": torch.nn.Parameter, "torch.Size": torch.Size, "torch.device": torch.device}


class Advice(NamedTuple):
    """Advice for the user about a file that is refused."""

    known: str  # because it is damaged or of another kind
    convert: str  # because it holds objects that would have to be executed


OWN = Advice("write it again, or give another", "give a file that this package wrote")


@contextlib.contextmanager
def opened_archive(source: PathLike | bytes, name: PathLike, advice: Advice = OWN) -> Iterator[zipfile.ZipFile]:
    """Open a zip archive to read, with the arguments of `load_torch`.

    Raises:
        UserError: it is no zip archive, or unpacks to far more than it is; or proves damaged while it is read.
    """
    try:
        with io.BytesIO(source) if isinstance(source, bytes) else Path(source).open("rb") as file:
            head, size = file.read(len(_BEFORE_1_6)), file.seek(0, io.SEEK_END)
            members = zipfile.ZipFile(file).infolist() if zipfile.is_zipfile(file) else []
            if min((member.header_offset for member in members), default=1):  # none, or the end of another archive
                raise UserError(_no_archive(head, name, advice))
            unpacked = sum(member.file_size for member in members)
            if unpacked > max(SMALL, LARGEST_RATIO * size):
                raise UserError(
                    f"{name} was refused: its {size} bytes unpack to {unpacked}, which is more than {SMALL} and than "
                    f"{LARGEST_RATIO} times as much; {advice.known}"
                )
            with zipfile.ZipFile(file) as archive:
                yield archive
    except UserError:
        raise
    except OSError as error:
        raise UserError(f"cannot read {name}: {error.strerror or error}") from error
    except Exception as error:  # whatever zipfile, zlib and a damaged pickle raise
        reason = re.sub("Bad CRC-32 for file (.*)", r"the checksum of \1 is wrong", first_line(error))
        raise UserError(f"{name} is damaged: {reason}; {advice.known}") from error


def load_torch(
    source: PathLike | bytes, name: PathLike, device: torch.device | str = "cpu", advice: Advice = OWN
) -> dict[str, Any]:
    """Read a dictionary that `torch.save` wrote: dense tensors, plain data, and scalars of numpy.

    Args:
        source: the file, or its content.
        name: of the file in error messages.
        device: of the tensors.
        advice: for the user, about a file of another kind and about code.

    Raises:
        UserError: it is of another kind, truncated or damaged, holds other objects, or tensors larger than what is
            stored of them.
    """
    with opened_archive(source, name, advice) as archive:
        return read_document(archive, name, device, advice)


def read_document(
    archive: zipfile.ZipFile, name: PathLike, device: torch.device | str = "cpu", advice: Advice = OWN
) -> dict[str, Any]:
    """Read the dictionary in an archive that is open; see `load_torch`."""
    members = archive.namelist()
    if any("code" in member.split("/")[:-1] for member in members):
        raise UserError(
            f"{name} is a TorchScript program, which would have to be executed: give the checkpoint that it was "
            "exported from"
        )
    pickles = [member for member in members if member.count("/") == 1 and member.endswith("/data.pkl")]
    if len(pickles) != 1 or archive.getinfo(pickles[0]).file_size > _LARGEST_PICKLE:
        raise UserError(f"{name} is damaged or no file of torch: {advice.known}")
    folder = pickles[0].removesuffix("data.pkl")
    if f"{folder}byteorder" in members and archive.read(f"{folder}byteorder") != sys.byteorder.encode():
        raise UserError(f"{name} was written on a machine with another order of bytes: write it on one like this")

    @functools.cache
    def storage(kind: str, key: str) -> Tensor:
        content, dtype = bytearray(archive.read(f"{folder}data/{key}")), _STORAGES[kind]
        return (torch.frombuffer(content, dtype=dtype) if content else torch.empty(0, dtype=dtype)).to(device)

    def make(what: str, arguments: tuple[Any, ...]) -> Any:
        if what in _MADE:
            return _MADE[what](*arguments[:2])
        if what == "torch._utils._rebuild_tensor_v3":  # of a type that has no storage of its own
            return tensor(arguments[0].view(_DTYPES[arguments[6].text]), *arguments[1:5])
        if what == "torch._utils._rebuild_tensor_v2":
            return tensor(*arguments[:5])
        if what == "numpy.dtype":  # of a scalar
            return Record(what, arguments)
        raise UserError(
            f"{name} was refused and not executed: beside dense tensors and plain data it holds {what}; "
            f"{advice.convert}"
        )

    def tensor(stored: Tensor, offset: int, size: tuple[int, ...], stride: tuple[int, ...], trained: bool) -> Tensor:
        number = math.prod(size)
        end = offset + 1 + sum((n - 1) * step for n, step in zip(size, stride, strict=True)) if number else offset
        if min((offset, *size, *stride)) < 0 or max(number, end) > len(stored):
            raise UserError(
                f"{name} was refused: of a tensor of shape {tuple(size)} it stores {len(stored)} numbers; give a file "
                "whose tensors are stored whole"
            )
        return stored.new_empty(0).set_(stored.untyped_storage(), offset, size, stride).requires_grad_(trained)

    document = read_pickle(
        archive.read(pickles[0]), make, lambda identifier: storage(identifier[1].text, identifier[2])
    )
    if not isinstance(document, dict):
        raise UserError(f"{name} holds a {type(document).__name__} instead of named weights: {advice.known}")
    return document


def _no_archive(head: bytes, name: PathLike, advice: Advice) -> str:
    """Diagnosis of a file that is no zip archive, by its first bytes."""
    if head == _BEFORE_1_6:
        return (
            f"{name} was refused and not executed: it has torch's file format before 1.6, which can hold code; write "
            'it anew: torch.save(torch.load("old.pt", weights_only=True), "new.pt")'
        )
    if re.match(rb"\x80[\x00-\x05]", head):
        return f"{name} was refused and not executed: it is a pickle, which can hold code; {advice.convert}"
    return f"{name} is damaged, truncated, or of another kind: {advice.known}"
