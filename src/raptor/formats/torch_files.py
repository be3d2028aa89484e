"""Files of `torch.save` from anybody: looked through before anything is unpacked, and read as data, never executed.

Pickles, which are in them, are read by a machine of our own: no name in them is imported, and nothing is called.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import functools
import io
import math
import pickletools
import re
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from raptor.core.atomic import PathLike
from raptor.core.errors import UserError, first_line

# A file that unpacks to more bytes than these, and to more than so many times its size, is refused.
SMALL, LARGEST_RATIO = 2**24, 4
_LARGEST_PICKLE = 2**24  # bytes of the description of a file's tensors
_LARGEST_NUMBER = 256  # bits
_BEFORE_1_6 = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
_DTYPES = {f"torch.{name}": dtype for name, dtype in vars(torch).items() if isinstance(dtype, torch.dtype)}
_TYPES = {"Double": torch.float64, "Float": torch.float32, "Half": torch.float16, "BFloat16": torch.bfloat16}
_TYPES |= {"Long": torch.int64, "Int": torch.int32, "Short": torch.int16, "Char": torch.int8, "Bool": torch.bool}
_STORAGES = {f"torch.{kind}Storage": dtype for kind, dtype in _TYPES.items()}
_STORAGES |= {"torch.ByteStorage": torch.uint8, "torch.storage.UntypedStorage": torch.uint8}
_MADE = {"torch._utils._rebuild_parameter": torch.nn.Parameter, "torch.Size": torch.Size, "torch.device": torch.device}
_NEW: dict[str, Any] = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_NEW |= {"EMPTY_LIST": [], "EMPTY_DICT": {}, "EMPTY_TUPLE": (), "EMPTY_SET": set()}
_SCALARS = ("numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar")
_ARRAYS = ("numpy.core.multiarray._reconstruct", "numpy._core.multiarray._reconstruct")
_PLAIN = {"collections.OrderedDict": dict, "builtins.set": set, "__builtin__.set": set}


class Advice(NamedTuple):
    """Advice for the user about a file that is refused."""

    known: str  # because it is damaged or of another kind
    convert: str  # because it holds objects that would have to be executed


OWN = Advice("write it again, or give another", "give a file that this package wrote")


def refuse_bomb(name: PathLike, size: int, unpacked: int, advice: str = "") -> None:
    """Raise a `UserError` about a file that takes far more memory than it is large."""
    if unpacked > max(SMALL, LARGEST_RATIO * size):
        bounds = f"which is more than {SMALL} and than {LARGEST_RATIO} times as much"
        raise UserError(f"{name} was refused: its {size} bytes unpack to {unpacked}, {bounds}{advice}")


@contextlib.contextmanager
def opened_archive(source: PathLike | bytes, name: PathLike, advice: Advice = OWN) -> Iterator[zipfile.ZipFile]:
    """Open a zip archive to read, with the arguments of `load_torch`; what proves damaged later is refused too."""
    try:
        with io.BytesIO(source) if isinstance(source, bytes) else Path(source).open("rb") as file:
            head, size = file.read(len(_BEFORE_1_6)), file.seek(0, io.SEEK_END)
            members = zipfile.ZipFile(file).infolist() if zipfile.is_zipfile(file) else []
            if min((member.header_offset for member in members), default=1):  # none, or the end of another archive
                raise UserError(_no_archive(head, name, advice))
            refuse_bomb(name, size, sum(member.file_size for member in members), f"; {advice.known}")
            with zipfile.ZipFile(file) as archive:
                yield archive
    except UserError:
        raise
    except OSError as error:
        raise UserError(f"cannot read {name}: {error.strerror or error}") from error
    except Exception as error:  # whatever zipfile, zlib and a damaged pickle raise
        reason = re.sub("Bad CRC-32 for file (.*)", r"the checksum of \1 is wrong", first_line(error))
        raise UserError(f"{name} is damaged: {reason}; {advice.known}") from error


def _no_archive(head: bytes, name: PathLike, advice: Advice) -> str:
    """Diagnosis of a file that is no zip archive, by its first bytes."""
    if head == _BEFORE_1_6:
        anew = 'torch.save(torch.load("old.pt", weights_only=True), "new.pt")'
        found = f"it has torch's file format before 1.6, which can hold code; write it anew: {anew}"
        return f"{name} was refused and not executed: {found}"
    if re.match(rb"\x80[\x00-\x05]", head):
        return f"{name} was refused and not executed: it is a pickle, which can hold code; {advice.convert}"
    return f"{name} is damaged, truncated, or of another kind: {advice.known}"


def load_torch(
    source: PathLike | bytes, name: PathLike, device: torch.device | str = "cpu", advice: Advice = OWN
) -> dict[str, Any]:
    """Read a dictionary that `torch.save` wrote: dense tensors, plain data, and scalars of numpy.

    The source is the file, or its content; `name` is the file in error messages.

    Raises:
        UserError: it is of another kind, damaged, holds other objects, or tensors larger than what is stored of them.
    """
    with opened_archive(source, name, advice) as archive:
        return read_document(archive, name, device, advice)


def read_document(
    archive: zipfile.ZipFile, name: PathLike, device: torch.device | str = "cpu", advice: Advice = OWN
) -> dict[str, Any]:
    """Read the dictionary in an archive that is open; see `load_torch`."""
    members = archive.namelist()
    if any("code" in member.split("/")[:-1] for member in members):
        remedy = "give the checkpoint that it was exported from"
        raise UserError(f"{name} is a TorchScript program, which would have to be executed: {remedy}")
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
        found = f"beside dense tensors and plain data it holds {what}"
        raise UserError(f"{name} was refused and not executed: {found}; {advice.convert}")

    def tensor(stored: Tensor, offset: int, size: tuple[int, ...], stride: tuple[int, ...], trained: bool) -> Tensor:
        number = math.prod(size)
        end = offset + 1 + sum((n - 1) * step for n, step in zip(size, stride, strict=True)) if number else offset
        if min((offset, *size, *stride)) < 0 or max(number, end) > len(stored):
            found = f"of a tensor of shape {tuple(size)} it stores {len(stored)} numbers"
            raise UserError(f"{name} was refused: {found}; give a file whose tensors are stored whole")
        return stored.new_empty(0).set_(stored.untyped_storage(), offset, size, stride).requires_grad_(trained)

    document = read_pickle(archive.read(pickles[0]), make, lambda found: storage(found[1].text, found[2]))
    if not isinstance(document, dict):
        raise UserError(f"{name} holds a {type(document).__name__} instead of named weights: {advice.known}")
    return document


@dataclasses.dataclass(frozen=True)
class Name:
    """A class or function that a pickle names, such as numpy.dtype; inert."""

    text: str


@dataclasses.dataclass
class Record:
    """An object that a pickle describes, and that is not made."""

    name: str  # of its class, or of the function that would make it
    arguments: tuple[Any, ...]
    state: Any = None


def read_pickle(
    content: bytes, make: Callable[[str, tuple[Any, ...]], Any] = Record, persistent: Callable[[Any], Any] | None = None
) -> Any:
    """Read a pickle of protocol 2 or newer; one that is damaged raises an exception of any kind.

    `make` gives what stands for an object that is no plain data, by the name of its class and its arguments,
    `persistent` what stands for a persistent identifier.
    """
    stack: list[Any] = []
    before_marks: list[list[Any]] = []
    memo: dict[int, Any] = {}

    def since_mark() -> list[Any]:
        nonlocal stack
        items, stack = stack, before_marks.pop()
        return items

    argument: Any
    for opcode, argument, _ in pickletools.genops(content):
        name = opcode.name
        if isinstance(argument, int) and argument.bit_length() > _LARGEST_NUMBER:
            raise ValueError("a number is too large")
        if name == "STOP":
            return stack.pop()
        if name == "MARK":
            before_marks.append(stack)
            stack = []
        elif name in _NEW:
            stack.append(copy.copy(_NEW[name]))
        elif name in ("TUPLE1", "TUPLE2", "TUPLE3"):
            stack[-int(name[-1]) :] = [tuple(stack[-int(name[-1]) :])]
        elif name in ("TUPLE", "FROZENSET"):
            items = since_mark()
            stack.append(tuple(items) if name == "TUPLE" else frozenset(items))
        elif name in ("APPEND", "APPENDS", "ADDITEMS"):
            items = [stack.pop()] if name == "APPEND" else since_mark()
            (stack[-1].update if name == "ADDITEMS" else stack[-1].extend)(items)
        elif name in ("SETITEM", "SETITEMS"):
            items = [stack.pop(-2), stack.pop()] if name == "SETITEM" else since_mark()
            stack[-1].update(zip(items[::2], items[1::2], strict=True))
        elif name in ("BINPUT", "LONG_BINPUT", "MEMOIZE"):
            memo[len(memo) if argument is None else argument] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            stack.append(memo[argument])
        elif name == "GLOBAL":
            stack.append(Name(argument.replace(" ", ".", 1)))
        elif name == "STACK_GLOBAL":
            stack[-2:] = [Name(f"{stack[-2]}.{stack[-1]}")]
        elif name in ("REDUCE", "NEWOBJ"):
            stack[-2:] = [_plain_or_made(stack[-2].text, stack[-1], make)]
        elif name == "BUILD":
            state = stack.pop()
            if isinstance(stack[-1], Record):
                stack[-1].state = state
            elif not isinstance(stack[-1], dict):  # an OrderedDict has attributes that are not needed
                raise ValueError(f"a {type(stack[-1]).__name__} has no state")
        elif name == "BINPERSID" and persistent is not None:
            stack.append(persistent(stack.pop()))
        elif argument is not None and name.startswith(("BIN", "SHORT_BIN", "LONG", "BYTEARRAY")):
            stack.append(argument)  # a number, a text, or bytes
        elif name not in ("PROTO", "FRAME"):
            raise ValueError(f"unknown operation {name}")
    raise ValueError("no end")


def array_of(value: Any) -> np.ndarray[Any, Any] | None:
    """The array of numbers, or the scalar of shape (), that a record of numpy describes; None for anything else."""
    match value:
        case Record(name, (dtype, bytes() as raw)) if name in _SCALARS:
            shape, is_fortran = (), False
        case Record(name, _, (_, tuple() as shape, dtype, is_fortran, bytes() as raw)) if name in _ARRAYS:
            pass
        case _:
            return None
    code, order = dtype.arguments[0], (dtype.state or (3, "="))[1]
    if dtype.name != "numpy.dtype" or not re.fullmatch("[biuf][1248]", code) or order not in ("<", ">", "=", "|"):
        return None
    numbers = np.frombuffer(raw, np.dtype(code).newbyteorder(order)).astype(code)
    return numbers.reshape(shape, order="F" if is_fortran else "C")


def _plain_or_made(name: str, arguments: tuple[Any, ...], make: Callable[[str, tuple[Any, ...]], Any]) -> Any:
    match name, arguments:
        case "_codecs.encode", (str() as text, "latin1"):
            return text.encode("latin1")
        case "__builtin__.bytes", ():
            return b""
    if name in _PLAIN:
        return _PLAIN[name](*arguments)
    scalar = array_of(Record(name, arguments)) if name in _SCALARS else None
    return make(name, arguments) if scalar is None else scalar.item()
