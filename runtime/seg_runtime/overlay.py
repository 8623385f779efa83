"""Draws a mask over its image so that a person can judge it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from seg_runtime.errors import BadInputError

__all__ = ["COLORS", "draw_overlay", "line_thickness"]

COLORS: tuple[tuple[int, int, int], ...] = (
    (0, 158, 255),
    (230, 120, 0),
    (0, 170, 110),
    (220, 70, 160),
    (240, 228, 66),
    (120, 94, 240),
    (213, 60, 0),
    (100, 210, 255),
)
"""RGB per class, told apart with the common forms of colour blindness; repeated when they run out."""

_OUTLINE = (16, 16, 16)


def draw_overlay(
    image: NDArray[np.uint8],
    mask: NDArray[np.uint8],
    colors: Sequence[tuple[int, int, int]] | None = None,
    alpha: float = 0.35,
    thickness: int | None = None,
) -> NDArray[np.uint8]:
    """Tint the classes of a mask and draw their contours.

    Each contour is a light line inside a dark one, so that it shows on any background; the lines
    grow with the image.

    Args:
        image: (H, W) or (H, W, 3) RGB uint8.
        mask: (H, W) uint8 of class ids; 0 is left untouched.
        colors: RGB of the classes 1, 2, ...; `COLORS` when None.
        alpha: opacity of the tint, 0 to 1.
        thickness: of the lines in pixels; what fits the image's size when None.

    Returns:
        (H, W, 3) RGB uint8; the arguments are not changed.

    Raises:
        BadInputError: mask and image differ in size.
    """
    import cv2

    if mask.shape != image.shape[:2]:
        raise BadInputError(f"a mask of {mask.shape} pixels does not fit an image of {image.shape[:2]}")
    canvas = np.repeat(image[..., None], 3, axis=2) if image.ndim == 2 else image.copy()
    palette = colors or COLORS
    thickness = thickness or line_thickness(mask.shape)
    for class_id in np.flatnonzero(np.bincount(mask.ravel(), minlength=1)[1:]) + 1:
        color = palette[(int(class_id) - 1) % len(palette)]
        inside = (mask == class_id).astype(np.uint8)
        _tint(canvas, inside, color, alpha)
        contours, _ = cv2.findContours(inside, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
        light = tuple((channel + 2 * 255) // 3 for channel in color)
        cv2.drawContours(canvas, contours, -1, _OUTLINE, thickness + 2, cv2.LINE_AA)
        cv2.drawContours(canvas, contours, -1, light, thickness, cv2.LINE_AA)
    return canvas


def line_thickness(size_hw: tuple[int, ...]) -> int:
    """Pixels of a line that shows in an image of (height, width)."""
    return max(1, round(min(size_hw) / 500))


def _tint(
    canvas: NDArray[np.uint8], inside: NDArray[np.uint8], color: tuple[int, int, int], alpha: float
) -> None:
    """Blend a colour into the pixels of `canvas` that are not 0 in `inside`."""
    import cv2

    table = np.arange(256, dtype=np.float32) * (1.0 - alpha)
    channels = [np.rint(table + alpha * channel).astype(np.uint8) for channel in color]
    lookup = np.stack(channels, axis=-1)[None]
    cv2.copyTo(cv2.LUT(canvas, lookup), inside, canvas)
