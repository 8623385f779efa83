"""Rare classes: weights of a loss by how often classes occur, and drawing images that have rare ones."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from seg_runtime.errors import BadInputError

__all__ = ["check_present", "frequency_weights", "repeat_factors"]


def frequency_weights(class_pixels: NDArray[np.int64]) -> tuple[float, ...]:
    """Median frequency balancing (Eigen and Fergus, 2015): the median frequency over that of each class.

    The frequency of a class is its share of the pixels that count in the images that have it.

    Args:
        class_pixels: (images, classes) pixels of each class in each image; every class occurs.

    Example:
        >>> frequency_weights(np.array([[50, 25, 25]]))
        (0.5, 1.0, 1.0)
    """
    totals = class_pixels.sum(axis=1, keepdims=True)
    frequencies = class_pixels.sum(axis=0) / np.where(class_pixels > 0, totals, 0).sum(axis=0)
    return tuple((np.median(frequencies) / frequencies).tolist())


def repeat_factors(class_pixels: NDArray[np.int64]) -> NDArray[np.float64]:
    """How often each image is drawn for once of a usual one (repeat factor sampling; Gupta et al., 2019).

    The factor of a class is the square root of the median share of images with a class over its own share,
    at least 1; that of an image the largest of its classes.

    Args:
        class_pixels: (images, classes) pixels of each class in each image.

    Example:
        >>> repeat_factors(np.array([[9, 1, 0], [9, 1, 0], [9, 1, 0], [9, 0, 1]]))
        array([1.        , 1.        , 1.        , 1.73205081])
    """
    has = class_pixels > 0
    share = has.mean(axis=0)
    threshold = np.median(share[share > 0])
    factors = np.sqrt(np.maximum(threshold / np.maximum(share, 1e-12), 1.0))
    return np.asarray(np.where(has, factors, 1.0).max(axis=1))


def check_present(class_pixels: NDArray[np.int64], names: Sequence[str]) -> None:
    """Raises BadInputError when the train part has no pixel of a class, which it then cannot teach."""
    missing = [name for name, count in zip(names, class_pixels.sum(axis=0), strict=True) if count == 0]
    if missing:
        raise BadInputError(
            f"no image of the train part has {', '.join(missing)}: split again, or leave the class out"
        )
