"""Mask R-CNN: a fixed number of detections with masks, one graph of fixed shapes."""

from __future__ import annotations

from seg_export.families.maskrcnn.family import MASKRCNN

__all__ = ["MASKRCNN"]
