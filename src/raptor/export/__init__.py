"""Exports: one policy to other formats, each verified against the original after writing."""

from raptor.export.onnx import FORMATS, ExportError, export_onnx, export_policy, verify_onnx

__all__ = ["FORMATS", "ExportError", "export_onnx", "export_policy", "verify_onnx"]
