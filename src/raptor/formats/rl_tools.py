"""Policies and teachers in rl-tools' HDF5 layout, such as the checkpoint that was published with RAPTOR.

Files are looked through before anything is read. All attributes are text, and biases may be rows. A teacher is a
multi-layer perceptron, then `sample_and_squash`. Source: the teachers of RAPTOR's pre-training.
"""

from __future__ import annotations

import contextlib
import copy
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from raptor.core.atomic import PathLike, replacing
from raptor.core.errors import UserError, first_line, printable
from raptor.formats.checkpoint import assemble, connected, halves, layer_of
from raptor.formats.torch_files import refuse_bomb
from raptor.nn.activations import activation_name
from raptor.nn.expert import ExpertNetwork
from raptor.nn.policy import RaptorPolicy
from raptor.nn.stacked_mlp import Layer

if TYPE_CHECKING:
    import h5py

LAYERS = ["dense RELU", "gru", "dense IDENTITY"]
# Activation functions of rl-tools by our names.
ACTIVATIONS = {"relu": "RELU", "tanh": "TANH", "sigmoid": "SIGMOID", "fast_tanh": "FAST_TANH", "gelu_tanh": "GELU"}
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
ENTRIES = {key: f"actor/layers/{path}/parameters" for key, path in _WEIGHTS.items()}
"""Where each tensor of a policy stands, in the order in which it is written."""

_MLP = "actor/layers/0"
_TEACHER = "rl-tools teacher"
_UNKNOWN_LOG_STD = -20.0  # of a teacher whose noise is not known; rl-tools allows no less
_NUM_EXAMPLES = 32
_EXAMPLE_STEPS, _EXAMPLE_BATCH = (500, 100, 20, 5), 2  # of a policy's example
_EXAMPLE_SIZE, _EXAMPLE_ROUNDING = 0.1, 2e-7  # how far it is from hovering, and the mean error of its actions at most
_EXAMPLE_TOLERANCE = 1e-4  # float32 in another order of summation gives 1e-6, another activation function 1e-2


def read_rl_tools(path: PathLike) -> RaptorPolicy:
    """Read a dense-GRU-dense actor of any size, with the attributes of the group `actor` in its card.

    A file that is damaged, holds another architecture, or an example that it does not reproduce, is refused.
    """
    with _opened(path) as file:
        actor, layers = _member(file, "actor", path), _member(file, "actor/layers", path)
        if (kind := _text(actor.attrs.get("type"))) != "sequential":
            raise UserError(f"{path} holds another architecture: its actor is {kind}, a policy is sequential")
        found = []
        for index in sorted(layers, key=lambda name: (len(name), name)):
            names = [layers[index].attrs.get(name) for name in ("type", "activation_function")]
            found.append(" ".join(_text(name) for name in names if name is not None) or "unknown")
        if found != LAYERS or sorted(layers) != ["0", "1", "2"]:
            problem = f"its layers are {', '.join(found) or 'none'}, a policy's are {', '.join(LAYERS)}"
            raise UserError(f"{path} holds another architecture: {problem}")
        weights = {key: _array(file, name, path, key.endswith("layer.bias")) for key, name in ENTRIES.items()}
        for key in ("input_layer.weight", "output_layer.weight"):
            if weights[key].ndim != 2:
                raise UserError(f"{ENTRIES[key]} must be a matrix, got shape {tuple(weights[key].shape)} ({path})")
        hidden_dim, observation_dim = weights["input_layer.weight"].shape
        action_dim = len(weights["output_layer.weight"])
        architecture = {"observation_dim": observation_dim, "hidden_dim": hidden_dim, "action_dim": action_dim}
        policy = assemble(architecture, weights, path, ENTRIES)
        assert isinstance(policy, RaptorPolicy)  # what an architecture without a kind gives
        with torch.no_grad():
            _check_example(file, lambda seen: policy.forward_sequence(seen)[0], (observation_dim, action_dim), path)
        known = {name: _text(actor.attrs[name]) for name in ("checkpoint_name", "meta") if name in actor.attrs}
    policy.card = {"what": "an rl-tools checkpoint"} | known
    return policy


