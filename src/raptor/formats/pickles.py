"""Pickles read as data: no name in them is imported, and nothing is called."""

from __future__ import annotations

import copy
import dataclasses
import pickletools
import re
from collections.abc import Callable
from typing import Any

import numpy as np


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


_NEW: dict[str, Any] = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_NEW |= {"EMPTY_LIST": [], "EMPTY_DICT": {}, "EMPTY_TUPLE": (), "EMPTY_SET": set()}
_SCALARS = ("numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar")
_ARRAYS = ("numpy.core.multiarray._reconstruct", "numpy._core.multiarray._reconstruct")
_PLAIN = {"collections.OrderedDict": dict, "builtins.set": set, "__builtin__.set": set}
_LARGEST_NUMBER = 256  # bits


def read_pickle(
    content: bytes,
    make: Callable[[str, tuple[Any, ...]], Any] = Record,
    persistent: Callable[[Any], Any] | None = None,
) -> Any:
    """Read a pickle of protocol 2 or newer.

    Args:
        content: the whole pickle.
        make: gives what stands for an object that is no plain data, by the name of its class and its arguments.
        persistent: gives what stands for a persistent identifier.

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
        if isinstance(argument, int) and argument.bit_length() > _LARGEST_NUMBER:
            raise ValueError("a number is too large")
        if name in ("PROTO", "FRAME"):
            continue
        if name == "STOP":
            return stack.pop()
        if name == "MARK":
            marks.append(len(stack))
        elif name in _NEW:
            stack.append(copy.copy(_NEW[name]))
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
        else:
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
