"""Policies by name, run folder or file."""

from __future__ import annotations

import difflib
import importlib.util
import os
import re
from pathlib import Path
from typing import Any

import torch

from raptor.core.atomic import PathLike, checked_path
from raptor.core.devices import find_device
from raptor.core.errors import UserError
from raptor.formats.checkpoint import StudentPolicy, read_policy
from raptor.formats.onnx_policy import OnnxPolicy
from raptor.formats.rl_tools import read_rl_tools
from raptor.nn.policy import RaptorPolicy

PUBLISHED = "published"
POLICIES = Path(__file__).parent / "packaged"
PACKAGED = ("default", "large", "robust")
POLICY_NAMES = (PUBLISHED, *PACKAGED)  # the policies that need no file
PUBLISHED_CARD = {
    "name": PUBLISHED,
    "what": "the foundation policy published with RAPTOR: dense 22-16 ReLU, GRU 16, dense 16-4, 2084 parameters",
    "training": "1000 teachers, one for each sampled quadrotor, distilled into one recurrent student in 1000 epochs; "
    "this is the student of epoch 959, the best by its training return",
    "command": "none of this package: it was trained with rl-tools and is distributed as foundation-policy on PyPI",
    "results": "mean return 621.6 over its 1000 training quadrotors, by its own log",
    "licence": "MIT, Jonas Eschmann, https://github.com/rl-tools/foundation-policy",
}

# The policies of a run: of train-direct, of post-train.
_BEST = ("checkpoints/best.pt", "best_student.pt")
_NUMBERED = ("checkpoints/update_*.pt", "checkpoint_epoch_*.pt")
_SOURCES = f"{', '.join(POLICY_NAMES)}, the folder of a run, or a .pt, .h5 or .onnx file"


def load_policy(source: PathLike, device: torch.device | str = "cpu") -> StudentPolicy | OnnxPolicy:
    """Load a policy, what is known about it in its `card`; nothing in a file is executed.

    Args:
        source: one of
            "published", the policy that was published with RAPTOR, from the package foundation-policy;
            "default", "large" or "robust", the policies that come with this package;
            the folder of a run, which gives its best checkpoint, or its last;
            a file of `save_policy` (.pt), an rl-tools checkpoint (.h5), or an exported policy (.onnx).
            A name in text comes before a file of that name: write ./default, or give a Path, for a folder of that name.
        device: of the weights. An ONNX file runs on the CPU and answers on the device of the observation.

    Raises:
        UserError: the source does not exist or cannot be used; names the file, the field and the value.
    """
    find_device(device)
    if isinstance(source, str) and source in POLICY_NAMES:
        return (_read_published() if source == PUBLISHED else _read_packaged(source)).to(device)
    file = _find(source)
    if file.suffix.lower() == ".onnx":
        return OnnxPolicy(file, device)
    return (read_policy(file) if file.suffix.lower() == ".pt" else read_rl_tools(file)).to(device)


def policy_card(source: PathLike) -> dict[str, Any]:
    """Card of a policy: see `load_policy` for the sources, `CARD_FIELDS` for the fields of a card."""
    return dict(load_policy(source).card)


def _read_published() -> RaptorPolicy:
    remedy = "pip install --force-reinstall foundation-policy"
    # Found without importing the package, which would load and replay its checkpoint in numpy.
    spec = importlib.util.find_spec("foundation_policy")
    if spec is None or not spec.submodule_search_locations:
        raise UserError(f"the published policy comes with foundation-policy, which is not installed: {remedy}")
    checkpoint = Path(spec.submodule_search_locations[0], "blob", "checkpoint.h5")
    if not checkpoint.is_file():
        raise UserError(f"the published policy is missing in foundation-policy ({checkpoint}): {remedy}")
    policy = read_rl_tools(checkpoint)
    policy.card |= PUBLISHED_CARD
    return policy


def _read_packaged(name: str) -> StudentPolicy:
    file = POLICIES / f"{name}.pt"
    if not file.is_file():
        remedy = "install raptor-python again, or train a policy with raptor train-direct and give its folder"
        raise UserError(f"the policy {name!r} is not in this installation ({file} is missing): {remedy}")
    return read_policy(file)


def _find(source: PathLike) -> Path:
    """The file behind a path, which may be a run folder."""
    path = checked_path(source, "the policy")
    if path.is_dir():
        path = _checkpoint_of(path)
    elif not path.exists():
        beside = [str(path.with_name(file.name)) for file in path.parent.iterdir()] if path.parent.is_dir() else []
        near = difflib.get_close_matches(os.fspath(source), [*POLICY_NAMES, *beside], n=1, cutoff=0.7)
        suggestion = f", did you mean {near[0]!r}?" if near else ""
        raise UserError(f"there is no policy {os.fspath(source)!r}{suggestion}: give {_SOURCES}")
    if path.suffix.lower() not in (".pt", ".h5", ".hdf5", ".onnx"):
        raise UserError(f"{path} is of an unknown kind {path.suffix!r}: give {_SOURCES}")
    return path


def _checkpoint_of(run: Path) -> Path:
    """The best checkpoint of a run, or its last."""
    if best := [run / name for name in _BEST if (run / name).exists()]:
        return best[0]
    files = [file for pattern in _NUMBERED for file in run.glob(pattern)]
    numbered = {int(match[1]): file for file in files if (match := re.fullmatch(r"[a-z_]+_([0-9]+)\.pt", file.name))}
    if not numbered:
        names = " nor ".join((*_BEST, *_NUMBERED))
        raise UserError(f"{run} holds neither {names}: give the folder of a run that has written a checkpoint")
    return numbered[max(numbered)]
