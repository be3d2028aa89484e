"""Actors in archives of stable-baselines3: SAC, TD3, DDPG, PPO and A2C, and the statistics of its VecNormalize.

The settings in an archive are JSON with pickled objects in it. These are never unpickled: what is needed of them stands
beside them as text. A VecNormalize is a pickle, read without executing anything.
"""

from __future__ import annotations

import dataclasses
import json
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from raptor.core.atomic import PathLike, checked_path
from raptor.core.errors import UserError, first_line
from raptor.formats.torch_files import Advice, Record, array_of, load_torch, read_pickle
from raptor.formats.weights import connected, layer_of, layers_of, plain_names, weight_of
from raptor.nn.activations import activation_name
from raptor.nn.expert import ExpertNetwork, Normalizer
from raptor.nn.stacked_mlp import Layer

SETTINGS, POLICY = "data", "policy.pth"
_LARGEST = 2**26  # bytes of settings, or of a VecNormalize
_NUMBER = r"[-+]?(?:inf|[0-9]+\.?[0-9]*(?:e[-+]?[0-9]+)?)"


def read_stable_baselines3(
    archive: zipfile.ZipFile, path: PathLike, advice: Advice, activation: str | None = None
) -> ExpertNetwork:
    """The deterministic actor of an open archive, with the noise that it explores with.

    The activation function is by default what the archive says, or else stable-baselines3's default. A policy that is
    no multi-layer perceptron from a box to a box is refused.
    """
    small = archive.getinfo(SETTINGS).file_size <= _LARGEST
    try:
        settings = json.loads(archive.read(SETTINGS)) if small else None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is damaged: its settings are no JSON: {error}") from error
    if not isinstance(settings, dict):
        raise UserError(f"{path} is no archive of stable-baselines3: its member {SETTINGS} holds no settings")
    weights = plain_names(load_torch(archive.read(POLICY), f"{POLICY} in {path}", advice=advice), path)
    for space in ("observation_space", "action_space"):
        group = settings.get(space)
        if "Box" not in (kind := str(group.get(":type:", "nothing")) if isinstance(group, Mapping) else "nothing"):
            raise UserError(f"{path} has the {space} {kind}: a teacher maps a box of numbers to another")
    for name in weights:
        if "lstm" in name:
            raise UserError(f"{path} holds a recurrent actor: a teacher is a multi-layer perceptron without memory")
        if "features_extractor" in name and not name.startswith("critic"):
            raise UserError(f"{path} holds the feature extractor {name}: a teacher must be a multi-layer perceptron")
    low, high = _bounds(settings["action_space"], path)
    sde, keywords = bool(settings.get("use_sde")), settings.get("policy_kwargs")
    keywords = keywords if isinstance(keywords, Mapping) else {}
    noise: dict[str, Any] = {}
    if "actor.mu.weight" in weights:
        if sde:
            raise UserError(f"{path} explores with use_sde=True, which bounds its actor in a way that is not read here")
        layers = _layers(weights, ["actor.latent_pi"], "actor.mu", path)
        noise["log_std_layer"] = layer_of(weights, "actor.log_std", path)
        kind, default, squash = "SAC", "relu", "tanh"
    elif "actor.mu.0.weight" in weights:
        layers = layers_of(weights, "actor.mu", path)
        kind, default, squash = "TD3", "relu", "tanh"
    elif "action_net.weight" in weights:
        # Before version 2, the first layers could be those of the critic, too.
        nets = ["mlp_extractor.shared_net", "mlp_extractor.policy_net"]
        layers = _layers(weights, nets, "action_net", path)
        if not sde:
            noise["log_std"] = weight_of(weights, "log_std", path, 1)
        kind, default, squash = "PPO", "tanh", "tanh" if keywords.get("squash_output") is True else "clip"
    else:
        raise UserError(f"{path} holds no actor of SAC, TD3, DDPG, PPO or A2C: give an archive of one of these")
    name = activation or _activation(keywords, default, path)
    low, high = (bound.to(layers[0].weight.dtype) for bound in (low, high))
    return ExpertNetwork(layers, name, squash, low, high, source=f"stable-baselines3 {kind} archive", **noise)


def _layers(weights: Mapping[str, Any], hidden: list[str], last: str, path: PathLike) -> tuple[Layer, ...]:
    there = [net for net in hidden if f"{net}.0.weight" in weights]
    layers = [layer for net in there for layer in layers_of(weights, net, path)]
    return connected([*layers, layer_of(weights, last, path)], path)


