"""A U-Net that was never trained, with the article's arguments unless others are given."""

from __future__ import annotations

from collections.abc import Sequence

from seg_export.checkpoints.random_weights import random_checkpoint
from seg_export.checkpoints.types import Checkpoint

__all__ = ["random_unet"]


def random_unet(
    *,
    in_channels: int = 1,
    num_classes: int = 1,
    bilinear: bool = True,
    features: Sequence[int] = (64, 128, 256, 512, 1024),
    seed: int = 0,
) -> Checkpoint:
    """`random_checkpoint` of a U-Net; the arguments are `UNet`'s."""
    arguments = {
        "in_channels": in_channels,
        "num_classes": num_classes,
        "bilinear": bilinear,
        "features": list(features),
    }
    return random_checkpoint("unet", arguments, seed)
