"""The objects of a ground truth, to prompt a SAM with."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["MIN_SHARE", "PROMPTS", "object_boxes"]

PROMPTS = (
    "a box around each connected part of the ground truth (in X-rays, each lung), all of an image in one "
    "call; one mask per box, of which the union is scored"
)
"""How a SAM is prompted, for the record."""

MIN_SHARE = 0.01
"""Parts of less than this share of the foreground are stray pixels of the annotation, not objects."""


def object_boxes(mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    """A box around each connected part of a mask, pixels that touch by a corner being connected.

    Args:
        mask: (H, W) bool.

    Returns:
        (N, 4) x0 y0 x1 y1 in pixels, the outer edges of the part, so that x1 - x0 is its width. Parts
        smaller than `MIN_SHARE` get none; N is 0 for an empty mask.
    """
    import cv2

    _, _, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    parts = stats[1:]  # Without the background.
    areas = parts[:, cv2.CC_STAT_AREA]
    x, y, width, height = parts[areas >= MIN_SHARE * areas.sum(), :4].T
    return np.asarray(np.stack([x, y, x + width, y + height], axis=1), dtype=np.float64)