def read_rl_tools_teacher(path: PathLike, activation: str | None = None) -> ExpertNetwork:
    """Read a teacher, checked as by `read_rl_tools`; `activation` takes the place of what the file says."""
    with _opened(path) as file:
        expert = _read_teacher(file, path, activation)
        _check_example(file, expert, (expert.observation_dim, expert.action_dim), path)
    return expert


def _read_teacher(file: h5py.File, path: PathLike, activation: str | None) -> ExpertNetwork:
    layers = _member(file, "actor/layers", path)
    kinds = [_text(layers[name].attrs.get("type")) for name in sorted(layers)]
    if kinds not in (["mlp"], ["mlp", "sample_and_squash"]):
        problem = f"its layers are {', '.join(kinds) or 'none'}, those of a teacher are mlp, sample_and_squash"
        raise UserError(f"{path} holds another architecture: {problem}")
    mlp = layers["0"]
    stated = _text(mlp.attrs.get("num_layers", ""))
    there = sum(name.endswith("_layer") or "_layer_" in name for name in mlp)
    if stated and stated != str(there):
        raise UserError(f"{path} says that it has {stated} layers, but holds {there}: it is damaged")
    if there < 2:
        raise UserError(f"{path} holds {there} layers: a teacher has an input_layer and an output_layer at least")
    names, arrays = _layer_names(there), {}
    for name in names:
        arrays[f"{name}.weight"] = _array(file, f"{_MLP}/{name}/weights/parameters", path)
        arrays[f"{name}.bias"] = _array(file, f"{_MLP}/{name}/biases/parameters", path, is_bias=True)
    dense = connected([layer_of(arrays, name, path) for name in names], path)
    functions = [_text(mlp[name].attrs.get("activation_function", "RELU")) for name in names]
    if len(set(functions[:-1])) > 1 or functions[-1] not in ("IDENTITY", "TANH"):
        raise UserError(f"{path} holds another architecture: its activation functions are {', '.join(functions)}")
    ours = {theirs: name for name, theirs in ACTIVATIONS.items()}.get(functions[0].upper())
    between = activation or ours or activation_name(functions[0], path)
    if kinds[-1] == "mlp":
        return ExpertNetwork(dense, between, "tanh" if functions[-1] == "TANH" else "none", source=_TEACHER)
    if (num := len(dense[-1].bias)) % 2:
        raise UserError(f"{path} gives {num} numbers: a mean and a deviation of each action are an even number")
    mean, log_std = halves(dense[-1])
    return ExpertNetwork((*dense[:-1], mean), between, "tanh", log_std_layer=log_std, source=_TEACHER)


def _layer_names(num: int) -> list[str]:
    return ["input_layer", *(f"hidden_layer_{i}" for i in range(num - 2)), "output_layer"]


@contextlib.contextmanager
def _opened(path: PathLike) -> Iterator[h5py.File]:
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


def _member(group: h5py.Group, name: str, path: PathLike) -> Any:
    if name not in group:
        raise UserError(f"{name} is missing in {path}: give an rl-tools checkpoint")
    return group[name]


def _array(file: h5py.File, name: str, path: PathLike, is_bias: bool = False) -> Tensor:
    """The numbers of a data set, in single precision; a bias may be stored as a row."""
    dataset = _member(file, name, path)
    if getattr(dataset, "shape", None) is None or dataset.dtype.kind != "f":
        raise UserError(f"{name} must be an array of floating-point numbers, got {dataset} ({path})")
    numbers = torch.from_numpy(np.asarray(dataset[()], dtype=np.float32).copy())
    return numbers[0] if is_bias and numbers.ndim == 2 and len(numbers) == 1 else numbers


