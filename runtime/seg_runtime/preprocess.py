"""From an image in its own frame to the model's input, and from probabilities back to the image's frame.

Training, calibration, verification and inference all come through here, so that a model sees the
pixels it was trained on. The order is fixed: resize, then CLAHE, both on 8-bit values; casting and
normalising are inside the graph.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from seg_runtime.errors import BadInputError
from seg_runtime.spec import ClaheSpec, ModelSpec

__all__ = [
    "apply_clahe",
    "check_batch_size",
    "check_clahe",
    "check_image",
    "probabilities_to_frame",
    "resize_image",
    "resize_mask",
    "to_batch",
]

_MOST_AT_ONCE = 4
"""Channels that OpenCV averages together."""


def resize_image(image: NDArray[np.uint8], size_hw: tuple[int, int]) -> NDArray[np.uint8]:
    """Stretch an image to a size, ignoring its aspect ratio.

    Pixels are averaged (OpenCV's INTER_AREA) when neither side grows, which keeps fine structures
    from aliasing, and interpolated linearly otherwise.

    Args:
        image: (H, W) or (H, W, C) uint8.
        size_hw: (height, width) in pixels.

    Returns:
        (height, width) or (height, width, C) uint8; the image itself when it has this size already.
    """
    import cv2

    height, width = size_hw
    if image.shape[:2] == (height, width):
        return image
    if image.ndim == 3 and image.shape[2] > _MOST_AT_ONCE:
        parts = [image[..., at : at + _MOST_AT_ONCE] for at in range(0, image.shape[2], _MOST_AT_ONCE)]
        return np.dstack([resize_image(np.ascontiguousarray(part), size_hw) for part in parts])
    shrinks = height <= image.shape[0] and width <= image.shape[1]
    resized = cv2.resize(
        image, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    )
    return np.asarray(resized, dtype=np.uint8)


def resize_mask(mask: NDArray[np.uint8], size_hw: tuple[int, int]) -> NDArray[np.uint8]:
    """Stretch a (H, W) uint8 mask of class ids to (height, width) by nearest pixel: ids never mix."""
    import cv2

    height, width = size_hw
    if mask.shape == (height, width):
        return mask
    return np.asarray(
        cv2.resize(mask, (width, height), interpolation=cv2.INTER_NEAREST_EXACT), dtype=np.uint8
    )


def apply_clahe(image: NDArray[np.uint8], clahe: ClaheSpec | None) -> NDArray[np.uint8]:
    """Equalise local contrast as OpenCV's `createCLAHE` does; None leaves the image as it is.

    A colour image keeps its hue: only the lightness channel of CIE Lab is equalised.

    Args:
        image: (H, W) or (H, W, 3) RGB uint8, already at the model's input size.
        clahe: the settings, or None.

    Returns:
        An array of the same shape and dtype.
    """
    import cv2

    if clahe is None:
        return image
    rows, columns = clahe.tile_grid_hw
    # OpenCV wants the grid as (columns, rows). The object is not safe to share between threads.
    equaliser = cv2.createCLAHE(clipLimit=clahe.clip_limit, tileGridSize=(columns, rows))
    if image.ndim == 2:
        return np.asarray(equaliser.apply(image), dtype=np.uint8)
    lab = cv2.cvtColor(image, cv2.COLOR_RGB2LAB)
    lab[..., 0] = equaliser.apply(np.ascontiguousarray(lab[..., 0]))
    return np.asarray(cv2.cvtColor(lab, cv2.COLOR_LAB2RGB), dtype=np.uint8)


def check_image(image: NDArray[np.uint8], channels: int) -> None:
    """Refuse what is not a (H, W) uint8 image for 1 channel, or (H, W, C) for C. Raises BadInputError."""
    shape = tuple(image.shape)
    fits = len(shape) == 2 if channels == 1 else len(shape) == 3 and shape[2] == channels
    if not fits or image.dtype != np.uint8 or 0 in shape:
        wanted = "(H, W)" if channels == 1 else f"(H, W, {channels})"
        raise BadInputError(
            f"the model wants an image of shape {wanted} and dtype uint8; "
            f"it was given {shape} and {image.dtype.name}"
        )


def check_batch_size(spec: ModelSpec, batch_size: int) -> None:
    """Refuse a batch larger than a model takes. Raises BadInputError."""
    largest = max(1, spec.max_batch_size)
    if not 1 <= batch_size <= largest:
        raise BadInputError(f"model '{spec.name}' takes batches of 1 to {largest}, not {batch_size}")


def check_clahe(channels: int, clahe: ClaheSpec | None) -> None:
    """Refuse to equalise the contrast of anything but gray and RGB images. Raises BadInputError."""
    if clahe is not None and channels not in (1, 3):
        raise BadInputError(
            f"CLAHE is for gray and RGB images, and the model takes {channels} bands: leave it out"
        )


def to_batch(
    images: Sequence[NDArray[np.uint8]],
    size_hw: tuple[int, int],
    channels: int,
    clahe: ClaheSpec | None = None,
) -> NDArray[np.uint8]:
    """Resize, equalise and stack images into one model input.

    Args:
        images: each (H, W) uint8 for one channel, (H, W, 3) RGB uint8 for three, (H, W, C) uint8 for C bands;
            sizes may differ.
        size_hw: the model's input size.
        channels: the model's.
        clahe: contrast equalisation to apply after resizing, or None; for gray and RGB.

    Returns:
        (N, height, width, channels) uint8, contiguous.

    Raises:
        BadInputError: an image has another dtype, shape or number of channels, there are none, or bands are
            to be equalised.
    """
    if not images:
        raise BadInputError("an empty batch: give at least one image")
    check_clahe(channels, clahe)
    batch = np.empty((len(images), *size_hw, channels), dtype=np.uint8)
    for slot, image in zip(batch, images, strict=True):
        check_image(image, channels)
        prepared = apply_clahe(resize_image(image, size_hw), clahe)
        slot[...] = prepared[..., None] if prepared.ndim == 2 else prepared
    return batch


def probabilities_to_frame(
    probabilities: NDArray[np.float32], size_hw: tuple[int, int]
) -> NDArray[np.float32]:
    """Interpolate probabilities linearly to the size of the image they belong to.

    Args:
        probabilities: (C, h, w) float32.
        size_hw: (height, width) of the original image.

    Returns:
        (C, height, width) float32, contiguous and never a view of the input.
    """
    import cv2

    height, width = size_hw
    if probabilities.shape[1:] == (height, width):
        return np.array(probabilities, dtype=np.float32, order="C")
    framed = np.empty((len(probabilities), height, width), dtype=np.float32)
    # One plane at a time: OpenCV's resize takes at most 4 interleaved channels at full speed.
    for plane, target in zip(probabilities, framed, strict=True):
        target[...] = cv2.resize(np.ascontiguousarray(plane), (width, height), interpolation=cv2.INTER_LINEAR)
    return framed
