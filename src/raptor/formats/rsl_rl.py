"""Actors in checkpoints of rsl_rl, versions 2 to 5; what they do not say is in Isaac Lab's `params/agent.yaml`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from raptor.core.atomic import PathLike
from raptor.core.errors import UserError
from raptor.core.yaml_files import read_yaml
from raptor.formats.weights import halves, layers_of, plain_names, weight_of
from raptor.nn.activations import activation_name
from raptor.nn.expert import ExpertNetwork, Normalizer
from raptor.nn.stacked_mlp import Layer

DEFAULT = "elu"  # activation function
EPSILON = 1e-2  # added to the standard deviation of an observation by rsl_rl
MODEL, ACTOR, STUDENT = "model_state_dict", "actor_state_dict", "student_state_dict"
_STD = {"std": False, "distribution.std_param": False, "log_std": True, "distribution.log_std_param": True}
"""Names of the exploration noise; whether it is logarithmic."""

_OTHERS = {"rnn.": "recurrent", "memory_": "recurrent", "cnns.": "convolutional", "actor_cnns.": "convolutional"}


def holds_rsl_rl(document: Mapping[str, Any]) -> bool:
    """Whether a checkpoint is one of rsl_rl."""
    return any(isinstance(document.get(name), Mapping) for name in (MODEL, ACTOR, STUDENT))


def read_rsl_rl(document: Mapping[str, Any], path: PathLike, activation: str | None = None) -> ExpertNetwork:
    """The actor of a checkpoint; the activation function is by default that of agent.yaml, or else rsl_rl's default."""
    found = document.get(ACTOR, document.get(MODEL))
    weights = plain_names(found, path) if isinstance(found, Mapping) else {}
    if STUDENT in document or any(name.startswith(("student.", "teacher.")) for name in weights):
        raise UserError(f"{path} is of rsl_rl's distillation: give the checkpoint of the teacher, as PPO wrote it")
    new = ACTOR in document or any(name.startswith("mlp.") for name in weights)
    for beginning, what in _OTHERS.items():
        if any(name.startswith(beginning) for name in weights):
            raise UserError(f"{path} holds a {what} actor: a teacher must be a multi-layer perceptron without memory")
    beside = Path(path).parent / "params" / "agent.yaml"
    agent = read_yaml(beside, ignore_tags=True) if beside.is_file() else {}
    agent = agent if isinstance(agent, Mapping) else {}
    # The first group that is not empty: Isaac Lab writes the one that is out of use, too.
    groups = [agent.get(name) for name in (("actor", "policy") if new else ("policy", "actor"))]
    settings = next((group for group in groups if group and isinstance(group, Mapping)), {})
    layers, noise = _split_noise(layers_of(weights, "mlp" if new else "actor", path), weights, settings, path)
    name: Any = activation or settings.get("activation")
    notes, clip = list[str](), agent.get("clip_actions")
    if activation is None and isinstance(name, str):
        name, notes = activation_name(name, f"params/agent.yaml beside {path}"), ["activation from params/agent.yaml"]
    elif activation is None:
        name, notes = DEFAULT, [f"{DEFAULT} is rsl_rl's default: the checkpoint does not name another"]
    if isinstance(clip, (int, float)) and not isinstance(clip, bool) and clip < 1:
        notes.append(f"clip_actions {clip:g} is of its environment, and not applied here")
    normalizer = _normalizer(weights, "obs_normalizer." if new else "actor_obs_normalizer.", path)
    version = "5.x" if new and not any(name in weights for name in ("std", "log_std")) else "4.x" if new else "3.x"
    if normalizer is None and isinstance(document.get("obs_norm_state_dict"), Mapping):
        normalizer, version = _normalizer(plain_names(document["obs_norm_state_dict"], path), "", path), "2.x"
    source = f"rsl_rl {version} checkpoint"
    return ExpertNetwork(layers, name, normalizer=normalizer, source=source, notes=tuple(notes), **noise)


def _split_noise(
    layers: tuple[Layer, ...], weights: Mapping[str, Any], settings: Mapping[str, Any], path: PathLike
) -> tuple[tuple[Layer, ...], dict[str, Any]]:
    """The layers of the mean action, and the exploration noise that is known of it.

    A standard deviation that depends on the observation is the second half of what the last layer gives.
    """
    width = len(layers[-1].bias)
    for name, log in _STD.items():
        if name in weights:
            std = weight_of(weights, name, path)
            if std.shape != (width,):
                raise UserError(f"{name} must have shape ({width},), got {tuple(std.shape)} ({path})")
            return layers, {"log_std": std if log else std.clamp(min=1e-6).log()}
    found, kind, log = settings.get("distribution_cfg"), "", False
    if isinstance(found, Mapping):
        kind, log = str(found.get("class_name", "")), found.get("std_type") == "log"
    elif settings.get("state_dependent_std"):
        kind, log = "Heteroscedastic Gaussian", settings.get("noise_std_type") == "log"
    elif settings:
        return layers, {}
    if not kind:
        remedy = "put the run's params/agent.yaml beside it"
        raise UserError(f"{path} does not say what its actor's {width} outputs are: {remedy}")
    if "Heteroscedastic" not in kind or width % 2:
        raise UserError(f"{path} holds an actor of {width} outputs with a {kind}: only Gaussian ones are read")
    mean, deviation = halves(layers[-1])
    return (*layers[:-1], mean), {"log_std_layer": deviation} if log else {}


def _normalizer(weights: Mapping[str, Any], prefix: str, path: PathLike) -> Normalizer | None:
    named = {key.removeprefix(prefix): value for key, value in weights.items()}
    if "_mean" not in named:
        return None
    mean, std = (weight_of(named, name, path).flatten() for name in ("_mean", "_std"))
    if (std < 0).any():
        raise UserError(f"_std of the observation normaliser must not be negative ({path})")
    return Normalizer(mean, std + EPSILON)
