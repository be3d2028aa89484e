"""Files of `torch.save` from anybody: looked through before anything is unpacked, and read as data, never executed."""

from __future__ import annotations

import contextlib
import functools
import io
import math
import pickle
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
from raptor.formats.pickles import PLAIN, Name, Record, read_pickle

SMALL, LARGEST_RATIO = 2**24, 4
"""A file that unpacks to more bytes than these, and to more than so many times its size, is refused."""

_LARGEST_PICKLE = 2**24  # bytes of the description of a file's tensors
_BEFORE_1_6 = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
_TYPES = {"Double": torch.float64, "Float": torch.float32, "Half": torch.float16, "BFloat16": torch.bfloat16}
_TYPES |= {"Long": torch.int64, "Int": torch.int32, "Short": torch.int16, "Char": torch.int8, "Byte": torch.uint8}
_STORAGES = {f"torch.{kind}Storage": dtype for kind, dtype in _TYPES.items()}
_STORAGES |= {"torch.BoolStorage": torch.bool, "torch.storage.UntypedStorage": torch.uint8}
_DTYPES = {f"torch.{name}": dtype for name, dtype in vars(torch).items() if isinstance(dtype, torch.dtype)}
_MADE = {"torch._utils._rebuild_parameter": torch.nn.Parameter, "torch.Size": torch.Size, "torch.device": torch.device}
_TENSORS = ("torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_tensor_v3")
_KNOWN = {*PLAIN, *_STORAGES, *_MADE, *_TENSORS}


class Advice(NamedTuple):
    """What a user can do about a file that is refused."""

    known: str  # because it is damaged or of another kind
    convert: str  # because it holds objects that would have to be executed


OWN = Advice("write it again, or give another", "give a file that this package wrote")


@contextlib.contextmanager
def opened_archive(source: PathLike | bytes, name: PathLike, advice: Advice = OWN) -> Iterator[zipfile.ZipFile]:
    """Open a zip archive to read; whatever is wrong with it, also while it is read, is an error that says so.

    Args:
        source: the file, or what is in it.
        name: of the file in error messages.
        advice: for the user, about a file of another kind and about code.

    Raises:
        UserError: it is no zip archive, truncated or damaged, or unpacks to far more than it is.
    """
    file = io.BytesIO(source) if isinstance(source, bytes) else source
    try:
        size = len(source) if isinstance(source, bytes) else Path(source).stat().st_size
        if not zipfile.is_zipfile(file):
            head = source[:64] if isinstance(source, bytes) else _head(source)
            raise UserError(_what_it_is(head, name, advice))
        with zipfile.ZipFile(file) as archive:
            if min((member.header_offset for member in archive.infolist()), default=0):  # the end of another archive
                raise UserError(_what_it_is(b"", name, advice))
            unpacked = sum(member.file_size for member in archive.infolist())
            if unpacked > max(SMALL, LARGEST_RATIO * size):
                raise UserError(
                    f"{name} was refused: its {size} bytes unpack to {unpacked}, which is more than {SMALL} and than "
                    f"{LARGEST_RATIO} times as much; {advice.known}"
                )
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
        source: the file, or what is in it.
        name: of the file in error messages.
        device: of the tensors.
        advice: for the user, about a file of another kind and about code.

    Raises:
        UserError: it is of another kind, truncated or damaged, holds other objects, or tensors larger than what is
            stored of them.
    """
    with opened_archive(source, name, advice) as archive:
        document = read_document(archive, name, device, advice)
    if not isinstance(document, dict):
        raise UserError(f"{name} holds a {type(document).__name__} instead of named weights: {advice.known}")
    return document


def read_document(archive: zipfile.ZipFile, name: PathLike, device: torch.device | str, advice: Advice = OWN) -> Any:
    """What `torch.save` wrote to an archive that was opened; see `load_torch`."""
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
        content = bytearray(archive.read(f"{folder}data/{key}"))
        dtype = _STORAGES[kind]
        numbers = torch.frombuffer(content, dtype=dtype) if content else torch.empty(0, dtype=dtype)
        return numbers.to(device)

    def find(what: str) -> Name | torch.dtype:
        if what in _DTYPES:
            return _DTYPES[what]
        if what not in _KNOWN:
            raise UserError(
                f"{name} was refused and not executed: beside dense tensors and plain data it holds {what}; "
                f"{advice.convert}"
            )
        return Name(what)

    def make(what: str, arguments: tuple[Any, ...]) -> Any:
        if what in _TENSORS:
            stored, offset, size, stride, requires_grad, _, *rest = arguments
            return _tensor(stored.view(rest[0]) if what.endswith("3") else stored, offset, size, stride, requires_grad)
        return _MADE[what](*arguments[:2]) if what in _MADE else Record(what, arguments)

    def _tensor(stored: Tensor, offset: int, size: tuple[int, ...], stride: tuple[int, ...], grad: bool) -> Tensor:
        number = math.prod(size)
        end = offset + 1 + sum((n - 1) * step for n, step in zip(size, stride, strict=True)) if number else offset
        if min((offset, *size, *stride)) < 0 or max(number, end) > len(stored):
            raise UserError(
                f"{name} was refused: of a tensor of shape {tuple(size)} it stores {len(stored)} numbers; give a file "
                "whose tensors are stored whole"
            )
        return stored.new_empty(0).set_(stored.untyped_storage(), offset, size, stride).requires_grad_(grad)

    def persistent(identifier: tuple[Any, ...]) -> Tensor:
        _, kind, key, _, _ = identifier
        return storage(kind.text, key)

    return read_pickle(archive.read(pickles[0]), find, make, persistent)


def _head(path: PathLike) -> bytes:
    with Path(path).open("rb") as stream:
        return stream.read(64)


def _what_it_is(head: bytes, name: PathLike, advice: Advice) -> str:
    """What is wrong with a file that is no zip archive, by its first bytes."""
    if head.startswith(_BEFORE_1_6):
        return (
            f"{name} was refused and not executed: it has torch's file format before 1.6, which can hold code; write "
            'it anew: torch.save(torch.load("old.pt", weights_only=True), "new.pt")'
        )
    if len(head) >= 2 and head[0] == 0x80 and head[1] <= pickle.HIGHEST_PROTOCOL:
        return f"{name} was refused and not executed: it is a pickle, which can hold code; {advice.convert}"
    return f"{name} is damaged, truncated, or of another kind: {advice.known}"
