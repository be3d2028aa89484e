"""Policies by name, run folder or file; those in ONNX files, which onnxruntime runs."""

from __future__ import annotations

import difflib
import importlib.util
import json
import os
import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from raptor.core.atomic import PathLike, checked_path
from raptor.core.devices import find_device
from raptor.core.errors import UserError, first_line
from raptor.core.threads import num_threads
from raptor.core.yaml_files import to_plain
from raptor.formats.checkpoint import LARGEST, LARGEST_WIDTH, StudentPolicy, checked_layout, is_width, read_policy
from raptor.formats.px4 import read_policy_tar
from raptor.formats.rl_tools import read_rl_tools
from raptor.nn.policy import RaptorPolicy, Stepwise

PUBLISHED = "published"
POLICIES = Path(__file__).parent / "packaged"
PACKAGED = ("default", "large", "agile")
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
_SOURCES = f"{', '.join(POLICY_NAMES)}, the folder of a run, or a .pt, .h5, .tar or .onnx file"
# Ports of a recurrent policy; a memoryless one has the first of each. Metadata, as JSON.
INPUTS: tuple[str, ...] = ("observation", "hidden")
OUTPUTS: tuple[str, ...] = ("action", "next_hidden")
INITIAL_HIDDEN_STATE, CARD, LAYOUT = "initial_hidden_state", "card", "observation"


def load_policy(source: PathLike, device: torch.device | str = "cpu") -> StudentPolicy | OnnxPolicy:
    """Load a policy, what is known about it in its `card`; nothing in a file is executed.

    The source is "published", the policy that was published with RAPTOR, from the package foundation-policy; "default",
    "large" or "agile", which come with this package; the folder of a run, which gives its best checkpoint, or its
    last; or a file of `save_policy` (.pt), an rl-tools checkpoint (.h5), PX4's policy.tar, or an exported policy
    (.onnx). A name in text comes before a file of that name: write ./default, or give a Path, for a folder of that
    name. The weights are on the device; an ONNX file runs on the CPU and answers on the device of the observation. A
    `UserError` about a source that does not exist or cannot be used names the file, the field and the value.
    """
    find_device(device)
    if isinstance(source, str) and source == PUBLISHED:
        return _read_published().to(device)
    file = _find(source)
    if file.suffix.lower() == ".onnx":
        return OnnxPolicy(file, device)
    read = {".pt": read_policy, ".tar": read_policy_tar}.get(file.suffix.lower(), read_rl_tools)
    return read(file).to(device)


def policy_card(source: PathLike) -> dict[str, Any]:
    """Card of a policy: see `load_policy` for the sources, `CARD_FIELDS` for the fields of a card.

    It names the components of the observation where they are not the default ones.
    """
    policy = load_policy(source)
    return {**policy.card, **({"observes": dict(policy.layout)} if policy.layout else {})}


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


def _find(source: PathLike) -> Path:
    """The file behind a name or a path; the best or the last checkpoint of a run folder."""
    if isinstance(source, str) and source in PACKAGED:
        if not (file := POLICIES / f"{source}.pt").is_file():
            remedy = "install raptor-python again, or train a policy with raptor train-direct and give its folder"
            raise UserError(f"the policy {source!r} is not in this installation ({file} is missing): {remedy}")
        return file
    path = checked_path(source, "the policy")
    if path.is_dir():
        if best := [path / name for name in _BEST if (path / name).exists()]:
            return best[0]
        files = [file for pattern in _NUMBERED for file in path.glob(pattern)]
        numbers = {file: re.fullmatch(r"[a-z_]+_([0-9]+)\.pt", file.name) for file in files}
        numbered = {int(match[1]): file for file, match in numbers.items() if match}
        if not numbered:
            names = " nor ".join((*_BEST, *_NUMBERED))
            raise UserError(f"{path} holds neither {names}: give the folder of a run that has written a checkpoint")
        return numbered[max(numbered)]
    if not path.exists():
        beside = [str(path.with_name(file.name)) for file in path.parent.iterdir()] if path.parent.is_dir() else []
        near = difflib.get_close_matches(os.fspath(source), [*POLICY_NAMES, *beside], n=1, cutoff=0.7)
        suggestion = f", did you mean {near[0]!r}?" if near else ""
        raise UserError(f"there is no policy {os.fspath(source)!r}{suggestion}: give {_SOURCES}")
    if path.suffix.lower() not in (".pt", ".h5", ".hdf5", ".tar", ".onnx"):
        raise UserError(f"{path} is of an unknown kind {path.suffix!r}: give {_SOURCES}")
    return path


