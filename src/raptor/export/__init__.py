"""Exports: one policy to other formats, each verified against the original after writing."""

from raptor.export.onnx import export_onnx
from raptor.export.targets import FORMATS, Format, export_policy, export_px4, export_rl_tools
from raptor.export.verification import ExportError, verify

__all__ = [
    "FORMATS",
    "ExportError",
    "Format",
    "export_onnx",
    "export_policy",
    "export_px4",
    "export_rl_tools",
    "verify",
]