def _text(value: Any) -> str:
    """An attribute, which may be stored as bytes, with control bytes escaped."""
    return printable(value.decode(errors="replace") if isinstance(value, bytes) else str(value))


def _check_example(file: h5py.File, act: Callable[[Tensor], Tensor], widths: tuple[int, int], path: PathLike) -> None:
    """Replay the example of a checkpoint, where it has one, from observations to actions of these widths."""
    if "example" not in file:
        return
    observations, actions = _array(file, "example/input", path), _array(file, "example/output", path)
    shapes = tuple(observations.shape), tuple(actions.shape)
    if shapes[0][-1:] != widths[:1] or shapes[1] != (*shapes[0][:-1], widths[1]):
        wanted = f"(time, batch, {widths[0]}) to (time, batch, {widths[1]})"
        raise UserError(f"the example must be {wanted}, got {shapes[0]} to {shapes[1]} ({path})")
    error = ((act(observations) - actions).abs() / (1 + actions.abs())).max().item() if actions.numel() else 0.0
    if not error <= _EXAMPLE_TOLERANCE:
        raise UserError(
            f"{path} does not reproduce its own example (largest error {error:.2g}): it is damaged, or uses another "
            "activation function, such as rl-tools' FAST_TANH in its GRU"
        )


def about_hovering(noise: Tensor) -> Tensor:
    """Observations (..., D) about those of a vehicle that hovers, from normally distributed numbers."""
    observations = _EXAMPLE_SIZE * noise
    if observations.shape[-1] >= 12:
        observations[..., [3, 7, 11]] += 1.0  # the diagonal of the rotation matrix
    return observations


@torch.no_grad()
def example_of(policy: RaptorPolicy) -> tuple[Tensor, Tensor]:
    """Observations (S, 2, D), about those of a vehicle that hovers, and the actions (S, 2, A) that they lead to.

    S is 500, or less for a policy whose memory amplifies rounding beyond what readers of such files allow.
    """
    generator, own = torch.Generator().manual_seed(0), copy.deepcopy(policy).to("cpu", torch.float32)
    shape = _EXAMPLE_STEPS[0], _EXAMPLE_BATCH, policy.observation_dim
    observations = about_hovering(torch.randn(shape, generator=generator))
    actions = own.forward_sequence(observations)[0]
    rounding = (own.double().forward_sequence(observations.double())[0] - actions).abs()
    sound = (steps for steps in _EXAMPLE_STEPS if rounding[:steps].mean().item() < _EXAMPLE_ROUNDING)
    steps = next(sound, _EXAMPLE_STEPS[-1])
    return observations[:steps], actions[:steps]


def write_rl_tools(policy: RaptorPolicy, path: PathLike, name: str = "raptor") -> None:
    """Write a recurrent policy of any width as rl-tools does, with an example, complete or not at all.

    `foundation_policy` loads it, and `read_rl_tools` gives every weight back, bit for bit.
    """
    import h5py

    weights = {key: tensor.detach().to("cpu", torch.float32) for key, tensor in policy.state_dict().items()}
    meta = {"environment": {"name": "l2f", "observation": "Position.OrientationRotationMatrix.LinearVelocity."}}
    meta["environment"]["observation"] += "AngularVelocityDelayed(0).ActionHistory(1)"
    with replacing(path) as temporary:
        with h5py.File(temporary, "w") as file:
            _add(file, "actor", type="sequential", checkpoint_name=name, meta=json.dumps(meta))
            for i, kind in enumerate(LAYERS):
                kind, *activation = kind.split()
                attributes = {"type": kind} | ({"activation_function": activation[0]} if activation else {})
                _add(file, f"actor/layers/{i}", None, **attributes)
            for key, place in ENTRIES.items():
                is_matrix = "gru" not in key and key != "initial_hidden"
                _add_array(
                    file, place, weights[key][None] if is_matrix and weights[key].ndim == 1 else weights[key], is_matrix
                )
            for kind, tensor in zip(("input", "output"), example_of(policy), strict=True):
                _add_array(file, f"example/{kind}", tensor)
        read_rl_tools(temporary)


