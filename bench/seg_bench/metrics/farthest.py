"""The farthest distance between two small masks, exactly and without touching most pixels.

A full distance transform is exact but computes every pixel. A Hausdorff distance only needs the
farthest one, so this looks for it: a few sampled points give a lower bound, one dilation discards
every point that is provably nearer than the bound, and what is left is compared with the border of
the other mask. All arithmetic is on integers that float32 holds exactly.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

__all__ = ["MAX_SIDE", "farthest_squared"]

# Up to this side 4 * side**2 < 2**24, so sums of squared coordinates are exact in float32, and so is
# OpenCV's squared distance once it is rounded to an integer.
MAX_SIDE = 1024

_ROUNDS = 3
_SAMPLES = 48
_MAX_PAIRS = 600_000


def farthest_squared(mask: NDArray[np.uint8], target: NDArray[np.uint8], at_least: int = 0) -> int:
    """Largest squared distance from a pixel of `mask` to the nearest pixel of `target`.

    Args:
        mask: (H, W) uint8, 0 or 1; sides up to `MAX_SIDE`.
        target: (H, W) uint8, 0 or 1, not empty.
        at_least: a squared distance that is already known from elsewhere; a smaller answer is not
            worth computing.

    Returns:
        Squared distance in pixels, or `at_least` when that is larger.
    """
    outside = (target == 0).view(np.uint8)
    border_xy = None
    for _ in range(_ROUNDS):
        points_xy = _points_xy(mask & _beyond(outside, at_least))
        if not len(points_xy):
            return at_least
        if border_xy is None:
            border_xy = _points_xy(_border(target))
        if len(points_xy) * len(border_xy) <= _MAX_PAIRS:
            return max(at_least, _pairwise_farthest(points_xy, border_xy))
        sample_xy = points_xy[:: len(points_xy) // _SAMPLES + 1]
        at_least = max(at_least, _pairwise_farthest(sample_xy, border_xy))
    return max(at_least, _transform_farthest(mask, outside))


def _beyond(outside: NDArray[np.uint8], squared: int) -> NDArray[np.uint8]:
    """Pixels that may be farther from the target than `squared`: those beyond the inscribed square."""
    half_side = int((squared / 2) ** 0.5)
    if half_side == 0:
        return outside
    side = 2 * half_side + 1
    return np.asarray(cv2.erode(outside, np.ones((side, side), np.uint8)), np.uint8)


def _border(target: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Pixels of the target with a neighbour outside it: the nearest pixel is always one of them."""
    cross = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))
    return np.asarray(cv2.subtract(target, cv2.erode(target, cross)), np.uint8)


def _points_xy(mask: NDArray[np.uint8]) -> NDArray[np.float32]:
    """(N, 2) float32, (x, y) of the pixels that are 1; `flatnonzero` of bool is the quickest way."""
    y, x = np.divmod(np.flatnonzero(mask.view(np.bool_)).astype(np.int32), np.int32(mask.shape[1]))
    return np.column_stack([x, y]).astype(np.float32)


def _pairwise_farthest(points_xy: NDArray[np.float32], border_xy: NDArray[np.float32]) -> int:
    """max over p of min over q of |p - q|^2, as |p|^2 + min(|q|^2 - 2 pq) with one matrix product."""
    right = np.empty((3, len(border_xy)), np.float32)
    right[:2] = -2.0 * border_xy.T
    right[2] = np.square(border_xy).sum(axis=1)
    left = np.ones((len(points_xy), 3), np.float32)
    left[:, :2] = points_xy
    nearest = (left @ right).min(axis=1) + np.square(points_xy).sum(axis=1)
    return int(nearest.max())


def _transform_farthest(mask: NDArray[np.uint8], outside: NDArray[np.uint8]) -> int:
    distance = cv2.distanceTransform(outside, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    _, farthest, _, _ = cv2.minMaxLoc(distance, mask)
    return round(farthest**2)
