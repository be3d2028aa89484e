"""Actors in archives of stable-baselines3: SAC, TD3, DDPG, PPO and A2C.

The settings in an archive are JSON with pickled objects in it. These are never unpickled: what is needed of them stands
beside them as text.
"""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from raptor.core.atomic import PathLike
from raptor.core.errors import UserError
from raptor.formats.torch_files import Advice, load_torch
from raptor.formats.weights import connected, layer_of, layers_of, plain_names, weight_of
from raptor.nn.activations import activation_name
from raptor.nn.expert import ExpertNetwork

SETTINGS, POLICY = "data", "policy.pth"
_NETS = ("mlp_extractor.shared_net", "mlp_extractor.policy_net")  # the first one before version 2 only
_LARGEST_SETTINGS = 2**26  # bytes
_NUMBER = r"[-+]?(?:inf|[0-9]+\.?[0-9]*(?:e[-+]?[0-9]+)?)"


def read_stable_baselines3(
    archive: zipfile.ZipFile, path: PathLike, advice: Advice, activation: str | None = None
) -> ExpertNetwork:
    """The deterministic actor of an archive, with the noise that it explores with.

    Args:
        archive: opened to read.
        path: the archive, for error messages.
        advice: for the user, about one that is refused.
        activation: between the layers; by default what the archive says, or else stable-baselines3's default.

    Raises:
        UserError: the archive is damaged, or its policy is no multi-layer perceptron from a box to a box.
    """
    settings = _read_settings(archive, path)
    weights = plain_names(load_torch(archive.read(POLICY), f"{POLICY} in {path}", advice=advice), path)
    _refuse_other_kinds(settings, weights, path)
    sde = bool(settings.get("use_sde"))
    bounds = _bounds(settings, path)
    if any(name.startswith("actor.latent_pi.") or name == "actor.mu.weight" for name in weights):
        if sde:
            raise UserError(f"{path} explores with use_sde=True, which bounds its actor in a way that is not read here")
        hidden = layers_of(weights, "actor.latent_pi", path) if "actor.latent_pi.0.weight" in weights else ()
        layers = connected((*hidden, layer_of(weights, "actor.mu", path)), path)
        noise: dict[str, Any] = {"log_std_layer": layer_of(weights, "actor.log_std", path)}
        kind, default, squash = "SAC", "relu", "tanh"
    elif "actor.mu.0.weight" in weights:
        layers, noise = layers_of(weights, "actor.mu", path), {}
        kind, default, squash = "TD3", "relu", "tanh"
    elif "action_net.weight" in weights:
        nets = [net for net in _NETS if f"{net}.0.weight" in weights]
        hidden = tuple(layer for net in nets for layer in layers_of(weights, net, path))
        layers = connected((*hidden, layer_of(weights, "action_net", path)), path)
        noise = {} if sde else {"log_std": weight_of(weights, "log_std", path, 1)}
        kind, default = "PPO", "tanh"
        squash = "tanh" if _keyword(settings, "squash_output") is True else "clip"
    else:
        raise UserError(f"{path} holds no actor of SAC, TD3, DDPG, PPO or A2C: give an archive of one of these")
    name = _activation(activation, settings, default, path)
    low, high = (bound.to(layers[0].weight.dtype) for bound in bounds)
    return ExpertNetwork(layers, name, squash, low, high, source=f"stable-baselines3 {kind} archive", **noise)


def _read_settings(archive: zipfile.ZipFile, path: PathLike) -> Mapping[str, Any]:
    small = archive.getinfo(SETTINGS).file_size <= _LARGEST_SETTINGS
    try:
        settings = json.loads(archive.read(SETTINGS)) if small else None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is damaged: its settings are no JSON: {error}") from error
    if not isinstance(settings, dict):
        raise UserError(f"{path} is no archive of stable-baselines3: its member {SETTINGS} holds no settings")
    return settings


def _refuse_other_kinds(settings: Mapping[str, Any], weights: Mapping[str, Any], path: PathLike) -> None:
    for space in ("observation_space", "action_space"):
        kind = _text(settings.get(space), ":type:")
        if "Box" not in kind:
            raise UserError(f"{path} has the {space} {kind or 'nothing'}: a teacher maps a box of numbers to another")
    for name in weights:
        if "lstm" in name:
            raise UserError(f"{path} holds a recurrent actor: a teacher is a multi-layer perceptron without memory")
        if "features_extractor" in name and not name.startswith("critic"):
            raise UserError(f"{path} holds the feature extractor {name}: a teacher must be a multi-layer perceptron")


def _activation(given: str | None, settings: Mapping[str, Any], default: str, path: PathLike) -> str:
    if given is not None:
        return activation_name(given, "activation")
    found, remedy = _keyword(settings, "activation_fn"), "name it: activation=elu, --teacher-activation elu"
    if found is None:
        if _kept_to_itself(settings):
            raise UserError(f"{path} does not say which activation function it has: {remedy}")
        return default
    match = re.fullmatch(r"<class '(?:[\w.]+\.)?(\w+)'>", str(found))
    if match is None:
        raise UserError(f"{path} has the activation function {str(found)[:60]}, which is not known here: {remedy}")
    try:
        return activation_name(match[1], str(path))
    except UserError as error:
        raise UserError(f"{error}: {remedy}") from error


def _keyword(settings: Mapping[str, Any], name: str) -> Any:
    keywords = settings.get("policy_kwargs")
    return keywords.get(name) if isinstance(keywords, Mapping) else None


def _kept_to_itself(settings: Mapping[str, Any]) -> bool:
    """Whether the keywords of the policy are pickled, without their text beside them."""
    keywords = settings.get("policy_kwargs")
    return isinstance(keywords, Mapping) and set(keywords) == {":type:", ":serialized:"}


def _bounds(settings: Mapping[str, Any], path: PathLike) -> tuple[Tensor, Tensor]:
    """Lowest and highest action, which the archive also holds as numpy prints them."""
    space = settings["action_space"]
    shape = space.get("_shape", space.get("shape"))  # before version 1.4 without the underscore
    if not isinstance(shape, list) or len(shape) != 1 or not isinstance(shape[0], int):
        raise UserError(f"{path} has actions of shape {shape}: those of a teacher are one row of numbers")
    found = []
    for name in ("low", "high"):
        numbers = [float(number) for number in re.findall(_NUMBER, _text(space, name))]
        if len(numbers) != shape[0]:
            raise UserError(
                f"{path} does not say between which bounds its {shape[0]} actions lie (action_space.{name}): write it "
                "again with stable-baselines3 2 and gymnasium"
            )
        found.append(torch.tensor(numbers))
    if not (found[0] < found[1]).all():
        raise UserError(f"{path} has actions from {found[0].tolist()} to {found[1].tolist()}: it is damaged")
    return found[0], found[1]


def _text(group: Any, name: str) -> str:
    return str(group.get(name, "")) if isinstance(group, Mapping) else ""
