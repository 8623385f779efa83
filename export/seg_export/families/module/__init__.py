"""A segmentation network of one's own: any PyTorch module from images to logits per class."""

from __future__ import annotations

from seg_export.families.module.family import MODULE

__all__ = ["MODULE"]
