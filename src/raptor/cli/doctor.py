"""What this machine offers: versions, devices, threads, a compiler for `torch.compile`, and the extras."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass

import torch
from rich.console import Group
from rich.table import Table
from rich.text import Text

DISTRIBUTION = "raptor-python"
PACKAGES = (
    DISTRIBUTION,
    "torch",
    "numpy",
    "h5py",
    "safetensors",
    "foundation-policy",
    "pydantic",
    "gymnasium",
    "onnx",
    "onnxscript",
    "onnxruntime",
    "scipy",
    "matplotlib",
    "tensorboard",
)

# Compiled in a process of its own with an empty cache: a kernel kept from earlier cannot hide that the compiler is
# gone, and a compiler that crashes or hangs takes nothing else along.
_COMPILE = """
import sys, torch
device = sys.argv[1]
x = torch.linspace(-1, 1, 64, device=device, requires_grad=True)
function = lambda x: (torch.sin(x) * x).sum()
try:
    value = torch.compile(function, fullgraph=True)(x)
    gradient, = torch.autograd.grad(value, x)
    expected, = torch.autograd.grad(function(x), x)
    torch.testing.assert_close(gradient, expected)
except Exception as error:
    cause = error
    while cause.__cause__ is not None:
        cause = cause.__cause__
    lines = [line.strip() for line in str(cause).splitlines() if line.strip()] or ["no message"]
    sys.exit(f"{type(cause).__name__}: {lines[0]}")
"""


@dataclass(frozen=True)
class Device:
    """A place where tensors can live; `name` is what `--device` takes."""

    name: str
    description: str


@dataclass(frozen=True)
class Threads:
    """How many threads torch uses inside and between operations, and `OMP_NUM_THREADS` where it is set."""

    intra_op: int
    inter_op: int
    omp_num_threads: str | None


@dataclass(frozen=True)
class Compilation:
    """Whether `torch.compile` works on a device; `reason` says why not, and is empty where it does."""

    device: str
    works: bool
    reason: str
    duration_s: float


@dataclass(frozen=True)
class Extra:
    """An optional group of dependencies, its packages with their installed versions, and what it gives."""

    name: str
    packages: tuple[str, ...]
    gives: str

    @property
    def versions(self) -> dict[str, str | None]:
        """Installed version per package, None where it is missing."""
        return {package: version(package) for package in self.packages}

    @property
    def installed(self) -> bool:
        """Whether every package of the extra is there."""
        return None not in self.versions.values()

    @property
    def command(self) -> str:
        """The command that installs the extra."""
        return f"pip install '{DISTRIBUTION}[{self.name}]'"


EXTRAS = (
    Extra("l2f", ("l2f",), "the original C++ simulator as raptor/L2F-v0, to train, evaluate or cross-check in"),
    Extra("sb3", ("stable-baselines3",), "stable-baselines3's learning algorithms on the Gymnasium environments"),
    Extra("rsl", ("rsl-rl-lib",), "rsl_rl's runners on our environments, and our student in its distillation"),
    Extra("sim", ("mujoco", "imageio"), "the MuJoCo environments of Gymnasium, to distil in"),
    Extra("ray", ("ray",), "training on a cluster (engine=ray)"),
    Extra("docs", ("mkdocs-material",), "building the documentation (make docs)"),
    Extra(
        "dev",
        (
            "stable-baselines3",
            "rsl-rl-lib",
            "mujoco",
            "imageio",
            "ruff",
            "mypy",
            "pytest",
            "pytest-xdist",
            "pytest-cov",
            "hypothesis",
            "hatchling",
            "pre-commit",
        ),
        "working on raptor itself (make test, make lint, make types)",
    ),
)


@dataclass(frozen=True)
class Report:
    """Everything that `raptor doctor` shows."""

    python: str
    system: str
    versions: dict[str, str | None]
    devices: tuple[Device, ...]
    threads: Threads
    compilations: tuple[Compilation, ...]
    extras: tuple[Extra, ...]


def version(package: str) -> str | None:
    """Return the installed version of a distribution, or None where it is missing."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def devices() -> tuple[Device, ...]:
    """List the processor and every CUDA device."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    found = [Device("cpu", f"{usable} usable of {os.cpu_count()} cores, {torch.backends.cpu.get_cpu_capability()}")]
    for index in range(torch.cuda.device_count()):
        gpu = torch.cuda.get_device_properties(index)
        found.append(Device(f"cuda:{index}", f"{gpu.name}, {gpu.total_memory / 2**30:.0f} GiB"))
    return tuple(found)


def check_compilation(device: str = "cpu", timeout_s: float = 300.0) -> Compilation:
    """Compile a tiny function with its gradient on `device`, in a process of its own without any cache.

    Args:
        device: where to compile, `cpu` or `cuda`.
        timeout_s: how long the compiler may take before it counts as broken.
    """
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as cache:
        environment = {**os.environ, "TORCHINDUCTOR_CACHE_DIR": cache, "TRITON_CACHE_DIR": cache}
        command = [sys.executable, "-c", _COMPILE, device]
        try:
            done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=timeout_s)
        except subprocess.TimeoutExpired:
            reason = f"the compiler took longer than {timeout_s:g} s"
        else:
            lines = done.stderr.strip().splitlines() or [f"the process ended with status {done.returncode}"]
            reason = lines[-1] if done.returncode else ""
    return Compilation(device, not reason, reason, time.perf_counter() - start)


def report(compilers: bool = True) -> Report:
    """Examine this machine.

    Args:
        compilers: also compile something on every kind of device, which takes up to half a minute each.
    """
    kinds = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]
    return Report(
        python=platform.python_version(),
        system=platform.platform(),
        versions={package: version(package) for package in PACKAGES},
        devices=devices(),
        threads=Threads(torch.get_num_threads(), torch.get_num_interop_threads(), os.environ.get("OMP_NUM_THREADS")),
        compilations=tuple(check_compilation(kind) for kind in kinds) if compilers else (),
        extras=EXTRAS,
    )


def render(report: Report) -> Group:
    """Lay a report out for a rich console."""
    versions = _table("Versions")
    versions.add_row("python", f"{report.python} on {report.system}")
    for package, number in report.versions.items():
        versions.add_row(package, number or Text("missing", style="red"))

    machine = _table("Machine")
    for device in report.devices:
        machine.add_row(device.name, device.description)
    omp = report.threads.omp_num_threads
    machine.add_row(
        "threads",
        f"{report.threads.intra_op} inside an operation, {report.threads.inter_op} between operations"
        + (f" (OMP_NUM_THREADS={omp})" if omp else ""),
    )
    for check in report.compilations:
        machine.add_row(f"torch.compile on {check.device}", _verdict(check))

    extras = _table("Extras")
    for extra in report.extras:
        extras.add_row(extra.name, _state(extra))
    return Group(versions, machine, extras)


def _table(title: str) -> Table:
    table = Table(title=title, title_justify="left", show_header=False, box=None, padding=(0, 2, 0, 0))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    return table


def _verdict(check: Compilation) -> Text:
    if check.works:
        return Text(f"works ({check.duration_s:.0f} s with an empty cache)", style="green")
    return Text(f"does not work: {check.reason}; everything runs uncompiled, only slower", style="yellow")


def _state(extra: Extra) -> Text:
    present = ", ".join(f"{package} {number}" for package, number in extra.versions.items() if number)
    if extra.installed:
        return Text(present, style="green")
    missing = ", ".join(package for package, number in extra.versions.items() if not number)
    return Text(f"missing {missing}; gives {extra.gives}: {extra.command}", style="yellow")
