"""Low-resolution logits to the frame of an image or video, and masks of a user to the model's frame."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "NO_OBJECT",
    "clean_small_parts",
    "fill_holes",
    "mask_to_model",
    "resize_image",
    "resize_logits",
    "without_overlap",
]

NO_OBJECT = -1024.0
"""The logit of every pixel of an object that does not appear (sam2's `NO_OBJ_SCORE`)."""

_HOLE_LOGIT = 0.1
_OVERLAP_LOGIT = -10.0


def resize_logits(low_res: NDArray[np.floating[Any]], size_hw: tuple[int, int]) -> NDArray[np.float32]:
    """Interpolate logits linearly, as torch's `interpolate(mode="bilinear", align_corners=False)` does.

    Args:
        low_res: (..., h, w).
        size_hw: (height, width) in pixels.

    Returns:
        (..., height, width) float32; values differ from torch's by rounding only.
    """
    import cv2

    height, width = size_hw
    framed = np.empty((*low_res.shape[:-2], height, width), np.float32)
    for index in np.ndindex(low_res.shape[:-2]):
        single = np.ascontiguousarray(low_res[index], dtype=np.float32)
        cv2.resize(single, (width, height), dst=framed[index], interpolation=cv2.INTER_LINEAR)
    return framed


def without_overlap(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Leave each pixel to the object with the highest logit; the others get at most -10 there.

    Args:
        logits: (N, 1, H, W) float32, one mask per object.
    """
    if len(logits) == 1:
        return logits
    highest = np.argmax(logits, axis=0, keepdims=True)
    owned = highest == np.arange(len(logits)).reshape(-1, 1, 1, 1)
    return np.where(owned, logits, np.minimum(logits, np.float32(_OVERLAP_LOGIT)))


def fill_holes(low_res: NDArray[np.float32], max_area: float) -> NDArray[np.float32]:
    """Give holes of at most `max_area` pixels a logit of 0.1; (..., h, w) float32, 0 fills nothing."""
    return clean_small_parts(low_res, low_res <= 0, max_area, _HOLE_LOGIT)


def clean_small_parts(
    logits: NDArray[np.float32], parts: NDArray[np.bool_], max_area: float, value: float
) -> NDArray[np.float32]:
    """Give connected parts (8 neighbours) of at most `max_area` pixels another logit.

    sam2 does this in a CUDA kernel only, and leaves masks as they are without it.

    Args:
        logits: (..., h, w) float32.
        parts: the pixels whose connected parts are looked at, of the same shape.
        max_area: in pixels; 0 changes nothing.
        value: the new logit.
    """
    import cv2

    if max_area <= 0:
        return logits
    cleaned = logits.copy()
    for index in np.ndindex(logits.shape[:-2]):
        _, labels, stats, _ = cv2.connectedComponentsWithStats(parts[index].astype(np.uint8), connectivity=8)
        small = stats[:, cv2.CC_STAT_AREA] <= max_area
        small[0] = False  # what is not in `parts`
        cleaned[index][small[labels]] = value
    return cleaned


def mask_to_model(mask: NDArray[np.bool_], side: int) -> NDArray[np.uint8]:
    """Stretch a user's mask (H, W) to (side, side), averaging where it shrinks; 0 or 1."""
    if mask.shape == (side, side):
        return mask.astype(np.uint8)
    return np.asarray(_stretch(mask.astype(np.float32), side) >= 0.5, dtype=np.uint8)


def resize_image(image: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """Stretch an image (H, W, 3) to (side, side, 3) as `SAM2Transforms` does, rounded to 8 bits.

    sam2 resizes floating-point values and does not round them; graphs take 8 bits. Rounding once, at the
    end, keeps the difference to half a level.
    """
    if image.shape[:2] == (side, side):
        return image
    channels = [_stretch(image[..., channel].astype(np.float32), side) for channel in range(3)]
    return np.asarray(np.clip(np.rint(np.stack(channels, axis=-1)), 0, 255), dtype=np.uint8)


def _stretch(values: NDArray[np.float32], side: int) -> NDArray[np.float32]:
    """Linear with antialiasing: Pillow's filter is the one that torch copied for `antialias=True`."""
    from PIL import Image

    return np.asarray(Image.fromarray(values).resize((side, side), Image.Resampling.BILINEAR))
