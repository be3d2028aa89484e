"""The formats that a policy can be written in; each file is run beside its original before it gets its name."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from raptor.core.atomic import PathLike, replacing
from raptor.core.errors import UserError
from raptor.export.c_source import export_c
from raptor.export.onnx import export_onnx
from raptor.export.verification import AnyPolicy, Verified, original_of, verify
from raptor.formats.px4 import read_policy_tar, refuse_other_widths, write_policy_tar
from raptor.formats.rl_tools import write_rl_tools
from raptor.nn.policy import RaptorPolicy


class Format(NamedTuple):
    """A format of files."""

    suffix: str  # of its files; empty: a folder
    meaning: str
    export: Callable[[AnyPolicy, PathLike], Verified]  # policy, path


def export_rl_tools(policy: AnyPolicy, path: PathLike) -> Verified:
    """Write a recurrent policy as a checkpoint of rl-tools; `foundation_policy` runs it beside the original."""
    original = original_of(policy, path, ".h5", "a checkpoint of rl-tools")
    if not isinstance(original, RaptorPolicy):
        raise UserError("a checkpoint of rl-tools holds a recurrent policy, this one has no memory: export it as onnx")
    with replacing(path) as temporary:
        write_rl_tools(original, temporary, Path(path).stem)
        return Verified(verify(original, _FoundationPolicy(temporary), path), "foundation-policy")


def export_px4(policy: AnyPolicy, path: PathLike) -> Verified:
    """Write a policy as `policy.tar` for PX4's `mc_raptor`; what a reader that refuses as PX4 does makes of it runs."""
    original = original_of(policy, path, ".tar", "an archive for PX4")
    refuse_other_widths(original, "PX4")
    assert isinstance(original, RaptorPolicy)
    with replacing(path) as temporary:
        write_policy_tar(original, temporary, Path(path).stem)
        return Verified(verify(original, read_policy_tar(temporary), path), "a reader that refuses as PX4 does")


def _export_onnx(policy: AnyPolicy, path: PathLike) -> Verified:
    return Verified(export_onnx(policy, path), "onnxruntime")


FORMATS: dict[str, Format] = {
    "onnx": Format(".onnx", "a step of the policy for onnxruntime, any width and batch", _export_onnx),
    "rl-tools": Format(".h5", "a checkpoint for rl-tools and foundation-policy, recurrent, any width", export_rl_tools),
    "px4": Format(".tar", "policy.tar for PX4's mc_raptor, which is compiled for 22-16-4", export_px4),
    "c": Format("", "a folder of C99 sources, any width: policy, executor, observation, simulator", export_c),
}


def export_policy(policy: AnyPolicy, path: PathLike, format: str = "onnx") -> Verified:
    """Write a policy to `path` in one of `FORMATS`, and run what was written beside it."""
    if format not in FORMATS:
        matches = difflib.get_close_matches(format, FORMATS, n=1)
        suggestion = f", did you mean {matches[0]!r}?" if matches else ""
        raise UserError(f"unknown export format {format!r}{suggestion}: give one of {', '.join(FORMATS)}")
    return FORMATS[format].export(policy, path)


class _FoundationPolicy:
    """A checkpoint of rl-tools as the package foundation-policy runs it."""

    def __init__(self, path: PathLike) -> None:
        import foundation_policy

        self._model: Any = foundation_policy.load(path)
        self._gru = self._model.layers[1]

    def initial_hidden_state(self, *shape: int) -> Tensor:
        return torch.from_numpy(self._gru.initial_hidden_state).expand(*shape, -1)

    def __call__(self, observation: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
        self._gru.state = hidden.numpy()
        action = torch.from_numpy(self._model.evaluate_step(observation.numpy()))
        return action, torch.from_numpy(self._gru.state)