class OnnxPolicy(Stepwise):
    """A policy in an ONNX file, run by onnxruntime on the CPU; has the interface of `RaptorPolicy`.

    The file has the inputs observation (batch, D) and hidden (batch, H) and the outputs action (batch, A) and
    next_hidden (batch, H), with a dynamic batch; that of a memoryless policy has neither hidden nor next_hidden, and
    `hidden_dim` is then 0. Its metadata may hold the initial hidden state, which is zero otherwise, a card, and what is
    observed, all as JSON. Results are on the device of the observations, `initial_hidden_state` on `device`.
    """

    def __init__(self, path: PathLike, device: torch.device | str = "cpu") -> None:
        try:
            import onnxruntime
        except ImportError as error:
            raise UserError(f"running {path} needs onnxruntime, which is missing: pip install onnxruntime") from error
        self._path, options = path, onnxruntime.SessionOptions()
        options.log_severity_level = 4  # what goes wrong is raised
        options.intra_op_num_threads = num_threads()
        try:
            self._session = onnxruntime.InferenceSession(os.fspath(path), options, providers=["CPUExecutionProvider"])
            metadata = self._session.get_modelmeta().custom_metadata_map
        except Exception as error:  # onnxruntime's exceptions have no common base of their own
            raise UserError(f"{path} is truncated, damaged or no ONNX file: {first_line(error)}") from error
        number = 1 if len(self._session.get_inputs()) == 1 else 2
        self._inputs, self._outputs = INPUTS[:number], OUTPUTS[:number]
        width = self._widths(path)
        self.observation_dim, self.action_dim = width["observation"], width["action"]
        self.hidden_dim = self.memory_dim = width.get("hidden", 0)
        if self.hidden_dim != width.get("next_hidden", 0):
            raise UserError(f"hidden and next_hidden must be of one size, got {width} ({path})")
        self.card: dict[str, Any] = _json(metadata.get(CARD, "{}"), dict, CARD, path)
        self.layout = checked_layout(_json(metadata.get(LAYOUT, "{}"), dict, LAYOUT, path), path)
        numbers = _json(metadata.get(INITIAL_HIDDEN_STATE, "[]"), list, INITIAL_HIDDEN_STATE, path)
        try:
            hidden = torch.tensor(numbers or [0.0] * self.hidden_dim, dtype=torch.float32)
        except (TypeError, ValueError, RuntimeError):
            hidden = torch.full((), torch.nan)
        if hidden.shape != (self.hidden_dim,) or not hidden.isfinite().all():
            raise UserError(f"{INITIAL_HIDDEN_STATE} must be {self.hidden_dim} finite numbers, got {numbers} ({path})")
        self.initial_hidden = hidden.to(device)
        seen = torch.stack([torch.zeros(self.observation_dim), torch.ones(self.observation_dim)])
        try:
            answer = torch.cat(self(seen, self.initial_hidden_state(2).cpu()), -1)
        except Exception as error:
            raise UserError(f"{path} cannot be run: {first_line(error)}") from error
        if not (answer.abs() <= LARGEST).all():
            raise UserError(f"{path} gives an action that is not finite, or above {LARGEST:g}: its weights are damaged")

    __call__ = Stepwise.forward

    @property
    def summary(self) -> str:
        """The file that holds the network."""
        return f"ONNX file {self._path}"

    def step_rows(self, observation: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """See `raptor.nn.policy.Stepwise.step_rows`; no gradient passes."""
        arrays = [tensor.detach().to("cpu", torch.float32).contiguous().numpy() for tensor in (observation, hidden)]
        outputs = self._session.run(self._outputs, dict(zip(self._inputs, arrays, strict=False)))
        action, following = (*outputs, arrays[1])[:2]  # without a memory, the hidden state is empty
        return torch.from_numpy(action).to(observation), torch.from_numpy(following).to(observation)

    def _widths(self, path: PathLike) -> dict[str, int]:
        ports = {port.name: port for port in (*self._session.get_inputs(), *self._session.get_outputs())}
        if set(ports) != {*self._inputs, *self._outputs}:
            known = f"{', '.join((*INPUTS, *OUTPUTS))}, or {INPUTS[0]} and {OUTPUTS[0]} alone"
            found = f"it connects {', '.join(ports)}, a policy's file connects {known}"
            raise UserError(f"{path} holds another architecture: {found}")
        for name, port in ports.items():
            batch, *sizes = port.shape or [None]
            if port.type != "tensor(float)" or isinstance(batch, int) or len(sizes) != 1 or not is_width(*sizes):
                wanted = f"tensor(float) of shape (any batch, at most {LARGEST_WIDTH})"
                got = f"{port.type} of shape {port.shape} ({path})"
                raise UserError(f"{name} must be {wanted}, got {got}: export it again with a dynamic batch")
        return {name: port.shape[1] for name, port in ports.items()}


def _json(text: str, kind: type, name: str, path: PathLike) -> Any:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, kind):
        raise UserError(f"the metadata {name} must be a JSON {kind.__name__}, got {text[:60]!r} ({path})")
    return to_plain(value, name, from_file=path)
