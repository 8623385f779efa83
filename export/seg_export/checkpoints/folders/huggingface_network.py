"""Networks of transformers that give one tensor, with what the library calls logits or scores in it."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from seg_export.checkpoints.folders.folder import Activation

__all__ = ["QUERIES", "Logits", "Queries", "one_output"]

QUERIES = {"Mask2FormerForUniversalSegmentation": (384, 384), "MaskFormerForInstanceSegmentation": None}
"""Networks that give a class and a mask per query, and the size that transformers brings masks to first."""


class Logits(nn.Module):
    """A network for semantic segmentation.

    Args:
        network: of transformers, (N, C, H, W) to an output with (N, classes, h, w) `logits`.
    """

    steps: tuple[str, ...] = ()

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network
        self.activation: Activation = "sigmoid" if network.config.num_labels == 1 else "softmax"

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) float32 to (N, classes, h, w)."""
        logits: torch.Tensor = self.network(pixel_values=pixels, return_dict=True).logits
        return logits


class Queries(nn.Module):
    """A network that gives a class and a mask per query, used for semantic segmentation.

    Scores are those of the library's `post_process_semantic_segmentation`. Where masks of a class overlap
    they exceed 1, and all of a pixel are divided by their sum, which leaves the likeliest class as it is.

    Args:
        network: of transformers, with (N, queries, classes + 1) `class_queries_logits` and (N, queries, h, w)
            `masks_queries_logits`.
        masks_hw: (height, width) that the library brings masks to first; None for their own.
    """

    steps: tuple[str, ...] = ("the scores of a pixel are divided by their sum where that is above 1",)
    activation: Activation = "none"

    def __init__(self, network: Any, masks_hw: tuple[int, int] | None) -> None:
        super().__init__()
        self.network = network
        self.masks_hw = masks_hw

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) float32 to (N, classes, H, W) from 0 to 1."""
        found = self.network(pixel_values=pixels, return_dict=True)
        masks: torch.Tensor = found.masks_queries_logits
        if self.masks_hw is not None:
            masks = _resized(masks, self.masks_hw)
        classes = found.class_queries_logits.softmax(dim=-1)[..., :-1]  # the last is of no object
        scores = torch.einsum("bqc,bqhw->bchw", classes, masks.sigmoid())
        scores = _resized(scores, (pixels.shape[2], pixels.shape[3]))
        return scores / scores.sum(dim=1, keepdim=True).clamp(min=1)


def one_output(architecture: str, network: Any) -> Logits | Queries:
    """A network of a class, giving one tensor."""
    if architecture in QUERIES:
        return Queries(network, QUERIES[architecture])
    return Logits(network)


def _resized(maps: torch.Tensor, size_hw: tuple[int, int]) -> torch.Tensor:
    return F.interpolate(maps, size_hw, mode="bilinear", align_corners=False)