def write_rl_tools_teacher(expert: ExpertNetwork, path: PathLike, name: str = "teacher") -> float:
    """Write a teacher as rl-tools does, with an example, complete or not at all, and read it back.

    It must be squashed by tanh to [-1, 1], without a normaliser, as those of `TeacherPopulation.expert` are. The file
    holds the name. Returns the largest difference between the actions of the file and of `expert` at its example.
    """
    import h5py

    if Path(path).suffix.lower() not in (".h5", ".hdf5"):
        raise UserError(f"a teacher of rl-tools ends in .h5, got {path}: choose another name")
    bounds = [bound for bound in (expert.low, expert.high) if bound is not None]
    if expert.squash != "tanh" or expert.normalizer is not None or any((bound.abs() != 1).any() for bound in bounds):
        way = "rl-tools squashes the actions of a teacher to [-1, 1] by tanh and has no observation normaliser"
        raise UserError(f"{way}: this teacher is another ({expert.description})")
    if expert.activation not in ACTIVATIONS or len(expert.layers) < 2:
        possible = f"rl-tools has {', '.join(ACTIVATIONS)} between two layers or more"
        raise UserError(f"{possible}, got {expert.activation} between {len(expert.layers)}")
    expert = expert.to("cpu", torch.float32)
    generator = torch.Generator().manual_seed(0)
    observation = torch.randn(1, _NUM_EXAMPLES, expert.observation_dim, generator=generator)
    meta = {"environment": {"name": "l2f"}, "hidden": list(expert.hidden)}
    names = _layer_names(len(expert.layers))
    last, log_std = expert.layers[-1], expert.log_std_layer
    if log_std is None:
        known = torch.full_like(last.bias, _UNKNOWN_LOG_STD) if expert.log_std is None else expert.log_std
        log_std = Layer(torch.zeros_like(last.weight), known)
    both = Layer(*(torch.cat(pair) for pair in zip(last, log_std, strict=True)))
    with replacing(path) as temporary:
        with h5py.File(temporary, "w") as file:
            _add(file, "actor", type="sequential", checkpoint_name=name, meta=json.dumps(meta))
            _add(file, _MLP, type="mlp", num_layers=len(names))
            for layer_name, layer in zip(names, (*expert.layers[:-1], both), strict=True):
                function = "IDENTITY" if layer_name == names[-1] else ACTIVATIONS[expert.activation]
                _add(file, f"{_MLP}/{layer_name}", type="dense", activation_function=function)
                for kind, matrix in (("weights", layer.weight), ("biases", layer.bias[None])):
                    _add_array(file, f"{_MLP}/{layer_name}/{kind}/parameters", matrix, is_matrix=True)
            _add(file, "actor/layers/1", type="sample_and_squash")
            for kind, tensor in (("input", observation), ("output", expert(observation))):
                _add_array(file, f"example/{kind}", tensor)
        found = read_rl_tools_teacher(temporary)
    return float((found(observation) - expert(observation)).abs().max())


def _add_array(file: h5py.File, name: str, tensor: Tensor, is_matrix: bool = False) -> None:
    """Add the numbers of a tensor, described as rl-tools does."""
    if is_matrix:
        _add(file, name, tensor, type="matrix", rows=tensor.shape[0], cols=tensor.shape[1])
    else:
        sizes = {f"dim_{i}": size for i, size in enumerate(tensor.shape)}
        _add(file, name, tensor, type="tensor", num_dims=tensor.ndim, **sizes)


def _add(file: h5py.File, name: str, tensor: Tensor | None = None, **attributes: object) -> None:
    """Add a group, or the numbers of a tensor, with attributes."""
    if tensor is None:
        file.create_group(name)
    else:
        file[name] = np.ascontiguousarray(tensor.numpy())
    file[name].attrs.update({key: str(value) for key, value in attributes.items()})
