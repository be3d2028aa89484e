"""Pickles read as data: no name in them is imported, and nothing is called."""

from __future__ import annotations

import dataclasses
import pickletools
import re
from collections.abc import Callable
from typing import Any

import numpy as np


@dataclasses.dataclass(frozen=True)
class Name:
    """A class or function that a pickle names; inert."""

    text: str  # such as numpy.dtype


@dataclasses.dataclass
class Record:
    """An object that a pickle describes, and that is not made."""

    name: str  # of its class, or of the function that would make it
    arguments: tuple[Any, ...]
    state: Any = None


Make = Callable[[str, tuple[Any, ...]], Any]
"""Takes the name of a class or function and its arguments; gives what stands for the object."""


def read_pickle(
    content: bytes,
    find: Callable[[str], Any] = Name,
    make: Make = Record,
    persistent: Callable[[Any], Any] | None = None,
) -> Any:
    """Read a pickle of protocol 2 or newer.

    Args:
        content: the whole pickle.
        find: called for each name; by default a `Name` stands for it.
        make: called for each object that is no plain data; by default a `Record` stands for it.
        persistent: called for persistent identifiers.

    Raises:
        Exception: of any kind, where the pickle is damaged.
    """
    stack: list[Any] = []
    marks: list[int] = []
    memo: dict[int, Any] = {}

    def since_mark() -> list[Any]:
        begin = marks.pop()
        items = stack[begin:]
        del stack[begin:]
        return items

    argument: Any
    for opcode, argument, _ in pickletools.genops(content):
        name = opcode.name
        if isinstance(argument, int) and argument.bit_length() > 256:
            raise ValueError("a number is too large")
        if name in ("PROTO", "FRAME"):
            continue
        if name == "STOP":
            return stack.pop()
        if name == "MARK":
            marks.append(len(stack))
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name]())
        elif name in ("TUPLE1", "TUPLE2", "TUPLE3"):
            number = int(name[-1])
            stack[-number:] = [tuple(stack[-number:])]
        elif name in ("TUPLE", "FROZENSET"):
            stack.append((tuple if name == "TUPLE" else frozenset)(since_mark()))
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
            stack.append(find(argument.replace(" ", ".", 1)))
        elif name == "STACK_GLOBAL":
            stack[-2:] = [find(f"{stack[-2]}.{stack[-1]}")]
        elif name in ("REDUCE", "NEWOBJ"):
            stack[-2:] = [_make(stack[-2].text, stack[-1], make)]
        elif name == "BUILD":
            state = stack.pop()
            if isinstance(stack[-1], Record):
                stack[-1].state = state
            elif not isinstance(stack[-1], dict):  # an OrderedDict has attributes that nobody needs
                raise ValueError(f"a {type(stack[-1]).__name__} has no state")
        elif name == "BINPERSID" and persistent is not None:
            stack.append(persistent(stack.pop()))
        elif argument is not None and name.startswith(("BIN", "SHORT_BIN", "LONG", "BYTEARRAY")):
            stack.append(argument)  # a number, a text, or bytes
        else:
            raise ValueError(f"unknown operation {name}")
    raise ValueError("no end")


def array_of(value: Any) -> np.ndarray[Any, Any] | None:
    """The array of numbers, or the scalar of shape (), that a record of numpy describes; None for anything else."""
    shape: tuple[int, ...]
    if not isinstance(value, Record):
        return None
    if value.name in _SCALARS:
        dtype, raw = value.arguments
        shape, is_fortran = (), False
    elif value.name in _ARRAYS and value.state is not None:
        _, shape, dtype, is_fortran, raw = value.state
    else:
        return None
    code, byte_order = dtype.arguments[0], (dtype.state or (3, "="))[1]
    if dtype.name != "numpy.dtype" or not re.fullmatch(r"[biuf][1248]", code) or byte_order not in "<>=|":
        return None
    return np.frombuffer(raw, np.dtype(code).newbyteorder(byte_order)).reshape(shape, order="F" if is_fortran else "C")


_CONSTANTS: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_LIST": list,
    "EMPTY_DICT": dict,
    "EMPTY_TUPLE": tuple,
    "EMPTY_SET": set,
}
_SCALARS = ("numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar")
_ARRAYS = ("numpy.core.multiarray._reconstruct", "numpy._core.multiarray._reconstruct")
_TYPES: dict[str, type] = {"collections.OrderedDict": dict, "builtins.set": set, "__builtin__.set": set}
PLAIN = (*_TYPES, "_codecs.encode", "__builtin__.bytes", "numpy.dtype", *_SCALARS)
"""Names of which no object is made but plain data, and the type of a scalar."""


def _make(name: str, arguments: tuple[Any, ...], make: Make) -> Any:
    """Plain data, where types of the library write it so, or what `make` gives."""
    if name in _TYPES:
        return _TYPES[name](*arguments)
    if name == "_codecs.encode":
        text, encoding = arguments
        return text.encode("latin1" if encoding in ("latin1", "latin-1") else "ascii")
    if name == "__builtin__.bytes" and not arguments:
        return b""
    if name in _SCALARS and (scalar := array_of(Record(name, arguments))) is not None:
        return scalar.item()
    return make(name, arguments)
