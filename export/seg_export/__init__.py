"""edgeseg's exporter: checkpoint to verified ONNX graph to published version of a model repository."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

import seg_runtime  # noqa: F401 - before any library that it keeps from sending telemetry

if TYPE_CHECKING:
    from seg_export.checkpoints.types import Preprocessing
    from seg_export.families import export_onnx
    from seg_export.families.export_module import export_module

__all__ = ["Preprocessing", "export_module", "export_onnx"]

_MODULES = {
    "Preprocessing": "checkpoints.types",
    "export_module": "families.export_module",
    "export_onnx": "families",
}


def __getattr__(name: str) -> Any:
    """Import what Python users need when they use it. Raises AttributeError for any other name."""
    if name not in _MODULES:
        raise AttributeError(f"module 'seg_export' has no attribute '{name}'")
    return getattr(importlib.import_module(f"seg_export.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
