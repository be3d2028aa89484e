"""Export to C99: the sources of `firmware/` with the weights of one policy, compiled and run beside it."""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from raptor.core.atomic import PathLike, replacing_folder
from raptor.core.errors import UserError
from raptor.export.verification import AnyPolicy, ExportError, Verified, original_of, verify
from raptor.formats.checkpoint import StudentPolicy
from raptor.tasks.task import Task

COMPILERS = ("cc", "gcc", "clang")
FLAGS = ("-std=c99", "-O2", "-Wall", "-Wextra", "-Wpedantic", "-Wconversion")
EXAMPLE_STEPS = 16  # of the self-test that is written with the weights
WEIGHTS, NUMBERS_A_LINE = "raptor_weights.h", 8


def firmware() -> Path:
    """The folder of the C sources: in the package, or in the checkout that it is installed from."""
    package = Path(__file__).parents[1]
    for folder in (package / "firmware", package.parents[1] / "firmware"):
        if (folder / "include" / "raptor_policy.h").is_file():
            return folder
    raise UserError("the C sources are not in this installation: install raptor-python again")


def export_c(policy: AnyPolicy, path: PathLike) -> Verified:
    """Write a folder of C sources with a policy of any width as constants; it appears complete or not at all."""
    original = original_of(policy, path, "", "a folder of C sources")
    with replacing_folder(path, WEIGHTS) as temporary:
        for file in [*(firmware() / "include").glob("*.h"), *(firmware() / "src").glob("*.c")]:
            shutil.copyfile(file, temporary / file.name)
        (temporary / WEIGHTS).write_text(weights_header(original), encoding="ascii")
        if (compiler := find_compiler()) is None:
            return Verified(None, f"no C compiler is there ({', '.join(COMPILERS)})")
        with compiled(compiler, temporary) as library:
            return Verified(verify(original, CPolicy(library, original), path), Path(compiler).name)


def find_compiler() -> str | None:
    """The C compiler of this machine: `CC` of the environment, or the first there is; None where there is none."""
    asked = os.environ.get("CC", "").split()
    return next(filter(None, map(shutil.which, [*asked[:1], *COMPILERS])), None)


@contextlib.contextmanager
def compiled(compiler: str, sources: Path) -> Iterator[ctypes.CDLL]:
    """The sources as a library of this process; what the compiler says, a warning too, is an `ExportError`."""
    with tempfile.TemporaryDirectory() as scratch:
        library = Path(scratch) / "raptor.so"
        files = sorted(map(str, sources.glob("*.c")))
        command = [compiler, *FLAGS, "-fPIC", "-shared", "-o", str(library), *files, "-lm"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode or done.stderr:
            raise ExportError(f"{compiler} does not compile the sources: {done.stderr.strip().splitlines()[:3]}")
        yield ctypes.CDLL(str(library))


class CPolicy:
    """A policy in C, as it runs here."""

    def __init__(self, library: ctypes.CDLL, policy: StudentPolicy) -> None:
        self._library, self._dims = library, (policy.action_dim, policy.memory_dim)

    def initial_hidden_state(self, *shape: int) -> Tensor:
        """See `Written`."""
        hidden = np.zeros(max(1, self._dims[1]), np.float32)
        self._library.raptor_reset(ctypes.c_void_p(hidden.ctypes.data))
        return torch.from_numpy(hidden[: self._dims[1]]).expand(*shape, -1)

    def __call__(self, observation: Tensor, hidden: Tensor, /) -> tuple[Tensor, Tensor]:
        """See `Written`; one vehicle after another."""
        seen, (num_actions, width) = np.ascontiguousarray(observation.numpy(), np.float32), self._dims
        following = np.zeros((len(seen), max(1, width)), np.float32)
        following[:, :width] = hidden.numpy()
        action = np.empty((len(seen), num_actions), np.float32)
        for row, memory, result in zip(seen, following, action, strict=True):
            pointers = (ctypes.c_void_p(array.ctypes.data) for array in (memory, row, result))
            self._library.raptor_step(*pointers)
        return torch.from_numpy(action), torch.from_numpy(following[:, :width])


@torch.no_grad()
def weights_header(policy: StudentPolicy) -> str:
    """`raptor_weights.h`: widths, weights input by input, and an example for the self-test."""
    generator = torch.Generator().manual_seed(0)
    observations = torch.randn(EXAMPLE_STEPS, 1, policy.observation_dim, generator=generator)
    hidden, actions = policy.initial_hidden_state(1), []
    for observation in observations:
        action, hidden = policy(observation, hidden)
        actions.append(action)
    place = Task().observing(policy.layout).place_of("previous_action")
    widths = {
        "OBSERVATION_DIM": policy.observation_dim,
        "HIDDEN_DIM": policy.hidden_dim,
        "ACTION_DIM": policy.action_dim,
        "MEMORY_DIM": policy.memory_dim,
        "PREVIOUS_ACTION": -1 if place is None else place,
        "EXAMPLE_STEPS": EXAMPLE_STEPS,
    }
    arrays = {
        **{
            ARRAYS[name]: tensor.mT if tensor.ndim == 2 else tensor
            for name, tensor in policy.tensors()._asdict().items()
        },
        "initial_hidden": policy.initial_hidden_state() if policy.memory_dim else torch.zeros(1),
        "example_observation": observations,
        "example_action": torch.stack(actions),
    }
    lines = ["/* The weights of a policy, input by input, written by raptor export --format c. */"]
    lines += ["#ifndef RAPTOR_WEIGHTS_H", "#define RAPTOR_WEIGHTS_H", ""]
    lines += [f"#define RAPTOR_{name} {value}" for name, value in widths.items()]
    for name, tensor in arrays.items():
        lines += ["", f"static const float raptor_{name}[{tensor.numel()}] = {{", *_rows(tensor), "};"]
    return "\n".join([*lines, "", "#endif", ""])


ARRAYS = {
    "input_weight": "input_weight",
    "input_bias": "input_bias",
    "middle_weight": "middle_weight",
    "middle_bias": "middle_bias",
    "gru_weight_ih": "gru_input_weight",
    "gru_bias_ih": "gru_input_bias",
    "gru_weight_hh": "gru_hidden_weight",
    "gru_bias_hh": "gru_hidden_bias",
    "output_weight": "output_weight",
    "output_bias": "output_bias",
}
"""Names of the arrays by those of the tensors."""


def _rows(tensor: Tensor) -> Iterator[str]:
    """Numbers as C writes them in single precision, so many in a line; nine digits are exact."""
    numbers = [f"{value:.9g}" for value in tensor.flatten().tolist()]
    texts = [(text if {".", "e"} & set(text) else f"{text}.0") + "f" for text in numbers]
    for first in range(0, len(texts), NUMBERS_A_LINE):
        yield f"    {', '.join(texts[first : first + NUMBERS_A_LINE])},"
