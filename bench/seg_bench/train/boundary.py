"""Boundary loss: how far from the true outline a network's foreground lies.

Kervadec et al., 2019, "Boundary loss for highly unbalanced segmentation": the probabilities, weighted by the
signed distance to the outline. A region loss as Dice sees a pixel that is wrong; this sees how wrong.
"""

from __future__ import annotations

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional as F

from seg_bench.train.class_losses import weighed

__all__ = ["BoundaryLoss", "signed_distance"]


class BoundaryLoss(nn.Module):
    """Mean over the pixels that count, and over the classes but the first, in pixels of the input."""

    def forward(
        self, logits: torch.Tensor, targets: torch.Tensor, confidence: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Scalar of (N, C, H, W) logits and (N, 1, H, W) classes, 0 and 1 for one channel; -1 is left out.

        The mean is weighted by the confidence, (N, 1, H, W) in 0..1.
        """
        counted = weighed(targets >= 0, confidence)
        if logits.shape[1] == 1:
            probabilities, numbers = torch.sigmoid(logits), [1]
        else:
            probabilities, numbers = F.softmax(logits, dim=1)[:, 1:], list(range(1, logits.shape[1]))
        classes = targets[:, 0].detach().cpu().numpy()
        distances = np.stack([[signed_distance(image == number) for number in numbers] for image in classes])
        weighted = probabilities * torch.from_numpy(distances).to(probabilities) * counted
        return weighted.sum() / (counted.sum() * len(numbers)).clamp(min=1)


def signed_distance(mask: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Pixels from the outline of a mask, negative inside; the outermost pixels inside have 0.

    Args:
        mask: (H, W).

    Returns:
        (H, W); 0 everywhere for a mask without an outline, which says nothing.

    Example:
        >>> signed_distance(np.array([[False, True, True, True]])).tolist()
        [[1.0, 0.0, -1.0, -2.0]]
    """
    if mask.all() or not mask.any():
        return np.zeros(mask.shape, np.float32)
    outside, inside = (
        cv2.distanceTransform(part.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
        for part in (~mask, mask)
    )
    return np.where(mask, 1.0 - inside, outside).astype(np.float32)
