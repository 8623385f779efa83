"""edgeseg's thin client: run segmentation models in process or on a Triton server, without torch."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from seg_runtime import telemetry

if TYPE_CHECKING:
    from seg_runtime.connection import connect
    from seg_runtime.errors import EdgesegError
    from seg_runtime.instances import InstanceResult, InstanceSegmenter
    from seg_runtime.sam import SamAutomaticMaskGenerator, SamPredictor
    from seg_runtime.sam2 import Sam2ImagePredictor, Sam2VideoPredictor
    from seg_runtime.semantic import SemanticResult, SemanticSegmenter
    from seg_runtime.session import Handle, Session
    from seg_runtime.spec import ModelSpec, TensorSpec

__all__ = [
    "EdgesegError",
    "Handle",
    "InstanceResult",
    "InstanceSegmenter",
    "ModelSpec",
    "Sam2ImagePredictor",
    "Sam2VideoPredictor",
    "SamAutomaticMaskGenerator",
    "SamPredictor",
    "SemanticResult",
    "SemanticSegmenter",
    "Session",
    "TensorSpec",
    "connect",
]

_MODULES = {
    "EdgesegError": "errors",
    "Handle": "session",
    "InstanceResult": "instances",
    "InstanceSegmenter": "instances",
    "ModelSpec": "spec",
    "Sam2ImagePredictor": "sam2",
    "Sam2VideoPredictor": "sam2",
    "SamAutomaticMaskGenerator": "sam",
    "SamPredictor": "sam",
    "SemanticResult": "semantic",
    "SemanticSegmenter": "semantic",
    "Session": "session",
    "TensorSpec": "spec",
    "connect": "connection",
}

telemetry.switch_off()


def __getattr__(name: str) -> Any:
    """Import on first use, so that `import seg_runtime` and `--help` stay fast."""
    if name not in _MODULES:
        raise AttributeError(f"module 'seg_runtime' has no attribute '{name}'")
    return getattr(importlib.import_module(f"seg_runtime.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
