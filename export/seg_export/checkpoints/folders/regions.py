"""Outputs that may overlap, of which libraries paint one label per pixel, as scores: the largest wins.

Libraries compare a sigmoid with a threshold. A mask takes the likeliest class instead, so what no output
claims needs a score too, that of the background, and an output that is painted over has to yield.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from seg_export.checkpoints.folders.intensity import applied_last

__all__ = ["paint_likeliest", "paint_over"]


def paint_over(network: nn.Module, labels: Sequence[int]) -> None:
    """Have a network give a score per label, as nnU-Net paints regions of a sigmoid above 0.5.

    Args:
        network: gives logits (N, regions, H, W); afterwards (N, 1 + regions, H, W) from 0 to 1, the
            background first.
        labels: what the regions are painted with, in their order: 1 to the number of regions. A later one
            covers those before it.

    Example:
        >>> network = nn.Identity()
        >>> paint_over(network, [1, 2])
        >>> network(torch.tensor([2.0, 1.0]).reshape(1, 2, 1, 1)).argmax(1).item()
        2
    """
    order = sorted(range(len(labels)), key=lambda region: labels[region])
    applied_last(network, _PaintedOver(tuple(order)))


def paint_likeliest(network: nn.Module, threshold: float) -> None:
    """Have a network give a score per class and one of the background, which has what reaches no threshold.

    Args:
        network: gives logits (N, classes, H, W); afterwards (N, 1 + classes, H, W) from 0 to 1, the
            background first.
        threshold: of the sigmoid, between 0 and 1.

    Example:
        >>> network = nn.Identity()
        >>> paint_likeliest(network, 0.5)
        >>> network(torch.tensor([-2.0, -1.0]).reshape(1, 2, 1, 1)).argmax(1).item()
        0
    """
    applied_last(network, _Likeliest(float(torch.logit(torch.tensor(threshold)))))


@dataclass(frozen=True)
class _PaintedOver:
    order: tuple[int, ...]

    def __call__(self, logits: torch.Tensor) -> torch.Tensor:
        found = torch.sigmoid(logits)
        free = torch.ones_like(found[:, :1])
        scores = []
        for region in reversed(range(found.shape[1])):
            # The last region above 0.5 keeps more than 0.5, and leaves less to all before it.
            score = found[:, region : region + 1]
            scores.append(torch.minimum(score, free))
            free = torch.minimum(free, 1 - score)
        scores.reverse()
        return torch.cat([free, *(scores[region] for region in self.order)], dim=1)


@dataclass(frozen=True)
class _Likeliest:
    logit: float

    def __call__(self, logits: torch.Tensor) -> torch.Tensor:
        found = torch.sigmoid(logits - self.logit)  # above 0.5 where the sigmoid is above the threshold
        return torch.cat([1 - found.amax(1, keepdim=True), found], dim=1)
