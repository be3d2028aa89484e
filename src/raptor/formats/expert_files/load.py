"""An expert network from whatever file it is in."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from raptor.core.atomic import PathLike
from raptor.core.errors import UserError
from raptor.formats.checkpoint import FORMAT, MLP, assemble
from raptor.formats.expert_files.archives import KNOWN, check_archive, read_tensors
from raptor.formats.expert_files.rsl_rl import holds_rsl_rl, read_rsl_rl
from raptor.formats.expert_files.stable_baselines3 import POLICY, SETTINGS, read_stable_baselines3
from raptor.nn.activations import activation_name
from raptor.nn.expert import ExpertNetwork
from raptor.nn.mlp_policy import MLPPolicy
from raptor.nn.stacked_mlp import Layer


def load_expert(path: PathLike, activation: str | None = None) -> ExpertNetwork:
    """Read one expert network, on the CPU, without executing code from the file.

    Args:
        path: a checkpoint of rsl_rl (.pt), an archive of stable-baselines3 (.zip), a teacher of rl-tools (.h5), a
            memoryless policy of this package (.pt), or a folder of teachers, with the number of one where it holds
            several: `teachers:3`.
        activation: between the layers, such as elu; by default what the file says, or a file beside it
            (`params/agent.yaml` of Isaac Lab), or else the library's default. Files of this package do say it.

    Raises:
        UserError: there is no such file, it is damaged, of another kind or architecture, or holds pickled code.
    """
    if activation is not None:
        activation = activation_name(activation, "activation")
    folder, index = folder_of(path)
    if folder is not None:
        return _checked(_of_folder(folder, index), activation, path)
    file = Path(path).expanduser()
    try:
        file.open("rb").close()
    except OSError as error:
        raise UserError(f"cannot read the teacher {os.fspath(path)!r}: {error.strerror or error}; {KNOWN}") from error
    if file.suffix.lower() in (".h5", ".hdf5"):
        from raptor.formats.rl_tools_teacher import read_rl_tools_teacher

        return read_rl_tools_teacher(file, activation)
    names = check_archive(file, file)
    if {SETTINGS, POLICY} <= set(names):
        return read_stable_baselines3(file, activation)
    document = read_tensors(file, file)
    if holds_rsl_rl(document):
        return read_rsl_rl(document, file, activation)
    if document.get("format") == FORMAT:
        return _checked(_of_policy(document, file), activation, path)
    raise UserError(f"{file} holds {', '.join(map(repr, list(document)[:5])) or 'nothing'}, but no actor: {KNOWN}")


def folder_of(path: PathLike) -> tuple[Path | None, int | None]:
    """The folder of teachers behind a path, and the number behind its colon; None where there is none."""
    whole = Path(path).expanduser()
    if whole.is_dir():
        return whole, None
    name, colon, number = os.fspath(path).rpartition(":")
    if colon and number.isdecimal() and Path(name).expanduser().is_dir():
        return Path(name).expanduser(), int(number)
    return None, None


def _checked(expert: ExpertNetwork, activation: str | None, path: PathLike) -> ExpertNetwork:
    """A network of this package, if nobody takes it for another."""
    if activation not in (None, expert.activation):
        raise UserError(
            f"{os.fspath(path)} has {expert.activation} between its layers, got the activation {activation}: name one "
            "for files of other libraries only"
        )
    return expert


def _of_folder(folder: Path, index: int | None) -> ExpertNetwork:
    from raptor.formats.teacher_files import DOCUMENT, load_teachers

    if not (folder / DOCUMENT).exists():
        raise UserError(f"{folder} is a folder without {DOCUMENT}: {KNOWN}")
    teachers = load_teachers(folder)
    if index is None and len(teachers) > 1:
        raise UserError(f"{folder} holds {len(teachers)} teachers: give the number of one, such as {folder}:0")
    if (index or 0) >= len(teachers):
        raise UserError(f"{folder} holds {len(teachers)} teachers, from number 0 on, got {index}")
    return teachers.expert(index or 0, f"teacher of {folder}")


def _of_policy(document: Mapping[str, Any], path: Path) -> ExpertNetwork:
    """A memoryless policy of this package."""
    architecture = document.get("architecture")
    if not isinstance(architecture, Mapping) or architecture.get("kind") != MLP:
        raise UserError(f"{path} holds a policy with memory: a teacher must be a multi-layer perceptron without")
    weights = document.get("weights")
    policy = assemble(architecture, weights if isinstance(weights, Mapping) else {}, path)
    assert isinstance(policy, MLPPolicy)
    tensors = [tensor.detach() for tensor in policy.tensors()]
    layers = tuple(Layer(weight, bias) for weight, bias in zip(tensors[::2], tensors[1::2], strict=True))
    return ExpertNetwork(layers, "relu", source="policy of this package")
