"""Where automatic masks are looked for, and the cleaning of their small parts.

The counterpart of `segment_anything.utils.amg` without torch, equal to it number by number.
"""

from __future__ import annotations

import math
from itertools import product
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

__all__ = ["CropBox", "generate_crop_boxes", "make_point_grids", "point_grid", "remove_small_regions"]

CropBox = tuple[int, int, int, int]
"""x0, y0, x1, y1 in pixels of the image, the last ones exclusive."""


def point_grid(points_per_side: int) -> NDArray[np.float64]:
    """(n * n, 2) points (x, y) evenly spaced in 0..1, row by row."""
    offset = 1 / (2 * points_per_side)
    one_side = np.linspace(offset, 1 - offset, points_per_side)
    x, y = np.meshgrid(one_side, one_side)
    return np.asarray(np.stack([x, y], axis=-1).reshape(-1, 2))


def make_point_grids(
    points_per_side: int, crop_layers: int, downscale_factor: int
) -> list[NDArray[np.float64]]:
    """One grid for the whole image and one for each layer of crops, each sparser by a factor."""
    return [point_grid(int(points_per_side / downscale_factor**layer)) for layer in range(crop_layers + 1)]


def generate_crop_boxes(
    size_hw: tuple[int, int], layers: int, overlap_ratio: float
) -> list[tuple[CropBox, int]]:
    """The whole image, then (2**i)**2 overlapping crops for each layer i; each with its layer.

    Args:
        size_hw: (height, width) of the image.
        layers: how many layers of crops there are besides the whole image.
        overlap_ratio: overlap in the first layer as a share of the image's short side; halved by each
            further layer.
    """
    height, width = size_hw
    boxes: list[tuple[CropBox, int]] = [((0, 0, width, height), 0)]
    for layer in range(1, layers + 1):
        count = 2**layer
        overlap = int(overlap_ratio * min(height, width) * (2 / count))
        crop_width, crop_height = (
            math.ceil((overlap * (count - 1) + length) / count) for length in (width, height)
        )
        starts_x = [int((crop_width - overlap) * index) for index in range(count)]
        starts_y = [int((crop_height - overlap) * index) for index in range(count)]
        boxes.extend(
            ((x, y, min(x + crop_width, width), min(y + crop_height, height)), layer)
            for x, y in product(starts_x, starts_y)
        )
    return boxes


def remove_small_regions(
    mask: NDArray[Any], min_area: float, mode: Literal["holes", "islands"]
) -> tuple[NDArray[np.bool_], bool]:
    """Fill the holes, or remove the islands, of fewer than `min_area` pixels.

    Args:
        mask: (H, W) bool.
        min_area: in pixels; the largest island stays whatever its size.
        mode: which of the two.

    Returns:
        The mask and whether anything was changed.
    """
    import cv2

    holes = mode == "holes"
    working = (mask ^ holes).astype(np.uint8)
    count, regions, stats, _ = cv2.connectedComponentsWithStats(working, connectivity=8)
    areas = stats[1:, cv2.CC_STAT_AREA]  # Region 0 is what is not looked at.
    small = np.flatnonzero(areas < min_area) + 1
    if not small.size:
        return np.asarray(mask, dtype=np.bool_), False
    in_mask = np.zeros(count, dtype=np.bool_)
    if holes:
        in_mask[0] = True
        in_mask[small] = True
    else:
        in_mask[1:] = True
        in_mask[small] = False
        if not in_mask.any():
            in_mask[int(np.argmax(areas)) + 1] = True
    return in_mask[regions], True
