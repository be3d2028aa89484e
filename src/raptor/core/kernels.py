"""Compiled graphs that outlive the process: libraries in the user's cache, loaded without torch's compiler.

Importing torch's compiler and finding a graph in its own cache takes several seconds at every start. What is compiled
ahead of time is found by the graph and its arguments alone, and loads in a millisecond.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import itertools
import logging
import os
import platform
import shutil
import tempfile
import time
import warnings
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from raptor.core.atomic import replacing
from raptor.core.errors import UserError, first_line

KEPT_S = 60 * 24 * 3600.0  # how long a library stays that is not used
OPTIONS: dict[str, Any] = {
    "pattern_matcher": False,  # which would add each bias by a copy of it for every vehicle
    "memory_planning": True,  # one allocation for all that is intermediate
    "max_fusion_size": 2000,
    "cpp.use_decompose_tanh": True,  # several times as fast, exact to 2e-7
}
"""Of the compiler; those that an older one does not have are left out."""

DECIDING = ("TORCHINDUCTOR_", "AOT_INDUCTOR_", "CXX")  # beginnings of variables that change what the compiler makes
log = logging.getLogger("raptor.core.compilation")


def cache_folder() -> Path:
    """Where compiled code is kept: in `TORCHINDUCTOR_CACHE_DIR` or the user's cache folder."""
    chosen = os.environ.get("TORCHINDUCTOR_CACHE_DIR")
    user = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(chosen or user) / "raptor"


def kernel_key(function: Callable[..., Sequence[Tensor]], example: Sequence[Tensor]) -> str | None:
    """Hash everything that the compiled code of a pure function depends on, by running it once.

    None for a function that is not compiled ahead of time: one that takes part in a gradient, writes into memory that
    is not its own (arguments and constants), or has arguments on another device than the CPU.
    """
    if any(tensor.requires_grad or tensor.device.type != "cpu" for tensor in example):
        return None
    record = _Record(example)
    try:
        with record:
            outputs = function(*example)
    except _WritesError:
        return None
    settings = torch.get_num_threads(), torch.get_default_dtype(), OPTIONS
    parts = (record.lines, record.named(outputs), settings, _platform())
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:32]


def load_kernel(key: str) -> Callable[..., list[Tensor]] | None:
    """Load compiled code from the cache; None where there is none, or it is damaged or of another user."""
    folder = cache_folder()
    for file in folder.glob(f"{key}.*.so") if _is_own(folder) else ():
        try:
            if file.name == f"{key}.{_digest(file)}.so":
                os.utime(file)
                return _loaded(file)
            log_once("compiled code is made again", f"{file} is damaged")
        except (OSError, RuntimeError) as error:
            log_once("compiled code is made again", f"{file} cannot be loaded: {first_line(error)}")
    return None


def build_kernel(graph: torch.fx.GraphModule, example: Sequence[Tensor], key: str) -> Callable[..., list[Tensor]]:
    """Compile a graph ahead of time, keep it in the cache where that can be written, and load it; it may fail."""
    from filelock import FileLock
    from torch._inductor import aot_compile, config

    folder = cache_folder()
    with contextlib.ExitStack() as held, tempfile.TemporaryDirectory() as scratch:
        with contextlib.suppress(OSError):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            held.enter_context(FileLock(folder / f"{key}.lock"))  # other processes wait instead of compiling the same
        if (kernel := load_kernel(key)) is not None:
            return kernel
        # Probing the processor takes torch longer than compiling a kernel; if it is wrong about it, this fails.
        options = {"aot_inductor.output_path": scratch, "cpp.vec_isa_ok": True, **_known_options()}
        if hasattr(config.aot_inductor, "enable_line_tables"):  # which take two thirds of the file
            options["aot_inductor.enable_line_tables"] = False
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            library = aot_compile(graph, tuple(example), options=options)
        if not isinstance(library, str) or Path(library).with_suffix(".json").exists():
            raise NotImplementedError("the graph holds an operation that runs only in Python")
        try:
            if not _is_own(folder):
                raise UserError(f"{folder} is not a folder of this user alone")
            with replacing(folder / f"{key}.{_digest(library)}.so") as temporary:
                shutil.copyfile(library, temporary)
            _forget_unused(folder)
        except (OSError, UserError) as error:
            log_once("compiled code is not kept for later starts", first_line(error))
        return _loaded(library)