def _activation(keywords: Mapping[str, Any], default: str, path: PathLike) -> str:
    found, remedy = keywords.get("activation_fn"), "name it: activation=elu, --teacher-activation elu"
    if found is None and set(keywords) != {":type:", ":serialized:"}:
        return default
    match = re.fullmatch(r"<class '(?:[\w.]+\.)?(\w+)'>", str(found))
    if match is None:
        what = "an activation function that is named in a pickle only" if found is None else f"the {str(found)[:60]}"
        raise UserError(f"{path} has {what} between its layers, which is not known here: {remedy}")
    try:
        return activation_name(match[1], path)
    except UserError as error:
        raise UserError(f"{error}: {remedy}") from error


def _bounds(space: Mapping[str, Any], path: PathLike) -> list[Tensor]:
    """Lowest and highest action, which the archive also holds as numpy prints them."""
    shape = space.get("_shape", space.get("shape"))  # before version 1.4 without the underscore
    if not isinstance(shape, list) or len(shape) != 1 or not isinstance(shape[0], int):
        raise UserError(f"{path} has actions of shape {shape}: those of a teacher are one row of numbers")
    bounds = [torch.tensor([float(x) for x in re.findall(_NUMBER, str(space.get(end)))]) for end in ("low", "high")]
    if not len(bounds[0]) == len(bounds[1]) == shape[0]:
        problem = f"does not say between which bounds its {shape[0]} actions lie (action_space)"
        raise UserError(f"{path} {problem}: write it again with stable-baselines3 2 and gymnasium")
    if not (bounds[0] < bounds[1]).all():
        raise UserError(f"{path} has actions from {bounds[0].tolist()} to {bounds[1].tolist()}: it is damaged")
    return bounds


def with_statistics(expert: ExpertNetwork, file: PathLike) -> ExpertNetwork:
    """The network behind the normaliser that a VecNormalize has learnt, where it normalises observations."""
    path = checked_path(file, "the normaliser")
    if expert.normalizer is not None:
        raise UserError(f"the {expert.source} has a normaliser of its own: leave out {path}")
    normalizer = _read_vec_normalize(path)
    note = f"statistics of {path.name}" if normalizer else f"{path.name}, which leaves observations as they are"
    try:
        return dataclasses.replace(expert, normalizer=normalizer, notes=(*expert.notes, note))
    except UserError as error:
        raise UserError(f"{path} does not go with the teacher, which has {expert.architecture}: {error}") from error


def _read_vec_normalize(path: Path) -> Normalizer | None:
    try:
        with path.open("rb") as stream:
            found = read_pickle(stream.read(_LARGEST))
        if not isinstance(found, Record) or "norm_obs" not in (found.state or ()):
            raise UserError(f"{path} holds no VecNormalize of stable-baselines3: give what its save() wrote")
        if not found.state["norm_obs"]:
            return None
        if isinstance(found.state["obs_rms"], dict):
            raise UserError(f"{path} is of observations of several parts: a teacher sees one row of numbers")
        statistics, epsilon, clip = (found.state[name] for name in ("obs_rms", "epsilon", "clip_obs"))
        arrays = [array_of(statistics.state[name]) for name in ("mean", "var")]
        mean, variance = (torch.tensor(array, dtype=torch.float64) for array in arrays)
        divisor = (variance + float(epsilon)).sqrt()
        if not (mean.isfinite() & divisor.isfinite() & (divisor > 0)).all() or not float(clip) > 0:
            raise UserError(f"{path} holds statistics that are not finite, or not positive: it is damaged")
        return Normalizer(mean, divisor, float(clip))
    except UserError:
        raise
    except OSError as error:
        raise UserError(f"cannot read the normaliser {path}: {error.strerror or error}") from error
    except Exception as error:  # whatever a damaged pickle raises
        raise UserError(f"{path} is damaged, or no VecNormalize of stable-baselines3: {first_line(error)}") from error


def found_beside(archive: Path) -> list[Path]:
    """Files of a VecNormalize beside an archive, or in the folder of its name, where rl-zoo puts them."""
    folders = (archive.parent, archive.with_suffix(""))
    files = [file for folder in folders if folder.is_dir() for file in sorted(folder.glob("*.pkl"))]
    return [file for file in files if "vecnormalize" in file.name.lower().replace("_", "")]
