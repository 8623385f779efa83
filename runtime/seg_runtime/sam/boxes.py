"""Boxes of masks: non-maximum suppression and which of them were cut by the edge of a crop."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["is_near_crop_edge", "mask_to_box", "nms"]

_EDGE_PX = 20.0


def nms(boxes_xyxy: NDArray[Any], scores: NDArray[np.float32], iou_threshold: float) -> NDArray[np.int64]:
    """Greedy non-maximum suppression, equal to `torchvision.ops.nms`.

    Args:
        boxes_xyxy: (N, 4) x0 y0 x1 y1.
        scores: (N,).
        iou_threshold: of two boxes with a larger IoU, the one with the smaller score goes.

    Returns:
        Indices of the boxes that stay, by falling score; of equal scores the first comes first.
    """
    x0, y0, x1, y1 = np.asarray(boxes_xyxy, dtype=np.float32).T
    areas = (x1 - x0) * (y1 - y0)
    order = np.argsort(-scores, kind="stable")
    kept = []
    while order.size:
        first, rest = order[0], order[1:]
        kept.append(first)
        width = np.minimum(x1[first], x1[rest]) - np.maximum(x0[first], x0[rest])
        height = np.minimum(y1[first], y1[rest]) - np.maximum(y0[first], y0[rest])
        overlap = np.maximum(width, np.float32(0)) * np.maximum(height, np.float32(0))
        with np.errstate(invalid="ignore"):  # Two empty boxes: 0 / 0, which is above nothing.
            iou = overlap / (areas[first] + areas[rest] - overlap)
        # torchvision compares its float32 with a double.
        order = rest[~(iou.astype(np.float64) > iou_threshold)]
    return np.array(kept, dtype=np.int64)


def mask_to_box(mask: NDArray[np.uint8], origin_xy: tuple[int, int] = (0, 0)) -> tuple[int, int, int, int]:
    """x0, y0, x1, y1 of the first and last set column and row of a mask; all 0 when it is empty.

    Args:
        mask: (h, w), a part of the mask outside which it is empty.
        origin_xy: where the part's top left is.
    """
    import cv2

    x, y, width, height = cv2.boundingRect(mask) if mask.size else (0, 0, 0, 0)
    if not width:
        return (0, 0, 0, 0)
    x, y = x + origin_xy[0], y + origin_xy[1]
    return (x, y, x + width - 1, y + height - 1)


def is_near_crop_edge(
    box_xyxy: tuple[int, int, int, int], crop_box: tuple[int, int, int, int], size_hw: tuple[int, int]
) -> bool:
    """Whether a side of a box is within 20 pixels of that of its crop, but not of the whole image's.

    Args:
        box_xyxy: in pixels of the crop.
        crop_box: x0, y0, x1, y1 of the crop in pixels of the image.
        size_hw: (height, width) of the image.
    """
    height, width = size_hw
    box = np.array(box_xyxy, np.float32) + np.tile(np.array(crop_box[:2], np.float32), 2)
    near_crop = np.abs(box - np.array(crop_box, np.float32)) <= _EDGE_PX
    near_image = np.abs(box - np.array([0, 0, width, height], np.float32)) <= _EDGE_PX
    return bool(np.any(near_crop & ~near_image))