def _known_options() -> dict[str, Any]:
    from torch._inductor import config

    groups = {name: getattr(config, group) if (group := name.rpartition(".")[0]) else config for name in OPTIONS}
    return {name: value for name, value in OPTIONS.items() if hasattr(groups[name], name.rpartition(".")[2])}


@functools.cache
def log_once(consequence: str, reason: str) -> None:
    """Log what became of compiled code, once for each reason."""
    log.warning("%s: %s", consequence, reason)


class _WritesError(Exception):
    """A function writes into memory that is not its own."""


class _Record(TorchDispatchMode):
    """Writes down each operation with what it takes and gives: tensors by the order in which they appear."""

    def __init__(self, arguments: Sequence[Tensor]) -> None:
        super().__init__()
        self._names: dict[int, tuple[Callable[[], Tensor | None], str]] = {}
        self._numbers = itertools.count(1)
        self._foreign = {tensor.untyped_storage().data_ptr(): tensor for tensor in arguments if tensor.numel()}
        self.lines: list[Any] = [self.named(list(arguments), new=True)]

    def named(self, values: Any, new: bool = False) -> Any:
        """The same nesting with names for tensors; one that was never `new` is a constant, named by its content."""
        return pytree.tree_map_only(Tensor, functools.partial(self._name, new=new), values)

    def _name(self, tensor: Tensor, new: bool) -> str:
        reference, name = self._names.get(id(tensor), (lambda: None, ""))
        if reference() is tensor:
            return name
        name = f"%{next(self._numbers)}"
        self._names[id(tensor)] = weakref.ref(tensor), name
        if not new and tensor.numel():
            self._foreign[tensor.untyped_storage().data_ptr()] = tensor
        content = "" if new else tensor.tolist()
        return f"{name} {tuple(tensor.shape)} {tensor.stride()} {tensor.dtype} {tensor.device} {content}"

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        line = [str(func), self.named((args, kwargs))]
        if func._schema.is_mutable:
            arguments = func._schema.arguments
            given = {argument.name: value for argument, value in zip(arguments, args, strict=False)} | (kwargs or {})
            written = [given.get(a.name) for a in arguments if a.alias_info and a.alias_info.is_write]
            tensors = [leaf for leaf in pytree.tree_leaves(written) if isinstance(leaf, Tensor)]
            if any(tensor.untyped_storage().data_ptr() in self._foreign for tensor in tensors):
                raise _WritesError
        outputs = func(*args, **(kwargs or {}))
        self.lines.append([*line, self.named(outputs, new=True)])
        return outputs

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # or else torch imports its compiler before the first operation


def _loaded(library: Path | str) -> Callable[..., list[Tensor]]:
    os.environ.setdefault("AOTI_RUNTIME_CHECK_INPUTS", "1")  # refuse other shapes and layouts; ten microseconds a call
    run = torch._C._aoti.AOTIModelContainerRunnerCpu(str(library), 1).run
    return lambda *tensors: run(list(tensors))


def _digest(file: Path | str) -> str:
    return hashlib.sha256(Path(file).read_bytes()).hexdigest()[:16]


def _is_own(folder: Path) -> bool:
    """Whether no other user can have written code there."""
    if not folder.is_dir() or not hasattr(os, "geteuid"):
        return folder.is_dir()
    status = folder.stat()
    return status.st_uid == os.geteuid() and not status.st_mode & 0o022


def _forget_unused(folder: Path) -> None:
    for file in folder.iterdir():
        with contextlib.suppress(OSError):
            if time.time() - file.stat().st_mtime > KEPT_S:
                file.unlink()


@functools.cache
def _platform() -> tuple[Any, ...]:
    """What compiled code depends on beside its graph; the compiler uses every instruction that the processor has."""
    flags = ""
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text(errors="replace").splitlines()
        flags = next((line for line in lines if line.startswith(("flags", "Features"))), "")
    names = sorted(name for name in os.environ if name.startswith(DECIDING) and name != "TORCHINDUCTOR_CACHE_DIR")
    deciding = {name: os.environ[name] for name in names}
    return torch.__version__, torch.version.git_version, platform.machine(), platform.processor(), flags, deciding
