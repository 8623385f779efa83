"""Draws a mask over its image so that a person can judge it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from seg_runtime.errors import BadInputError

__all__ = ["COLORS", "distinct_colors", "draw_overlay", "line_thickness", "shown_channels"]

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


def shown_channels(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(H, W) or (H, W, 3) to show of an image: of other numbers of bands the first three, or the first.

    Example:
        >>> shown_channels(np.zeros((4, 6, 5), np.uint8)).shape
        (4, 6, 3)
    """
    if image.ndim == 2:
        return image
    return np.ascontiguousarray(image[..., :3] if image.shape[2] >= 3 else image[..., 0])


def distinct_colors(
    crops: Iterable[tuple[NDArray[np.bool_], tuple[int, int]]], size_hw: tuple[int, int]
) -> list[tuple[int, int, int]]:
    """A colour for each object that none of its neighbours has, as far as `COLORS` suffice.

    Objects are neighbours where they overlap or where a line's width is between them.

    Args:
        crops: (mask, (x, y)) of each object, in the order in which they are drawn: its own pixels and where
            the upper left one of them lies in the image.
        size_hw: (height, width) of the image.

    Returns:
        RGB of each object.

    Example:
        >>> left, right = np.ones((4, 4), bool), np.ones((4, 4), bool)
        >>> len(set(distinct_colors([(left, (0, 0)), (right, (4, 0))], (4, 8))))
        2
    """
    import cv2

    reach = 2 * line_thickness(size_hw) + 3
    drawn = np.full(size_hw, len(COLORS), np.uint8)
    numbers: list[int] = []
    for mask, (x, y) in crops:
        around = cv2.dilate(np.pad(mask, reach).view(np.uint8), np.ones((2 * reach + 1,) * 2, np.uint8)) > 0
        top, left = max(y - reach, 0), max(x - reach, 0)
        there = drawn[top : y + mask.shape[0] + reach, left : x + mask.shape[1] + reach]
        around = around[top - y + reach :, left - x + reach :][: there.shape[0], : there.shape[1]]
        taken = np.bincount(there[around], minlength=len(COLORS) + 1)[: len(COLORS)]
        # Of colours that are as rare nearby, the one that was given the longest time ago.
        order = np.roll(np.arange(len(COLORS)), -len(numbers))
        numbers.append(int(order[np.argmin(taken[order])]))
        drawn[y : y + mask.shape[0], x : x + mask.shape[1]][mask] = numbers[-1]
    return [COLORS[number] for number in numbers]


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
