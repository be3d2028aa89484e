"""The formats that a policy can be exported to, by name."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from types import MappingProxyType

from raptor.core.atomic import PathLike
from raptor.core.errors import UserError
from raptor.export.onnx import export_onnx
from raptor.formats.checkpoint import StudentPolicy
from raptor.formats.onnx_policy import OnnxPolicy

FORMATS: Mapping[str, Callable[[StudentPolicy | OnnxPolicy, PathLike], float]] = MappingProxyType({"onnx": export_onnx})
"""Writes a policy to a file, verifies it, and returns the largest error."""


def export_policy(policy: StudentPolicy | OnnxPolicy, path: PathLike, format: str = "onnx") -> float:
    """Write a policy to `path` and verify the file against the original.

    Args:
        policy: as `load_policy` gives it.
        path: the file to write.
        format: one of `FORMATS`.

    Returns:
        The largest difference between the original and the file.

    Raises:
        UserError: an unknown format, or a policy that cannot be exported.
        ExportError: the file differs from the original; nothing is left of it.
    """
    if format not in FORMATS:
        matches = difflib.get_close_matches(format, FORMATS, n=1)
        suggestion = f", did you mean {matches[0]!r}?" if matches else ""
        raise UserError(f"unknown export format {format!r}{suggestion}: give one of {', '.join(FORMATS)}")
    return FORMATS[format](policy, path)
