"""Exports: one policy to other formats, each verified against the original after writing."""

from raptor.export.formats import FORMATS, export_policy
from raptor.export.onnx import ExportError, export_onnx, verify_onnx

__all__ = ["FORMATS", "ExportError", "export_onnx", "export_policy", "verify_onnx"]
