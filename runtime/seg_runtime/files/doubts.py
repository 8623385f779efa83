"""What makes a result doubtful though nothing failed: nothing or all found, or an image unlike any before."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from seg_runtime.preprocess import apply_clahe, resize_image
from seg_runtime.spec import ClaheSpec, ModelSpec

__all__ = ["class_doubts", "input_doubts", "mask_doubts"]

_FARTHEST = 3.0
"""Standard deviations between the mean of an image and that of the training images."""
_FLATTEST = 0.1
"""Least spread of an image, as a share of that of the training images."""


def mask_doubts(area_px: int, size_hw: tuple[int, int], what: str = "the mask") -> list[str]:
    """A warning when a mask is empty or covers the whole image, else none.

    Example:
        >>> mask_doubts(0, (4, 4))
        ['the mask is empty']
        >>> mask_doubts(5, (4, 4))
        []
    """
    if area_px == 0:
        return [f"{what} is empty"]
    return [f"{what} covers the whole image"] if area_px == size_hw[0] * size_hw[1] else []


def class_doubts(names: Sequence[str], areas_px: Sequence[int], size_hw: tuple[int, int]) -> list[str]:
    """A warning when all pixels of an image have one class; for a model of one class also when none has it.

    Args:
        names: of the classes.
        areas_px: pixels of each.
        size_hw: (height, width) of the image.

    Example:
        >>> class_doubts(["background", "lung"], [16, 0], (4, 4))
        ["the whole image is 'background'"]
    """
    if len(names) == 1:
        return mask_doubts(areas_px[0], size_hw)
    pixels = size_hw[0] * size_hw[1]
    return [
        f"the whole image is '{name}'" for name, area in zip(names, areas_px, strict=True) if area == pixels
    ]


def input_doubts(spec: ModelSpec, image: NDArray[np.uint8], clahe: ClaheSpec | None = None) -> list[str]:
    """A warning when an image is far from what a model was trained on, by the mean and std of its contract.

    It is, when in every channel its mean lies more than 3 standard deviations from the contract's, or when in
    every channel it is so flat that its own standard deviation is below a tenth of the contract's. Published
    statistics of many kinds of images, such as ImageNet's, are wide: by them only flat images are found.

    Args:
        spec: of the model; one without mean and std finds nothing.
        image: (H, W) or (H, W, C) uint8, RGB for three channels.
        clahe: that is applied before the model sees it.
    """
    if not spec.mean or not spec.std:
        return []
    if max(image.shape[:2]) > max(spec.input_size_hw) or clahe is not None:
        image = apply_clahe(resize_image(image, spec.input_size_hw), clahe)
    pixels = image.reshape(image.shape[0] * image.shape[1], -1)
    if spec.channel_order == "bgr":
        pixels = pixels[:, ::-1]
    mean, std = np.asarray(spec.mean), np.asarray(spec.std)
    distance = (pixels.mean(axis=0) / spec.scale - mean) / std
    spread = pixels.std(axis=0) / spec.scale / std
    if (np.abs(distance) > _FARTHEST).all():
        direction = "darker" if distance.mean() < 0 else "brighter"
        return [
            f"the image is far {direction} than those that '{spec.name}' was trained on: its mean is "
            f"{np.abs(distance).min():.1f} standard deviations from theirs"
        ]
    if (spread < _FLATTEST).all():
        return [
            f"the image is nearly uniform, unlike those that '{spec.name}' was trained on: its contrast is "
            f"{100 * spread.max():.0f} % of theirs"
        ]
    return []
