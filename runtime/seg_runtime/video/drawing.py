"""Draws tracked objects over their frame, each in a colour of its own."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from seg_runtime.errors import BadInputError
from seg_runtime.files.overlay import COLORS, draw_overlay, line_thickness

__all__ = ["MAX_LABEL", "draw_objects", "label_map"]

MAX_LABEL = 254
"""Largest object id in a PNG mask: DAVIS reads 255 as pixels that do not count."""


def draw_objects(
    frame: NDArray[np.uint8], logits: Mapping[int, NDArray[np.float32]], alpha: float = 0.35
) -> NDArray[np.uint8]:
    """Tint objects and draw their contours, as `draw_overlay` does; an id has one colour in every frame.

    Args:
        frame: (H, W, 3) uint8 RGB.
        logits: object id, from 1 -> (H, W) float32 mask logits, above 0 inside the object.
        alpha: opacity of the tint, 0 to 1.

    Returns:
        (H, W, 3) uint8 RGB; the frame is not changed.

    Raises:
        BadInputError: a mask of another size.
    """
    canvas = frame.copy()
    thickness = line_thickness(frame.shape[:2])
    for number, values in sorted(logits.items()):
        color = COLORS[(number - 1) % len(COLORS)]
        if values.shape != frame.shape[:2]:
            raise BadInputError(f"a mask of {values.shape} pixels does not fit a frame of {frame.shape[:2]}")
        inside = (values > 0).view(np.uint8)
        window = _window(inside, thickness + 2)
        canvas[window] = draw_overlay(canvas[window], inside[window], [color], alpha, thickness)
    return canvas


def _window(mask: NDArray[np.uint8], margin: int) -> tuple[slice, slice]:
    """The part of a frame that has foreground, and a margin for its lines."""
    import cv2

    left, top, width, height = cv2.boundingRect(mask)
    return (
        slice(max(top - margin, 0), top + height + margin),
        slice(max(left - margin, 0), left + width + margin),
    )


def label_map(logits: Mapping[int, NDArray[np.float32]], size_hw: tuple[int, int]) -> NDArray[np.uint8]:
    """One id per pixel, 0 where there is no object; of several objects the one with the highest logit.

    Args:
        logits: object id -> (H, W) float32 mask logits.
        size_hw: (height, width), for frames without objects.

    Returns:
        (H, W) uint8.

    Raises:
        BadInputError: an id outside 1 to `MAX_LABEL`.
    """
    labels = np.zeros(size_hw, dtype=np.uint8)
    highest = np.zeros(size_hw, dtype=np.float32)
    for number, values in sorted(logits.items()):
        if not 1 <= number <= MAX_LABEL:
            raise BadInputError(f"PNG masks hold objects 1 to {MAX_LABEL}, not {number}: number them anew")
        inside = values > highest
        labels[inside] = number
        np.maximum(highest, values, out=highest)
    return labels
