"""Hausdorff distance, its 95th percentile and the average surface distance of two masks.

`hausdorff_distance` is the article's: between all foreground pixels, equal to scipy's
`directed_hausdorff` taken both ways. The other two are between surfaces, defined as in MONAI 1.6
(`compute_hausdorff_distance(percentile=95)` and `compute_average_surface_distance(symmetric=True)`):
the surface of a mask are its pixels with a 4-neighbour that is background or beyond the image.
The 95th percentile also comes as in medpy 0.5 (`hd95`): one of both directions' distances together.

A distance to or from an empty mask is infinite, also when both are empty, as in the article.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal, get_args

import cv2
import numpy as np
from numpy.typing import NDArray

from seg_bench.metrics.farthest import MAX_SIDE, farthest_squared
from seg_runtime.errors import BadInputError, MissingExtraError

__all__ = [
    "HD95_DEFINITIONS",
    "Hd95Definition",
    "SurfaceMetrics",
    "average_surface_distance",
    "hausdorff_95",
    "hausdorff_distance",
    "surface_metrics",
]

Hd95Definition = Literal["directed", "pooled"]
HD95_DEFINITIONS: tuple[Hd95Definition, ...] = get_args(Hd95Definition)
"""The larger of the 95th percentiles of either direction, or one of all distances of both."""


@dataclass(frozen=True)
class SurfaceMetrics:
    """Two distances in pixels or mm, defined as the functions of these names; inf when a mask is empty."""

    hausdorff_95: float
    average_surface_distance: float


def hausdorff_distance(
    pred: NDArray[Any], target: NDArray[Any], spacing_hw: tuple[float, float] | None = None
) -> float:
    """The farthest that a foreground pixel of one mask is from the other mask.

    Args:
        pred: (H, W) mask; a value other than 0 is foreground.
        target: (H, W) mask, the same.
        spacing_hw: (height, width) of a pixel in mm; None for distances in pixels.

    Returns:
        Distance in pixels or mm; inf when a mask is empty.

    Raises:
        BadInputError: masks of different shapes or not two-dimensional, or a bad spacing.
        MissingExtraError: scipy is needed (uneven spacing, masks over 1024 pixels) and not installed.
    """
    masks = _cropped(pred, target, spacing_hw)
    if masks is None:
        return math.inf
    height_mm, width_mm = spacing_hw or (1.0, 1.0)
    first, second = masks
    if height_mm == width_mm and max(first.shape) <= MAX_SIDE:
        squared = farthest_squared(second, first, at_least=farthest_squared(first, second))
        return math.sqrt(squared) * height_mm
    forth = _distances(first, second, spacing_hw).max()
    back = _distances(second, first, spacing_hw).max()
    return float(max(forth, back))


def hausdorff_95(
    pred: NDArray[Any],
    target: NDArray[Any],
    spacing_hw: tuple[float, float] | None = None,
    definition: Hd95Definition = "directed",
) -> float:
    """95th percentile of the surface distances: the larger of both directions, or of both pooled.

    Percentiles are interpolated linearly. Other arguments, returns and errors as `hausdorff_distance`.

    Example:
        >>> pred, target = np.zeros((2, 1, 40), bool)
        >>> pred[0, :20] = target[0, :] = True
        >>> [round(hausdorff_95(pred, target, None, kind), 2) for kind in HD95_DEFINITIONS]
        [18.05, 17.05]
    """
    return surface_metrics(pred, target, spacing_hw, definition).hausdorff_95


def average_surface_distance(
    pred: NDArray[Any], target: NDArray[Any], spacing_hw: tuple[float, float] | None = None
) -> float:
    """Mean distance of all surface pixels of both masks to the other's surface.

    Arguments, returns and errors as `hausdorff_distance`.
    """
    return surface_metrics(pred, target, spacing_hw).average_surface_distance


def surface_metrics(
    pred: NDArray[Any],
    target: NDArray[Any],
    spacing_hw: tuple[float, float] | None = None,
    definition: Hd95Definition = "directed",
) -> SurfaceMetrics:
    """Both of them in the time of one. Arguments and errors as `hausdorff_95`."""
    masks = _cropped(pred, target, spacing_hw)
    if masks is None:
        return SurfaceMetrics(math.inf, math.inf)
    first, second = (_surface(mask) for mask in masks)
    forth, back = _distances(first, second, spacing_hw), _distances(second, first, spacing_hw)
    both = np.concatenate((forth, back))
    ways = (both,) if definition == "pooled" else (forth, back)
    return SurfaceMetrics(max(float(np.percentile(way, 95)) for way in ways), float(both.mean()))


def _surface(mask: NDArray[np.uint8]) -> NDArray[np.uint8]:
    cross = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))
    inside = cv2.erode(mask, cross, borderType=cv2.BORDER_CONSTANT, borderValue=(0.0,))
    return np.asarray(cv2.subtract(mask, inside), np.uint8)


def _distances(
    points: NDArray[np.uint8], target: NDArray[np.uint8], spacing_hw: tuple[float, float] | None
) -> NDArray[np.float64]:
    """Distance of each pixel of `points` to the nearest one of `target`; both have some."""
    height_mm, width_mm = spacing_hw or (1.0, 1.0)
    if height_mm == width_mm and max(target.shape) <= MAX_SIDE:
        distance = cv2.distanceTransform(1 - target, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)[points > 0]
        # OpenCV's float32 is rounded; the square is a whole number, exact again up to this size.
        squared = np.rint(np.square(distance, dtype=np.float64))
        return np.asarray(np.sqrt(squared) * height_mm, np.float64)
    try:
        from scipy.ndimage import distance_transform_edt
    except ImportError as error:
        raise MissingExtraError("scipy", "bench") from error
    return np.asarray(distance_transform_edt(target == 0, sampling=spacing_hw)[points > 0], np.float64)


def _cropped(
    pred: NDArray[Any], target: NDArray[Any], spacing_hw: tuple[float, float] | None
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]] | None:
    """Both masks as 0 and 1, cut to the rectangle around all foreground; None when one is empty."""
    if pred.ndim != 2 or pred.shape != target.shape:
        raise BadInputError(
            f"surface distances want two (H, W) masks of one shape; they are {pred.shape} and {target.shape}"
        )
    if spacing_hw is not None and not all(math.isfinite(side) and side > 0 for side in spacing_hw):
        raise BadInputError(f"spacing_hw must be two positive lengths in mm; it is {spacing_hw}")
    first, second = _zero_or_one(pred), _zero_or_one(target)
    left, top, width, height = cv2.boundingRect(cv2.bitwise_or(first, second))
    window = np.s_[top : top + height, left : left + width]
    if not (first.any() and second.any()):
        return None
    return first[window], second[window]


def _zero_or_one(mask: NDArray[Any]) -> NDArray[np.uint8]:
    # Viewing bool as uint8 copies nothing.
    return np.ascontiguousarray(mask if mask.dtype == np.bool_ else mask != 0).view(np.uint8)
