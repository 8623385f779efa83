"""edgeseg's exporter: checkpoint to verified ONNX graph to published version of a model repository."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import seg_runtime  # noqa: F401 - before any library that it keeps from sending telemetry

if TYPE_CHECKING:
    from seg_export.families import export_onnx

__all__ = ["export_onnx"]


def __getattr__(name: str) -> Any:
    """Import what Python users need when they use it. Raises AttributeError for any other name."""
    if name not in __all__:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    from seg_export import families

    return getattr(families, name)
