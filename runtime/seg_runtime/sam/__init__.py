"""Segment Anything on published models, with the names and signatures of the package segment_anything."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from seg_runtime.sam.mask_generator import SamAutomaticMaskGenerator
    from seg_runtime.sam.predictor import SamPredictor, best_first
    from seg_runtime.sam.transforms import ResizeLongestSide

__all__ = ["ResizeLongestSide", "SamAutomaticMaskGenerator", "SamPredictor", "best_first"]

_MODULES = {
    "ResizeLongestSide": "transforms",
    "SamAutomaticMaskGenerator": "mask_generator",
    "SamPredictor": "predictor",
    "best_first": "predictor",
}


def __getattr__(name: str) -> Any:
    """Import on first use, so that `import seg_runtime.sam` stays fast."""
    if name not in _MODULES:
        raise AttributeError(f"module 'seg_runtime.sam' has no attribute '{name}'")
    return getattr(importlib.import_module(f"seg_runtime.sam.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
