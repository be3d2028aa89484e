"""Teachers in rl-tools' HDF5 layout: a multi-layer perceptron, then `sample_and_squash`; read, and written.

Source: the teachers of RAPTOR's pre-training. All attributes are text, and biases are rows.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from raptor.core.atomic import PathLike, replacing
from raptor.core.errors import UserError
from raptor.formats.rl_tools import array, member, opened, text
from raptor.formats.weights import connected, layer_of
from raptor.nn.activations import activation_name
from raptor.nn.expert import ExpertNetwork
from raptor.nn.stacked_mlp import Layer

if TYPE_CHECKING:
    import h5py

SOURCE = "rl-tools teacher"
ACTIVATIONS = {"relu": "RELU", "tanh": "TANH", "sigmoid": "SIGMOID", "fast_tanh": "FAST_TANH", "gelu_tanh": "GELU"}
"""What rl-tools has between its layers, by our names."""

_MLP = "actor/layers/0"
_UNKNOWN_LOG_STD = -20.0  # of a teacher whose noise is not known; rl-tools allows no less
_NUM_EXAMPLES = 32
_EXAMPLE_TOLERANCE = 1e-4  # as for the student: another activation function gives 1e-2


def read_rl_tools_teacher(path: PathLike, activation: str | None = None) -> ExpertNetwork:
    """Read a teacher; its widths and its activation function are read from the file.

    The stored example, where there is one, is replayed: a file that does not reproduce it is refused.

    Args:
        path: the file.
        activation: between the layers, in place of what the file says.

    Raises:
        UserError: the file is truncated or not HDF5, holds another architecture, a wrong shape, a weight that is not
            finite, or an example that it does not reproduce.
    """
    with opened(path) as file:
        expert = _read(file, path, activation)
        if "example" in file:
            _check_example(expert, file, path)
    return expert


def write_rl_tools_teacher(expert: ExpertNetwork, path: PathLike, name: str = "teacher") -> float:
    """Write a teacher as rl-tools does, with an example, and read it back.

    Args:
        expert: squashed by tanh to [-1, 1], without a normaliser; `TeacherPopulation.expert` gives such ones.
        path: the file, complete or not at all.
        name: of the checkpoint, which the file holds.

    Returns:
        Largest difference between the actions of the file and of `expert` at its example.

    Raises:
        UserError: rl-tools has no such network, or the file cannot be written.
    """
    import h5py

    _check_writable(expert, path)
    expert = expert.to("cpu", torch.float32)
    generator = torch.Generator().manual_seed(0)
    observation = torch.randn(1, _NUM_EXAMPLES, expert.observation_dim, generator=generator)
    meta = {"environment": {"name": "l2f"}, "hidden": list(expert.hidden)}
    with replacing(path) as temporary:
        with h5py.File(temporary, "w") as file:
            actor = _group(file, "actor", type="sequential", checkpoint_name=name, meta=json.dumps(meta))
            mlp = _group(actor, "layers/0", type="mlp", num_layers=len(expert.layers))
            for layer_name, layer in zip(_names(len(expert.layers)), _with_log_std(expert), strict=True):
                last = layer_name == "output_layer"
                _write_layer(mlp, layer_name, layer, "IDENTITY" if last else ACTIVATIONS[expert.activation])
            _group(actor, "layers/1", type="sample_and_squash")
            _write_tensor(file, "example/input", observation)
            _write_tensor(file, "example/output", expert(observation))
        found = read_rl_tools_teacher(temporary)
    return float((found(observation) - expert(observation)).abs().max())


def _read(file: h5py.File, path: PathLike, activation: str | None) -> ExpertNetwork:
    layers = member(file, "actor/layers", path)
    kinds = [text(layers[name].attrs.get("type")) for name in sorted(layers)]
    if kinds not in (["mlp"], ["mlp", "sample_and_squash"]):
        raise UserError(
            f"{path} holds another architecture: its layers are {', '.join(kinds) or 'none'}, those of a teacher are "
            "mlp, sample_and_squash"
        )
    mlp = layers["0"]
    names = _names(_num_layers(mlp, path))
    dense = connected(tuple(_read_layer(file, name, path) for name in names), path)
    functions = [text(mlp[name].attrs.get("activation_function", "RELU")) for name in names]
    if len(set(functions[:-1])) > 1 or functions[-1] not in ("IDENTITY", "TANH"):
        raise UserError(f"{path} holds another architecture: its activation functions are {', '.join(functions)}")
    between = activation or _own_name(functions[0], path)
    squash = "tanh" if kinds[-1] == "sample_and_squash" or functions[-1] == "TANH" else "none"
    deviation = None
    if kinds[-1] == "sample_and_squash":
        dense, deviation = _split(dense, path)
    return ExpertNetwork(dense, between, squash, log_std_layer=deviation, source=SOURCE)


def _own_name(function: str, path: PathLike) -> str:
    """What we call an activation function of rl-tools."""
    found = {theirs: ours for ours, theirs in ACTIVATIONS.items()}.get(function.upper())
    return found or activation_name(function, str(path))


def _num_layers(mlp: h5py.Group, path: PathLike) -> int:
    """Of the layers, the input's and the output's among them."""
    told = text(mlp.attrs.get("num_layers", ""))
    there = sum(name.endswith("_layer") or "_layer_" in name for name in mlp)
    if told and told != str(there):
        raise UserError(f"{path} says that it has {told} layers, but holds {there}: it is damaged")
    if there < 2:
        raise UserError(f"{path} holds {there} layers: a teacher has an input_layer and an output_layer at least")
    return there


def _names(num: int) -> list[str]:
    return ["input_layer", *(f"hidden_layer_{i}" for i in range(num - 2)), "output_layer"]


def _read_layer(file: h5py.File, name: str, path: PathLike) -> Layer:
    weights = {
        f"{name}.weight": array(file, f"{_MLP}/{name}/weights/parameters", path),
        f"{name}.bias": array(file, f"{_MLP}/{name}/biases/parameters", path),
    }
    bias = weights[f"{name}.bias"]
    weights[f"{name}.bias"] = bias[0] if bias.ndim == 2 and len(bias) == 1 else bias
    return layer_of(weights, name, path)


def _split(layers: tuple[Layer, ...], path: PathLike) -> tuple[tuple[Layer, ...], Layer]:
    """Mean and logarithmic deviation, which the last layer gives one after the other."""
    weight, bias = layers[-1]
    if len(bias) % 2:
        raise UserError(f"{path} gives {len(bias)} numbers: a mean and a deviation of each action are an even number")
    means, deviations = zip(weight.chunk(2), bias.chunk(2), strict=True)
    return (*layers[:-1], Layer(*(t.clone() for t in means))), Layer(*(t.clone() for t in deviations))


def _check_example(expert: ExpertNetwork, file: h5py.File, path: PathLike) -> None:
    observation, action = array(file, "example/input", path), array(file, "example/output", path)
    wanted = (*observation.shape[:-1], expert.action_dim)
    if observation.shape[-1:] != (expert.observation_dim,) or action.shape != wanted:
        raise UserError(
            f"the example must be (..., {expert.observation_dim}) to (..., {expert.action_dim}), got "
            f"{tuple(observation.shape)} to {tuple(action.shape)} ({path})"
        )
    error = float((expert(observation) - action).abs().max()) if observation.numel() else 0.0
    if not error <= _EXAMPLE_TOLERANCE:
        raise UserError(f"{path} does not reproduce its own example (largest error {error:.2g}): it is damaged")


def _check_writable(expert: ExpertNetwork, path: PathLike) -> None:
    if Path(path).suffix.lower() not in (".h5", ".hdf5"):
        raise UserError(f"a teacher of rl-tools ends in .h5, got {path}: choose another name")
    bounds = [bound for bound in (expert.low, expert.high) if bound is not None]
    if expert.squash != "tanh" or expert.normalizer is not None or any((bound.abs() != 1).any() for bound in bounds):
        raise UserError(
            "rl-tools squashes the actions of a teacher to [-1, 1] by tanh and has no observation normaliser: this "
            f"teacher is another ({expert.description})"
        )
    if expert.activation not in ACTIVATIONS or len(expert.layers) < 2:
        raise UserError(
            f"rl-tools has {', '.join(ACTIVATIONS)} between two layers or more, got {expert.activation} "
            f"between {len(expert.layers)}"
        )


def _with_log_std(expert: ExpertNetwork) -> tuple[Layer, ...]:
    """The layers, the last of which also gives the logarithmic deviations."""
    last = expert.layers[-1]
    if expert.log_std_layer is not None:
        deviation = expert.log_std_layer
    else:
        known = torch.full_like(last.bias, _UNKNOWN_LOG_STD) if expert.log_std is None else expert.log_std
        deviation = Layer(torch.zeros_like(last.weight), known)
    return (*expert.layers[:-1], Layer(*(torch.cat(pair) for pair in zip(last, deviation, strict=True))))


def _group(parent: h5py.Group, name: str, **attributes: object) -> h5py.Group:
    group = parent.create_group(name)
    _tell(group, attributes)
    return group


def _tell(item: h5py.HLObject, attributes: Mapping[str, object]) -> None:
    for name, value in attributes.items():
        item.attrs[name] = str(value)


def _write_layer(mlp: h5py.Group, name: str, layer: Layer, activation: str) -> None:
    group = _group(mlp, name, type="dense", activation_function=activation)
    for kind, matrix in (("weights", layer.weight), ("biases", layer.bias[None])):
        rows, cols = matrix.shape
        group[f"{kind}/parameters"] = np.ascontiguousarray(matrix.numpy())
        _tell(group[f"{kind}/parameters"], {"type": "matrix", "rows": rows, "cols": cols})


def _write_tensor(file: h5py.File, name: str, tensor: Tensor) -> None:
    file[name] = np.ascontiguousarray(tensor.numpy())
    sizes = {f"dim_{i}": size for i, size in enumerate(tensor.shape)}
    _tell(file[name], {"type": "tensor", "num_dims": tensor.ndim, **sizes})
