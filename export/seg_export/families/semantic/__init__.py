"""U-Net, U-Net++ and TransUNet: images in, one probability map per class out."""

from __future__ import annotations

from seg_export.families.semantic.family import TRANSUNET, UNET, UNETPP

__all__ = ["TRANSUNET", "UNET", "UNETPP"]
