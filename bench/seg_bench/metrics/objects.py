"""How well objects were found, one by one."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["matched_dice", "paired_dice"]


def matched_dice(
    masks: NDArray[np.bool_], labels: NDArray[np.int32], min_iou: float = 0.5
) -> NDArray[np.float64]:
    """`paired_dice` of those that are in a pair alone: (M,) float64 in 0..1."""
    dice = paired_dice(masks, labels, min_iou)
    return dice[~np.isnan(dice)]


def paired_dice(
    masks: NDArray[np.bool_], labels: NDArray[np.int32], min_iou: float = 0.5
) -> NDArray[np.float64]:
    """Dice of every object that was found, each with the true one that it overlaps most.

    Args:
        masks: (N, H, W) bool, the best first: it chooses first among true objects that are free.
        labels: (H, W) int32, the true objects: 0 is background, every other value an object.
        min_iou: what two masks must overlap by to be a pair.

    Returns:
        (N,) float64 in 0..1, NaN for a mask without a partner.
    """
    ids, inverse = np.unique(labels, return_inverse=True)
    positions = inverse.reshape(labels.shape)
    areas = np.bincount(positions.ravel(), minlength=len(ids)).astype(np.float64)
    free = ids > 0
    scores = np.full(len(masks), np.nan)
    for number, mask in enumerate(masks):
        shared = np.bincount(positions[mask], minlength=len(ids)).astype(np.float64)
        total = areas + np.count_nonzero(mask)
        ious = np.where(free, shared / np.maximum(total - shared, 1), 0.0)
        best = int(ious.argmax())
        if ious[best] >= min_iou:
            free[best] = False
            scores[number] = 2 * shared[best] / total[best]
    return scores
