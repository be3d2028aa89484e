"""Expert networks from the files of other libraries, and from our own; read without executing code."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

from raptor.core.atomic import PathLike, checked_path
from raptor.core.errors import UserError, printable
from raptor.formats.checkpoint import FORMAT, MLP, assemble
from raptor.formats.rl_tools import read_rl_tools_teacher
from raptor.formats.rsl_rl import holds_rsl_rl, read_rsl_rl
from raptor.formats.stable_baselines3 import POLICY, SETTINGS, found_beside, read_stable_baselines3, with_statistics
from raptor.formats.teacher_files import DOCUMENT, load_teachers
from raptor.formats.torch_files import Advice, opened_archive, read_document
from raptor.nn.activations import activation_name
from raptor.nn.expert import ExpertNetwork
from raptor.nn.policy import MLPPolicy

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


def load_expert(path: PathLike, activation: str | None = None, normalizer: PathLike | None = None) -> ExpertNetwork:
    """Read one expert network, on the CPU, without executing code from the file.

    Args:
        path: a checkpoint of rsl_rl (.pt), an archive of stable-baselines3 (.zip), a teacher of rl-tools (.h5), a
            memoryless policy of this package (.pt), or a folder of teachers, with the number of one where it holds
            several: `teachers:3`.
        activation: between the layers, such as elu; by default what the file says, or a file beside it
            (`params/agent.yaml` of Isaac Lab), or else the library's default. Files of this package do say it.
        normalizer: file of the VecNormalize (.pkl) that an archive of stable-baselines3 was trained with.
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
            return read_stable_baselines3(archive, file, ADVICE, activation), False
        document = read_document(archive, file, advice=ADVICE)
    if document.get("format") == FORMAT:
        architecture, weights = document.get("architecture"), document.get("weights")
        if not isinstance(architecture, dict) or architecture.get("kind") != MLP:
            raise UserError(f"{file} holds a policy with memory: a teacher must be a multi-layer perceptron without")
        policy = assemble(architecture, weights if isinstance(weights, dict) else {}, file)
        assert isinstance(policy, MLPPolicy)
        layers = policy.requires_grad_(False).tensors().layers
        return ExpertNetwork(layers, "relu", source="policy of this package"), True
    if not holds_rsl_rl(document):
        found = ", ".join(repr(key)[:40] for key in list(document)[:5])
        raise UserError(f"{file} holds {found or 'nothing'}, but no actor: {KNOWN}")
    return read_rsl_rl(document, file, activation), False
