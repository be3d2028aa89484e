"""Teachers in rl-tools' HDF5 layout: a multi-layer perceptron, then `sample_and_squash`; read, and written.

Source: the teachers of RAPTOR's pre-training. All attributes are text, and biases are rows.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from raptor.core.atomic import PathLike, replacing
from raptor.core.errors import UserError
from raptor.formats.rl_tools import array, check_example, member, opened, text
from raptor.formats.weights import connected, halves, layer_of
from raptor.nn.activations import activation_name
from raptor.nn.expert import ExpertNetwork
from raptor.nn.stacked_mlp import Layer

if TYPE_CHECKING:
    import h5py

SOURCE = "rl-tools teacher"
ACTIVATIONS = {"relu": "RELU", "tanh": "TANH", "sigmoid": "SIGMOID", "fast_tanh": "FAST_TANH", "gelu_tanh": "GELU"}
"""Activation functions of rl-tools by our names."""

_MLP = "actor/layers/0"
_UNKNOWN_LOG_STD = -20.0  # of a teacher whose noise is not known; rl-tools allows no less
_NUM_EXAMPLES = 32


def read_rl_tools_teacher(path: PathLike, activation: str | None = None) -> ExpertNetwork:
    """Read a teacher; `activation` between the layers takes the place of what the file says.

    Raises:
        UserError: the file is truncated or not HDF5, holds another architecture, a wrong shape, a weight that is not
            finite, or an example that it does not reproduce.
    """
    with opened(path) as file:
        expert = _read(file, path, activation)
        check_example(file, expert, (expert.observation_dim, expert.action_dim), path)
    return expert


def _read(file: h5py.File, path: PathLike, activation: str | None) -> ExpertNetwork:
    layers = member(file, "actor/layers", path)
    kinds = [text(layers[name].attrs.get("type")) for name in sorted(layers)]
    if kinds not in (["mlp"], ["mlp", "sample_and_squash"]):
        raise UserError(
            f"{path} holds another architecture: its layers are {', '.join(kinds) or 'none'}, those of a teacher are "
            "mlp, sample_and_squash"
        )
    mlp = layers["0"]
    stated = text(mlp.attrs.get("num_layers", ""))
    there = sum(name.endswith("_layer") or "_layer_" in name for name in mlp)
    if stated and stated != str(there):
        raise UserError(f"{path} says that it has {stated} layers, but holds {there}: it is damaged")
    if there < 2:
        raise UserError(f"{path} holds {there} layers: a teacher has an input_layer and an output_layer at least")
    names = _names(there)
    dense = connected([_read_layer(file, name, path) for name in names], path)
    functions = [text(mlp[name].attrs.get("activation_function", "RELU")) for name in names]
    if len(set(functions[:-1])) > 1 or functions[-1] not in ("IDENTITY", "TANH"):
        raise UserError(f"{path} holds another architecture: its activation functions are {', '.join(functions)}")
    ours = {theirs: name for name, theirs in ACTIVATIONS.items()}.get(functions[0].upper())
    between = activation or ours or activation_name(functions[0], path)
    if kinds[-1] == "mlp":
        return ExpertNetwork(dense, between, "tanh" if functions[-1] == "TANH" else "none", source=SOURCE)
    if len(dense[-1].bias) % 2:
        raise UserError(
            f"{path} gives {len(dense[-1].bias)} numbers: a mean and a deviation of each action are an even number"
        )
    mean, log_std = halves(dense[-1])
    return ExpertNetwork((*dense[:-1], mean), between, "tanh", log_std_layer=log_std, source=SOURCE)


def _names(num: int) -> list[str]:
    return ["input_layer", *(f"hidden_layer_{i}" for i in range(num - 2)), "output_layer"]


def _read_layer(file: h5py.File, name: str, path: PathLike) -> Layer:
    weight, bias = (f"{_MLP}/{name}/{kind}/parameters" for kind in ("weights", "biases"))
    found = {f"{name}.weight": array(file, weight, path), f"{name}.bias": array(file, bias, path, is_bias=True)}
    return layer_of(found, name, path)


def write_rl_tools_teacher(expert: ExpertNetwork, path: PathLike, name: str = "teacher") -> float:
    """Write a teacher as rl-tools does, with an example, complete or not at all, and read it back.

    Args:
        expert: squashed by tanh to [-1, 1], without a normaliser; `TeacherPopulation.expert` gives such ones.
        path: the file.
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
    names = _names(len(expert.layers))
    with replacing(path) as temporary:
        with h5py.File(temporary, "w") as file:
            _add(file, "actor", type="sequential", checkpoint_name=name, meta=json.dumps(meta))
            _add(file, _MLP, type="mlp", num_layers=len(names))
            for layer_name, layer in zip(names, _with_log_std(expert), strict=True):
                function = "IDENTITY" if layer_name == names[-1] else ACTIVATIONS[expert.activation]
                _add(file, f"{_MLP}/{layer_name}", type="dense", activation_function=function)
                for kind, matrix in (("weights", layer.weight), ("biases", layer.bias[None])):
                    sizes = {"rows": matrix.shape[0], "cols": matrix.shape[1]}
                    _add(file, f"{_MLP}/{layer_name}/{kind}/parameters", matrix, type="matrix", **sizes)
            _add(file, "actor/layers/1", type="sample_and_squash")
            for kind, tensor in (("input", observation), ("output", expert(observation))):
                sizes = {f"dim_{i}": size for i, size in enumerate(tensor.shape)}
                _add(file, f"example/{kind}", tensor, type="tensor", num_dims=tensor.ndim, **sizes)
        found = read_rl_tools_teacher(temporary)
    return float((found(observation) - expert(observation)).abs().max())


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
    last, log_std = expert.layers[-1], expert.log_std_layer
    if log_std is None:
        known = torch.full_like(last.bias, _UNKNOWN_LOG_STD) if expert.log_std is None else expert.log_std
        log_std = Layer(torch.zeros_like(last.weight), known)
    return (*expert.layers[:-1], Layer(*(torch.cat(pair) for pair in zip(last, log_std, strict=True))))


def _add(file: h5py.File, name: str, tensor: Tensor | None = None, **attributes: object) -> None:
    """Add a group, or the numbers of a tensor, with attributes."""
    if tensor is None:
        file.create_group(name)
    else:
        file[name] = np.ascontiguousarray(tensor.numpy())
    file[name].attrs.update({key: str(value) for key, value in attributes.items()})
