"""Graphs that were exported elsewhere: wrapped with preprocessing and activation, verified, published."""

from __future__ import annotations

from seg_export.families.onnx.api import export_onnx
from seg_export.families.onnx.family import ONNX

__all__ = ["ONNX", "export_onnx"]
