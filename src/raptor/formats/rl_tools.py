"""Policies in rl-tools' HDF5 layout, such as the checkpoint that was published with RAPTOR.

HDF5 files are looked through before anything is read; what is wrong with one is a `UserError`.
"""

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
from raptor.formats.checkpoint import assemble
from raptor.formats.torch_files import refuse_bomb
from raptor.nn.policy import RaptorPolicy

if TYPE_CHECKING:
    import h5py

LAYERS = ("dense RELU", "gru", "dense IDENTITY")
_EXAMPLE_TOLERANCE = 1e-4  # float32 in another order of summation gives 1e-6, another activation function 1e-2

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


def read_rl_tools(path: PathLike) -> RaptorPolicy:
    """Read a dense-GRU-dense actor of any size, with the attributes of the group `actor` in its card.

    Raises:
        UserError: the file is truncated or not HDF5, lacks a group, holds another architecture or activation function,
            a wrong shape, a weight that is not finite, or an example that it does not reproduce.
    """
    with opened(path) as file:
        actor = member(file, "actor", path)
        _check_layers(actor, member(file, "actor/layers", path), path)
        weights = {key: array(file, name, path, key.endswith("layer.bias")) for key, name in _PATHS.items()}
        for key in ("input_layer.weight", "output_layer.weight"):
            if weights[key].ndim != 2:
                raise UserError(f"{_PATHS[key]} must be a matrix, got shape {tuple(weights[key].shape)} ({path})")
        hidden_dim, observation_dim = weights["input_layer.weight"].shape
        action_dim = len(weights["output_layer.weight"])
        architecture = {"observation_dim": observation_dim, "hidden_dim": hidden_dim, "action_dim": action_dim}
        policy = assemble(architecture, weights, path, _PATHS)
        assert isinstance(policy, RaptorPolicy)  # what an architecture without a kind gives
        with torch.no_grad():
            check_example(file, lambda seen: policy.forward_sequence(seen)[0], (observation_dim, action_dim), path)
        known = {name: text(actor.attrs[name]) for name in ("checkpoint_name", "meta") if name in actor.attrs}
    policy.card = {"what": "an rl-tools checkpoint"} | known
    return policy


def _check_layers(actor: h5py.Group, layers: h5py.Group, path: PathLike) -> None:
    kind = text(actor.attrs.get("type"))
    if kind != "sequential":
        raise UserError(f"{path} holds another architecture: its actor is {kind}, a policy is sequential")
    found = []
    for index in sorted(layers, key=lambda name: (len(name), name)):
        names = [layers[index].attrs.get(name) for name in ("type", "activation_function")]
        found.append(" ".join(text(name) for name in names if name is not None) or "unknown")
    if tuple(found) != LAYERS or sorted(layers) != ["0", "1", "2"]:
        raise UserError(
            f"{path} holds another architecture: its layers are {', '.join(found) or 'none'}, "
            f"a policy's are {', '.join(LAYERS)}"
        )


@contextlib.contextmanager
def opened(path: PathLike) -> Iterator[h5py.File]:
    """Open an HDF5 file to read, if its arrays lie in it and take no more memory than they should."""
    try:
        import h5py
    except ImportError as error:
        raise UserError(f"reading {path} needs h5py, which is not installed: pip install h5py") from error
    try:
        with h5py.File(path, "r") as file:
            datasets: dict[str, h5py.Dataset] = {}
            elsewhere: list[str] = []
            file.visititems(lambda name, item: datasets.update({name: item} if isinstance(item, h5py.Dataset) else {}))
            file.visititems_links(lambda name, link: elsewhere.extend([name] * isinstance(link, h5py.ExternalLink)))
            elsewhere += [name for name, dataset in datasets.items() if dataset.external or dataset.is_virtual]
            if elsewhere:
                problem = f"its {elsewhere[0]} lies in another file; give a file that is complete"
                raise UserError(f"{path} was refused: {problem}")
            refuse_bomb(path, Path(path).stat().st_size, sum(dataset.nbytes for dataset in datasets.values()))
            yield file
    except UserError:
        raise
    except (OSError, RuntimeError, KeyError, TypeError, ValueError) as error:  # what h5py raises for damaged files
        raise UserError(f"{path} is truncated, damaged or no HDF5 file: {first_line(error)}") from error


def member(group: h5py.Group, name: str, path: PathLike) -> Any:
    """A group or a data set of the file."""
    if name not in group:
        raise UserError(f"{name} is missing in {path}: give an rl-tools checkpoint")
    return group[name]


def array(file: h5py.File, name: str, path: PathLike, is_bias: bool = False) -> Tensor:
    """The numbers of a data set, in single precision; a bias may be stored as a row."""
    dataset = member(file, name, path)
    if getattr(dataset, "shape", None) is None or dataset.dtype.kind != "f":
        raise UserError(f"{name} must be an array of floating-point numbers, got {dataset} ({path})")
    numbers = torch.from_numpy(np.asarray(dataset[()], dtype=np.float32).copy())
    return numbers[0] if is_bias and numbers.ndim == 2 and len(numbers) == 1 else numbers


def text(value: Any) -> str:
    """An attribute, which may be stored as bytes, with control bytes escaped."""
    return printable(value.decode(errors="replace") if isinstance(value, bytes) else str(value))


def check_example(file: h5py.File, act: Callable[[Tensor], Tensor], widths: tuple[int, int], path: PathLike) -> None:
    """Replay the example of a checkpoint, where it has one, from observations to actions of these widths."""
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
