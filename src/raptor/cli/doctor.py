"""`raptor doctor`: versions, extras, devices, threads, and whether `torch.compile` works."""

from __future__ import annotations

import concurrent.futures
import contextlib
import importlib.metadata
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from typing import NamedTuple

from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

DISTRIBUTION = "raptor-python"
EXTRAS = {  # what each extra of pyproject.toml gives
    "l2f": "the original C++ simulator as raptor/L2F-v0, to train, evaluate or cross-check in",
    "sb3": "stable-baselines3's learning algorithms on the Gymnasium environments",
    "rsl": "rsl_rl's runners on our environments, and our student in its distillation",
    "sim": "MuJoCo: as a simulator of our vehicles, and the environments of Gymnasium, to distill in",
    "ray": "training on a cluster (engine=ray)",
    "docs": "building the documentation (make docs)",
    "dev": "working on raptor itself (make test, make lint, make types)",
}

# In a process of its own with an empty cache: a kernel kept from earlier cannot hide that the compiler is gone, and a
# compiler that crashes or hangs takes nothing else along.
_COMPILE = """
import contextlib, sys, torch
with contextlib.suppress(Exception):  # probing the processor takes longer than compiling, and our kernels go without
    import torch._inductor.config
    torch._inductor.config.cpp.vec_isa_ok = True
x = torch.linspace(-1, 1, 64, device=sys.argv[1])
gradient = torch.func.grad(lambda x: (torch.sin(x) * x).sum())
try:
    torch.testing.assert_close(torch.compile(gradient, fullgraph=True)(x), gradient(x))
except Exception as error:
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or ["no message"]
    sys.exit(f"{type(error).__name__}: {lines[0]}")
"""


class Compilation(NamedTuple):
    """Whether `torch.compile` works on a device; `reason` says why not, and is empty where it does."""

    device: str
    reason: str
    duration_s: float


def doctor() -> None:
    """Show versions, extras, devices, threads, and whether the compiler works.

    What is installed comes at once; at last a function is compiled with an empty cache, which takes about ten seconds.

    ```
    raptor doctor > doctor.txt     # for a bug report
    ```
    """
    console = Console()
    with concurrent.futures.ThreadPoolExecutor() as beside:
        checks = [beside.submit(check_compilation, "cpu")]  # compiles while torch is imported here
        requirements = packages()
        console.print(versions_table(requirements.pop("")))
        console.print(extras_table(requirements))
        import torch

        console.print(machine_table())
        if torch.cuda.is_available():
            checks.append(beside.submit(check_compilation, "cuda"))
        with Console(stderr=True).status("compiling a function"):
            for check in checks:
                console.print(verdict(check.result()))


def packages() -> dict[str, list[str]]:
    """The packages that this one needs, by the extra that needs them; "" for those that it always needs."""
    found: dict[str, list[str]] = {"": [DISTRIBUTION]}
    for line in importlib.metadata.requires(DISTRIBUTION) or []:
        extra = re.search(r"extra == ['\"](\w+)['\"]", line)
        found.setdefault(extra[1] if extra else "", []).append(re.split(r"[^\w.-]", line)[0])
    return found


def version(package: str) -> str | None:
    """The installed version of a distribution; None where it is missing."""
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        return importlib.metadata.version(package)
    return None


def versions_table(packages: list[str]) -> Table:
    """Python, the system and the installed packages."""
    rows = {"python": f"{platform.python_version()} on {platform.platform()}"}
    return _table("Versions", rows | {package: version(package) or "[red]missing" for package in packages})


def extras_table(extras: dict[str, list[str]]) -> Table:
    """What is there of each extra; what it would give, and how to get it, where something is missing."""
    rows = {}
    for extra, names in extras.items():
        rows[extra] = f"[green]{', '.join(f'{name} {version(name)}' for name in names)}"
        if missing := ", ".join(name for name in names if version(name) is None):
            command = f"pip install '{DISTRIBUTION}\\[{extra}]'"
            rows[extra] = f"[yellow]missing {missing}; gives {EXTRAS.get(extra, extra)}: {command}"
    return _table("Extras", rows)


def machine_table() -> Table:
    """The processor, every GPU, and the threads."""
    import torch

    from raptor.core.threads import num_threads

    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    rows = {"cpu": f"{usable} usable of {os.cpu_count()} cores, {torch.backends.cpu.get_cpu_capability()}"}
    for index in range(torch.cuda.device_count()):
        gpu = torch.cuda.get_device_properties(index)
        rows[f"cuda:{index}"] = f"{gpu.name}, {gpu.total_memory / 2**30:.0f} GiB"
    omp = os.environ.get("OMP_NUM_THREADS")
    threads = f"{num_threads()} inside an operation, {torch.get_num_interop_threads()} between operations"
    return _table("Machine", rows | {"threads": f"{threads} (OMP_NUM_THREADS={omp})" if omp else threads})


def _table(title: str, rows: dict[str, str]) -> Table:
    columns = Column(style="bold", no_wrap=True), Column(overflow="fold")
    table = Table(*columns, title=title, title_justify="left", show_header=False, box=None, padding=(0, 2, 0, 0))
    for row in rows.items():
        table.add_row(*row)
    return table


def check_compilation(device: str = "cpu", timeout_s: float = 300.0) -> Compilation:
    """Compile a tiny gradient on `cpu` or `cuda`, in a process of its own without any cache."""
    start, command = time.perf_counter(), [sys.executable, "-c", _COMPILE, device]
    # First with the instructions that the processor names: to try each of them takes as long again.
    for settings in ({"TORCHINDUCTOR_VEC_ISA_OK": "1"}, {}) if device == "cpu" else ({},):
        with tempfile.TemporaryDirectory() as cache:
            environment = {**os.environ, **settings, "TORCHINDUCTOR_CACHE_DIR": cache, "TRITON_CACHE_DIR": cache}
            try:
                done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=timeout_s)
            except subprocess.TimeoutExpired:
                reason = f"the compiler took longer than {timeout_s:g} s"
                break
        lines = done.stderr.strip().splitlines() or [f"the process ended with status {done.returncode}"]
        reason = lines[-1] if done.returncode else ""
        if not reason or time.perf_counter() - start >= timeout_s:
            break
    return Compilation(device, reason, time.perf_counter() - start)


def verdict(check: Compilation) -> Text:
    """Whether compiling works, in words."""
    head = f"torch.compile on {check.device}"
    if not check.reason:
        return Text(f"{head} works ({check.duration_s:.0f} s with an empty cache)", style="green")
    return Text(f"{head} does not work: {check.reason}; everything runs uncompiled, only slower", style="yellow")
