"""SAM2 on published models, images and video, with the names and signatures of the package sam2."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from seg_runtime.sam2.image_predictor import Sam2ImagePredictor
    from seg_runtime.sam2.state import InferenceState
    from seg_runtime.sam2.video_predictor import Sam2VideoPredictor

__all__ = ["InferenceState", "Sam2ImagePredictor", "Sam2VideoPredictor"]

_MODULES = {
    "InferenceState": "state",
    "Sam2ImagePredictor": "image_predictor",
    "Sam2VideoPredictor": "video_predictor",
}


def __getattr__(name: str) -> Any:
    """Import on first use, so that `import seg_runtime.sam2` stays fast."""
    if name not in _MODULES:
        raise AttributeError(f"module 'seg_runtime.sam2' has no attribute '{name}'")
    return getattr(importlib.import_module(f"seg_runtime.sam2.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
