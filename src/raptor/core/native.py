"""Kernels in C++, compiled for some widths when they are first needed, by a private interface of torch's compiler.

What is compiled is kept for later starts where torch keeps its own.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch

from raptor.core.compilation import compiler_problem
from raptor.core.errors import first_line

Kernel = TypeVar("Kernel")

Constants = Mapping[str, int | tuple[int, ...]]
"""Integers, and arrays of them, by name."""


def load_native(
    file: Path,
    name: str,
    dtype: torch.dtype,
    constants: Constants,
    arguments: tuple[int, int, int],
) -> Any:
    """Compile the function of this name in a file, whose type of number `T` and `constants` are defined before it.

    Its arguments are so many pointers that it reads through, that it writes through, and integers; it is called with
    tensors, contiguous and of this type, in place of pointers.
    """
    from torch._inductor.codecache import CppPythonBindingsCodeCache

    number = {torch.float32: "float", torch.float64: "double"}[dtype]
    lists = {key: f"{key}[] = {{{', '.join(map(str, v))}}}" for key, v in constants.items() if not isinstance(v, int)}
    defined = [f"constexpr int64_t {lists.get(key, f'{key} = {value}')};" for key, value in constants.items()]
    head = ["#include <algorithm>", "#include <numeric>", "#include <torch/csrc/inductor/cpp_prefix.h>"]
    source = "\n".join([*head, f"using T = {number};", *defined, file.read_text(encoding="utf-8")])
    num_read, num_written, num_integers = arguments
    types = [f"const {number}*"] * num_read + [f"{number}*"] * num_written + ["const int64_t"] * num_integers
    return CppPythonBindingsCodeCache.load_pybinding(types, source.replace(f"void {name}(", 'extern "C" void kernel('))


def try_native(make: Callable[[], Kernel], what: str) -> Kernel | None:
    """Make what needs a kernel; None where that cannot be compiled, after a warning that says so of `what`."""
    try:
        return None if compiler_problem() else make()
    except Exception as error:  # whatever the compiler's tool chain raises
        warnings.warn(f"{what}, without a kernel: {type(error).__name__}: {first_line(error)}", stacklevel=3)
        return None
