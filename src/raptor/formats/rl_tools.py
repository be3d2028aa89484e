"""Policies in rl-tools' HDF5 layout, such as the checkpoint that was published with RAPTOR."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from raptor.core.atomic import PathLike
from raptor.core.errors import UserError, first_line, printable
from raptor.formats.checkpoint import assemble
from raptor.formats.torch_files import LARGEST_RATIO, SMALL
from raptor.nn.policy import RaptorPolicy

if TYPE_CHECKING:
    import h5py

LAYERS = ("dense RELU", "gru", "dense IDENTITY")

# rl-tools stacks the gates of the GRU in the order r, z, n and lays out every matrix as torch does.
_WEIGHTS = {
    "input_layer.weight": "0/weights",
    "input_layer.bias": "0/biases",
    "gru.weight_ih_l0": "1/weights_input",
    "gru.weight_hh_l0": "1/weights_hidden",
    "gru.bias_ih_l0": "1/biases_input",
    "gru.bias_hh_l0": "1/biases_hidden",
    "initial_hidden": "1/initial_hidden_state",
    "output_layer.weight": "2/weights",
    "output_layer.bias": "2/biases",
}
_PATHS = {key: f"actor/layers/{path}/parameters" for key, path in _WEIGHTS.items()}
_EXAMPLE_TOLERANCE = 1e-4  # float32 in another order of summation gives 1e-6, another activation function 1e-2


def read_rl_tools(path: PathLike) -> RaptorPolicy:
    """Read a dense-GRU-dense actor from an rl-tools HDF5 checkpoint; its sizes are read from the file.

    The stored example, where there is one, is replayed: a file that does not reproduce it is refused.

    Args:
        path: the file.

    Returns:
        The policy, with the attributes of the group `actor` in its card.

    Raises:
        UserError: the file is truncated or not HDF5, lacks a group, holds another architecture or activation function,
            a wrong shape, a weight that is not finite, or an example that it does not reproduce.
    """
    with opened(path) as file:
        return _read(file, path)


@contextlib.contextmanager
def opened(path: PathLike) -> Iterator[h5py.File]:
    """Open an HDF5 file to read; what h5py raises for a damaged one is an error that says so.

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
    """Refuse a file that reads from other files, or takes far more memory than it is large."""
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


def _read(file: h5py.File, path: PathLike) -> RaptorPolicy:
    actor = member(file, "actor", path)
    _check_layers(actor, member(file, "actor/layers", path), path)
    weights = {key: array(file, name, path) for key, name in _PATHS.items()}
    for key in ("input_layer.bias", "output_layer.bias"):
        if weights[key].ndim == 2 and weights[key].shape[0] == 1:  # HDF5 files hold biases as rows
            weights[key] = weights[key][0]
    for key in ("input_layer.weight", "output_layer.weight"):
        if weights[key].ndim != 2:
            raise UserError(f"{_PATHS[key]} must be a matrix, got shape {tuple(weights[key].shape)} ({path})")
    hidden_dim, observation_dim = weights["input_layer.weight"].shape
    architecture = {
        "observation_dim": observation_dim,
        "hidden_dim": hidden_dim,
        "action_dim": weights["output_layer.weight"].shape[0],
    }
    policy = assemble(architecture, weights, path, _PATHS)
    assert isinstance(policy, RaptorPolicy)  # what an architecture without a kind gives
    if "example" in file:
        _check_example(policy, file, path)
    policy.card = {"what": "an rl-tools checkpoint"} | {
        name: text(actor.attrs[name]) for name in ("checkpoint_name", "meta") if name in actor.attrs
    }
    return policy


def _check_layers(actor: h5py.Group, layers: h5py.Group, path: PathLike) -> None:
    kind = text(actor.attrs.get("type"))
    if kind != "sequential":
        raise UserError(f"{path} holds another architecture: its actor is {kind}, a policy is sequential")
    found = []
    for index in sorted(layers, key=lambda name: (len(name), name)):
        attributes = layers[index].attrs
        names = (attributes.get("type"), attributes.get("activation_function"))
        found.append(" ".join(text(name) for name in names if name is not None) or "unknown")
    if tuple(found) != LAYERS or sorted(layers) != ["0", "1", "2"]:
        raise UserError(
            f"{path} holds another architecture: its layers are {', '.join(found) or 'none'}, "
            f"a policy's are {', '.join(LAYERS)}"
        )


def _check_example(policy: RaptorPolicy, file: h5py.File, path: PathLike) -> None:
    observations, actions = array(file, "example/input", path), array(file, "example/output", path)
    expected = (*observations.shape[:2], policy.action_dim)
    if observations.ndim != 3 or observations.shape[2] != policy.observation_dim or actions.shape != expected:
        raise UserError(
            f"the example must be (time, batch, {policy.observation_dim}) to (time, batch, {policy.action_dim}), "
            f"got {tuple(observations.shape)} to {tuple(actions.shape)} ({path})"
        )
    if not observations.numel():
        return
    with torch.no_grad():
        flown, _ = policy.forward_sequence(observations)
    error = ((flown - actions).abs() / (1 + actions.abs())).max().item()
    if not error <= _EXAMPLE_TOLERANCE:
        raise UserError(
            f"{path} does not reproduce its own example (largest error {error:.2g}): it is damaged, or its GRU uses "
            f"another activation function, such as rl-tools' FAST_TANH"
        )


def member(group: h5py.Group, name: str, path: PathLike) -> Any:
    """A group or a data set of the file.

    Raises:
        UserError: it is missing.
    """
    if name not in group:
        raise UserError(f"{name} is missing in {path}: give an rl-tools checkpoint")
    return group[name]


def array(file: h5py.File, name: str, path: PathLike) -> Tensor:
    """The numbers of a data set, in single precision.

    Raises:
        UserError: it is missing, or holds something else.
    """
    dataset = member(file, name, path)
    shape = getattr(dataset, "shape", None)
    if shape is None or dataset.dtype.kind != "f":
        raise UserError(f"{name} must be an array of floating-point numbers, got {dataset} ({path})")
    return torch.from_numpy(np.asarray(dataset[()], dtype=np.float32).copy())


def text(value: Any) -> str:
    """An attribute, which may be stored as bytes, with control bytes escaped."""
    return printable(value.decode(errors="replace") if isinstance(value, bytes) else str(value))
