"""Mean and standard deviation of a data set, in place of ImageNet's."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from seg_runtime.errors import BadInputError

__all__ = ["mean_and_std"]


def mean_and_std(images: Iterable[NDArray[np.uint8]]) -> tuple[float, float]:
    """Mean and standard deviation over all pixels of gray images, on the 0..1 scale.

    Computed from the exact histogram of values, so the result does not depend on the order.

    Args:
        images: (H, W) uint8 each, after CLAHE where the model uses it; the train part only.

    Raises:
        BadInputError: no image, or all pixels equal (nothing to divide by).
    """
    counts = np.zeros(256, dtype=np.int64)
    for image in images:
        counts += np.bincount(image.ravel(), minlength=256)
    total = int(counts.sum())
    if total == 0:
        raise BadInputError("no pixels to take statistics of: the train part is empty")
    levels = np.arange(256, dtype=np.float64) / 255.0
    mean = float((counts * levels).sum() / total)
    std = float(np.sqrt((counts * (levels - mean) ** 2).sum() / total))
    if std == 0.0:
        raise BadInputError("all pixels of the train part are equal: these are not usable images")
    return mean, std
