"""HDF5 files in rl-tools' layout: looked through before anything is read."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from raptor.core.atomic import PathLike
from raptor.core.errors import UserError, first_line, printable
from raptor.formats.torch_files import LARGEST_RATIO, SMALL

if TYPE_CHECKING:
    import h5py

_EXAMPLE_TOLERANCE = 1e-4  # float32 in another order of summation gives 1e-6, another activation function 1e-2


@contextlib.contextmanager
def opened(path: PathLike) -> Iterator[h5py.File]:
    """Open an HDF5 file to read.

    Raises:
        UserError: h5py is not installed, the file is truncated, damaged or not HDF5, its arrays lie in other files, or
            take far more memory than the file is large.
    """
    try:
        import h5py
    except ImportError as error:
        raise UserError(f"reading {path} needs h5py, which is not installed: pip install h5py") from error
    try:
        with h5py.File(path, "r") as file:
            _check_whole(file, path)
            yield file
    except UserError:
        raise
    except (OSError, RuntimeError, KeyError, TypeError, ValueError) as error:  # what h5py raises for damaged files
        raise UserError(f"{path} is truncated, damaged or no HDF5 file: {first_line(error)}") from error


def _check_whole(file: h5py.File, path: PathLike) -> None:
    import h5py

    datasets: dict[str, h5py.Dataset] = {}
    elsewhere: list[str] = []
    file.visititems(lambda name, item: datasets.update({name: item} if isinstance(item, h5py.Dataset) else {}))
    file.visititems_links(lambda name, link: elsewhere.extend([name] * isinstance(link, h5py.ExternalLink)))
    elsewhere += [name for name, dataset in datasets.items() if dataset.external or dataset.is_virtual]
    if elsewhere:
        raise UserError(f"{path} was refused: its {elsewhere[0]} lies in another file; give a file that is complete")
    size, unpacked = Path(path).stat().st_size, sum(dataset.nbytes for dataset in datasets.values())
    if unpacked > max(SMALL, LARGEST_RATIO * size):
        raise UserError(
            f"{path} was refused: its {size} bytes unpack to {unpacked}, which is more than {SMALL} and than "
            f"{LARGEST_RATIO} times as much"
        )


def member(group: h5py.Group, name: str, path: PathLike) -> Any:
    """A group or a data set of the file.

    Raises:
        UserError: it is missing.
    """
    if name not in group:
        raise UserError(f"{name} is missing in {path}: give an rl-tools checkpoint")
    return group[name]


def array(file: h5py.File, name: str, path: PathLike, is_bias: bool = False) -> Tensor:
    """The numbers of a data set, in single precision; a bias may be stored as a row.

    Raises:
        UserError: it is missing, or holds something else.
    """
    dataset = member(file, name, path)
    if getattr(dataset, "shape", None) is None or dataset.dtype.kind != "f":
        raise UserError(f"{name} must be an array of floating-point numbers, got {dataset} ({path})")
    numbers = torch.from_numpy(np.asarray(dataset[()], dtype=np.float32).copy())
    return numbers[0] if is_bias and numbers.ndim == 2 and len(numbers) == 1 else numbers


def text(value: Any) -> str:
    """An attribute, which may be stored as bytes, with control bytes escaped."""
    return printable(value.decode(errors="replace") if isinstance(value, bytes) else str(value))


def check_example(file: h5py.File, act: Callable[[Tensor], Tensor], widths: tuple[int, int], path: PathLike) -> None:
    """Replay the example of a checkpoint, where it has one, from observations to actions of these widths.

    Raises:
        UserError: the example is of another shape, or the network does not reproduce it.
    """
    if "example" not in file:
        return
    observations, actions = array(file, "example/input", path), array(file, "example/output", path)
    if observations.shape[-1:] != widths[:1] or actions.shape != (*observations.shape[:-1], widths[1]):
        raise UserError(
            f"the example must be (time, batch, {widths[0]}) to (time, batch, {widths[1]}), got "
            f"{tuple(observations.shape)} to {tuple(actions.shape)} ({path})"
        )
    error = ((act(observations) - actions).abs() / (1 + actions.abs())).max().item() if actions.numel() else 0.0
    if not error <= _EXAMPLE_TOLERANCE:
        raise UserError(
            f"{path} does not reproduce its own example (largest error {error:.2g}): it is damaged, or uses another "
            "activation function, such as rl-tools' FAST_TANH in its GRU"
        )
