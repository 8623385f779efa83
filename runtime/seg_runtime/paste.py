"""Masks of detections, 28x28 in their boxes, pasted into the frame of the image as torchvision does."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["MaskCrop", "paste_crops", "to_masks"]

_PADDING = 1


@dataclass(frozen=True)
class MaskCrop:
    """The part of a mask that lies in its box and in the image; all else is empty.

    Attributes:
        origin_xy: where its top left is in the image.
        mask: (h, w) bool; h or w is 0 where nothing of the box lies in the image.
    """

    origin_xy: tuple[int, int]
    mask: NDArray[np.bool_]


def paste_crops(
    probabilities: NDArray[np.float32],
    boxes_xyxy: NDArray[np.float32],
    size_hw: tuple[int, int],
    threshold: float = 0.5,
) -> list[MaskCrop]:
    """Scale masks to their boxes, as torchvision's `paste_masks_in_image`, and threshold them.

    Args:
        probabilities: (N, M, M) float32 in 0..1.
        boxes_xyxy: (N, 4) float32 in pixels of the image.
        size_hw: (height, width) of the image.
        threshold: a probability at or above it belongs to the object.
    """
    if not len(probabilities):
        return []
    side = probabilities.shape[1]
    padded = np.pad(probabilities, ((0, 0), (_PADDING, _PADDING), (_PADDING, _PADDING)))
    # torchvision grows the boxes as the masks grow by their padding, then cuts off fractions.
    centers = (boxes_xyxy[:, 2:] + boxes_xyxy[:, :2]) * np.float32(0.5)
    halves = (boxes_xyxy[:, 2:] - boxes_xyxy[:, :2]) * np.float32(0.5)
    halves = halves * np.float32((side + 2 * _PADDING) / side)
    corners = np.concatenate((centers - halves, centers + halves), axis=1).astype(np.int64)
    return [
        _crop(mask, tuple(box), size_hw, threshold)
        for mask, box in zip(padded, corners.tolist(), strict=True)
    ]


def to_masks(crops: list[MaskCrop], size_hw: tuple[int, int]) -> NDArray[np.bool_]:
    """(N, H, W) bool masks of N crops. Memory is touched only where there are crops."""
    masks = np.zeros((len(crops), *size_hw), dtype=np.bool_)
    for mask, crop in zip(masks, crops, strict=True):
        x, y = crop.origin_xy
        mask[y : y + crop.mask.shape[0], x : x + crop.mask.shape[1]] = crop.mask
    return masks


def _crop(
    mask: NDArray[np.float32], box: tuple[int, ...], size_hw: tuple[int, int], threshold: float
) -> MaskCrop:
    import cv2

    x0, y0, x1, y1 = box
    width, height = max(x1 - x0 + 1, 1), max(y1 - y0 + 1, 1)
    left, top = min(max(x0, 0), size_hw[1]), min(max(y0, 0), size_hw[0])
    right, bottom = max(min(x1 + 1, size_hw[1]), left), max(min(y1 + 1, size_hw[0]), top)
    scaled = cv2.resize(mask, (width, height), interpolation=cv2.INTER_LINEAR)
    inside = scaled[top - y0 : bottom - y0, left - x0 : right - x0]
    return MaskCrop((left, top), np.asarray(inside >= np.float32(threshold)))
