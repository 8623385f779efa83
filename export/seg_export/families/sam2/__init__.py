"""Segment Anything 2: images and videos, five graphs."""

from __future__ import annotations

from seg_export.families.sam2.family import SAM2

__all__ = ["SAM2"]
