"""Expert networks from the files of other libraries, and from our own; read without executing code.

The settings in an archive of stable-baselines3 are JSON with pickled objects in it. These are never unpickled: what is
needed of them stands beside them as text. A VecNormalize is a pickle, read without executing anything.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from raptor.core.atomic import PathLike, checked_path
from raptor.core.errors import UserError, first_line, printable
from raptor.core.yaml_files import read_yaml
from raptor.formats import checkpoint
from raptor.formats.checkpoint import connected, halves, layer_of, layers_of, plain_names, weight_of
from raptor.formats.rl_tools import read_rl_tools_teacher
from raptor.formats.teacher_files import DOCUMENT, load_teachers
from raptor.formats.torch_files import Advice, Record, array_of, load_torch, opened_archive, read_document, read_pickle
from raptor.nn.activations import activation_name
from raptor.nn.expert import ExpertNetwork, Normalizer
from raptor.nn.policy import MLPPolicy
from raptor.nn.stacked_mlp import Layer

KNOWN = (
    "give a checkpoint of rsl_rl (.pt), an archive of stable-baselines3 (.zip; its VecNormalize is given as its "
    "normalizer), a teacher of rl-tools (.h5), a memoryless policy of this package (.pt), or a folder of teachers with "
    "the number of one (teachers:3)"
)
ADVICE = Advice(
    KNOWN,
    "open it where it was made and you trust it, and write its weights alone: "
    'torch.save({"model_state_dict": policy.state_dict()}, "weights.pt")',
)
# Of rsl_rl: its activation function by default, and what it adds to the standard deviation of an observation.
ACTIVATION, EPSILON = "elu", 1e-2
MODEL, ACTOR, STUDENT = "model_state_dict", "actor_state_dict", "student_state_dict"
# Names of the exploration noise; whether it is logarithmic.
_STD = {"std": False, "distribution.std_param": False, "log_std": True, "distribution.log_std_param": True}
_OTHERS = {"rnn.": "recurrent", "memory_": "recurrent", "cnns.": "convolutional", "actor_cnns.": "convolutional"}
SETTINGS, POLICY = "data", "policy.pth"
_LARGEST = 2**26  # bytes of settings, or of a VecNormalize
_NUMBER = r"[-+]?(?:inf|[0-9]+\.?[0-9]*(?:e[-+]?[0-9]+)?)"


def load_expert(path: PathLike, activation: str | None = None, normalizer: PathLike | None = None) -> ExpertNetwork:
    """Read one expert network, on the CPU, without executing code from the file.

    The path is a checkpoint of rsl_rl (.pt), an archive of stable-baselines3 (.zip), a teacher of rl-tools (.h5), a
    memoryless policy of this package (.pt), or a folder of teachers, with the number of one where it holds several:
    `teachers:3`. The activation between the layers, such as elu, is by default what the file says, or a file beside it
    (`params/agent.yaml` of Isaac Lab), or else the library's default; files of this package do say it. The normalizer
    is the file of the VecNormalize (.pkl) that an archive of stable-baselines3 was trained with.
    """
    if activation is not None:
        activation = activation_name(activation, "activation")
    folder, index = folder_of(path)
    if folder is not None:
        if not (folder / DOCUMENT).exists():
            raise UserError(f"{folder} is a folder without {DOCUMENT}: {KNOWN}")
        teachers = load_teachers(folder)
        if index is None and len(teachers) > 1:
            raise UserError(f"{folder} holds {len(teachers)} teachers: give the number of one, such as {folder}:0")
        if (index or 0) >= len(teachers):
            raise UserError(f"{folder} holds {len(teachers)} teachers, from number 0 on, got {index}")
        expert, own = teachers.expert(index or 0, f"teacher of {folder}"), True
    else:
        expert, own = _of_file(checked_path(path, "the teacher"), activation, normalizer is None)
    if own and (normalizer is not None or activation not in (None, expert.activation)):
        got = f"the normalizer {normalizer}" if normalizer is not None else f"the activation {activation}"
        has = f"{os.fspath(path)} has {expert.activation} between its layers"
        raise UserError(f"{has}, got {got}: name one for files of other libraries only")
    return expert if normalizer is None else with_statistics(expert, normalizer)


def folder_of(path: PathLike) -> tuple[Path | None, int | None]:
    """The folder of teachers behind a path, and the number behind its colon; None where there is none."""
    whole = checked_path(path, "the teacher")
    if whole.is_dir():
        return whole, None
    name, colon, number = os.fspath(whole).rpartition(":")
    if colon and number.isdecimal() and Path(name).is_dir():
        return Path(name), int(number)
    return None, None


def _of_file(file: Path, activation: str | None, bare: bool) -> tuple[ExpertNetwork, bool]:
    """The network of a file, and whether it is one of this package; `bare`: no file of a normaliser was given."""
    if not file.exists():
        raise UserError(f"cannot read the teacher {os.fspath(file)!r}: No such file; {KNOWN}")
    if file.suffix.lower() in (".h5", ".hdf5"):
        return read_rl_tools_teacher(file, activation), False
    with opened_archive(file, file, ADVICE) as archive:
        members = set(archive.namelist())
        if {SETTINGS, "parameters"} <= members:
            kind = "an archive of stable-baselines 2, whose networks are of TensorFlow"
            raise UserError(f"{file} is {kind}: train the teacher again with stable-baselines3")
        if {SETTINGS, POLICY} <= members:
            beside = found_beside(file) if bare else []
            if beside:
                names = printable(" and ".join(map(str, beside[:3])))
                remedy = "if the teacher was trained with it, give it as its normalizer (--teacher-normalizer)"
                warnings.warn(f"{names} beside {file.name} is not applied: {remedy}", stacklevel=3)
            return _read_stable_baselines3(archive, file, activation), False
        document = read_document(archive, file, advice=ADVICE)
    if document.get("format") == checkpoint.FORMAT:
        architecture, weights = document.get("architecture"), document.get("weights")
        if not isinstance(architecture, dict) or architecture.get("kind") != checkpoint.MLP:
            raise UserError(f"{file} holds a policy with memory: a teacher must be a multi-layer perceptron without")
        policy = checkpoint.assemble(architecture, weights if isinstance(weights, dict) else {}, file)
        assert isinstance(policy, MLPPolicy)
        layers = policy.requires_grad_(False).tensors().layers
        return ExpertNetwork(layers, "relu", source="policy of this package"), True
    if not any(isinstance(document.get(name), Mapping) for name in (MODEL, ACTOR, STUDENT)):
        found = ", ".join(repr(key)[:40] for key in list(document)[:5])
        raise UserError(f"{file} holds {found or 'nothing'}, but no actor: {KNOWN}")
    return _read_rsl_rl(document, file, activation), False


def _read_rsl_rl(document: Mapping[str, Any], path: PathLike, activation: str | None) -> ExpertNetwork:
    """The actor of a checkpoint of rsl_rl 2 to 5; `params/agent.yaml` beside it says what it does not."""
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
    notes, found, clip = [], settings.get("activation"), agent.get("clip_actions")
    if activation is None and isinstance(found, str):
        activation = activation_name(found, f"params/agent.yaml beside {path}")
        notes.append("activation from params/agent.yaml")
    elif activation is None:
        activation = ACTIVATION
        notes.append(f"{ACTIVATION} is rsl_rl's default: the checkpoint does not name another")
    if isinstance(clip, (int, float)) and not isinstance(clip, bool) and clip < 1:
        notes.append(f"clip_actions {clip:g} is of its environment, and not applied here")
    normalizer = _normalizer(weights, "obs_normalizer." if new else "actor_obs_normalizer.", path)
    version = "5.x" if new and not any(name in weights for name in ("std", "log_std")) else "4.x" if new else "3.x"
    if normalizer is None and isinstance(document.get("obs_norm_state_dict"), Mapping):
        normalizer, version = _normalizer(plain_names(document["obs_norm_state_dict"], path), "", path), "2.x"
    source = f"rsl_rl {version} checkpoint"
    return ExpertNetwork(layers, activation, normalizer=normalizer, source=source, notes=tuple(notes), **noise)


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


def _read_stable_baselines3(archive: zipfile.ZipFile, path: PathLike, activation: str | None) -> ExpertNetwork:
    """The deterministic actor of an archive of SAC, TD3, DDPG, PPO or A2C, with the noise that it explores with.

    A policy that is no multi-layer perceptron from a box to a box is refused.
    """
    small = archive.getinfo(SETTINGS).file_size <= _LARGEST
    try:
        settings = json.loads(archive.read(SETTINGS)) if small else None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is damaged: its settings are no JSON: {error}") from error
    if not isinstance(settings, dict):
        raise UserError(f"{path} is no archive of stable-baselines3: its member {SETTINGS} holds no settings")
    weights = plain_names(load_torch(archive.read(POLICY), f"{POLICY} in {path}", advice=ADVICE), path)
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
    layers = [layer for net in hidden if f"{net}.0.weight" in weights for layer in layers_of(weights, net, path)]
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
