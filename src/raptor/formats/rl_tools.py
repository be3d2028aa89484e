"""Policies in rl-tools' HDF5 layout, such as the checkpoint that was published with RAPTOR."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from raptor.core.atomic import PathLike
from raptor.core.errors import UserError
from raptor.formats.checkpoint import assemble
from raptor.formats.hdf5 import array, check_example, member, opened, text
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
        attributes = layers[index].attrs
        names = (attributes.get("type"), attributes.get("activation_function"))
        found.append(" ".join(text(name) for name in names if name is not None) or "unknown")
    if tuple(found) != LAYERS or sorted(layers) != ["0", "1", "2"]:
        raise UserError(
            f"{path} holds another architecture: its layers are {', '.join(found) or 'none'}, "
            f"a policy's are {', '.join(LAYERS)}"
        )
