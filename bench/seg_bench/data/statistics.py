"""Mean and standard deviation of a data set, in place of ImageNet's."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from seg_runtime.errors import BadInputError

__all__ = ["mean_and_std"]


def mean_and_std(images: Iterable[NDArray[np.uint8]]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel over all pixels, on the 0..1 scale.

    Computed from the exact histogram of values, so the result does not depend on the order.

    Args:
        images: (H, W) or (H, W, C) uint8 each, after CLAHE where the model uses it; the train part only.

    Returns:
        One value for each channel.

    Raises:
        BadInputError: no image, or all pixels of a channel equal (nothing to divide by).
    """
    counts: NDArray[np.int64] | None = None
    for image in images:
        planes = image.reshape(*image.shape[:2], -1)
        of_image = np.stack(
            [np.bincount(plane.ravel(), minlength=256) for plane in np.moveaxis(planes, -1, 0)]
        )
        counts = of_image if counts is None else counts + of_image
    if counts is None or not counts.sum():
        raise BadInputError("no pixels to take statistics of: the train part is empty")
    found = [_mean_and_std(channel) for channel in counts]
    return tuple(mean for mean, _ in found), tuple(std for _, std in found)


def _mean_and_std(counts: NDArray[np.int64]) -> tuple[float, float]:
    total = int(counts.sum())
    levels = np.arange(256, dtype=np.float64) / 255.0
    mean = float((counts * levels).sum() / total)
    std = float(np.sqrt((counts * (levels - mean) ** 2).sum() / total))
    if std == 0.0:
        raise BadInputError("all pixels of the train part are equal: these are not usable images")
    return mean, std
