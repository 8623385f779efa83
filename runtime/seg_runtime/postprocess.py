"""Cleans a mask up in the frame of its image: dense CRF, morphology, connected components."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from seg_runtime.crf import CrfSpec, refine
from seg_runtime.errors import BadInputError

__all__ = ["PostProcess", "apply_postprocess"]

_EIGHT_NEIGHBOURS = 8


@dataclass(frozen=True)
class PostProcess:
    """Steps after thresholding, run in this order; each is off by default.

    Lengths are pixels of the original image, so results do not depend on the model's input size.

    Attributes:
        crf: dense CRF that pulls the boundary to edges of the image, or None.
        closing_radius_px: radius of the disc that fills holes and gaps narrower than itself.
        opening_radius_px: radius of the disc that removes spurs and specks narrower than itself.
        min_area_px: connected regions (8 neighbours) of fewer pixels are removed.
        keep_largest: how many of the largest connected regions of each class stay; None for all.

    Raises:
        BadInputError: a negative number, or `keep_largest` below 1.
    """

    crf: CrfSpec | None = None
    closing_radius_px: int = 0
    opening_radius_px: int = 0
    min_area_px: int = 0
    keep_largest: int | None = None

    def __post_init__(self) -> None:
        for name in ("closing_radius_px", "opening_radius_px", "min_area_px"):
            if getattr(self, name) < 0:
                raise BadInputError(f"{name} must be 0 (off) or more; it is {getattr(self, name)}")
        if self.keep_largest is not None and self.keep_largest < 1:
            raise BadInputError(f"keep_largest must be 1 or more, or None; it is {self.keep_largest}")


def apply_postprocess(
    postprocess: PostProcess,
    probabilities: NDArray[np.float32],
    mask: NDArray[np.uint8],
    image: NDArray[np.uint8],
    *,
    threshold: float = 0.5,
) -> NDArray[np.uint8]:
    """Run the steps of `postprocess` on one image.

    Each class is treated by itself. Class 0 is the background: what a step removes from a class
    becomes 0, and what closing adds to it is taken from the background only, never from a class.

    Args:
        postprocess: the steps.
        probabilities: (C, H, W) float32 in [0, 1], used by the CRF only.
        mask: (H, W) uint8 of class ids, used without CRF; 0 and 1 for a model of one class.
        image: (H, W) or (H, W, 3) RGB uint8, used by the CRF only.
        threshold: of a model of one class; applied to the CRF's probabilities.

    Returns:
        (H, W) uint8 of class ids, a new array.

    Raises:
        BadInputError: the mask is not (H, W) uint8, or the CRF's inputs do not fit it.
    """
    if mask.ndim != 2 or mask.dtype != np.uint8 or probabilities.shape[1:] != mask.shape:
        raise BadInputError(
            "postprocessing wants a uint8 mask (H, W) and probabilities (C, H, W) of the same size; "
            f"they are {mask.dtype.name} {mask.shape} and {probabilities.shape}"
        )
    if postprocess.crf is not None:
        mask = _crf_mask(postprocess.crf, probabilities, image, threshold)
    cleaned = mask.copy()
    for class_id in np.unique(mask[mask > 0]):
        before = mask == class_id
        after = _clean(postprocess, before.view(np.uint8)) > 0
        cleaned[before & ~after] = 0
        cleaned[after & (mask == 0) & (cleaned == 0)] = class_id
    return cleaned


def _crf_mask(
    crf: CrfSpec, probabilities: NDArray[np.float32], image: NDArray[np.uint8], threshold: float
) -> NDArray[np.uint8]:
    refined = refine(probabilities, image, crf)
    if len(refined) == 1:
        return np.asarray(refined[0] >= np.float32(threshold), np.uint8)
    return np.asarray(np.argmax(refined, axis=0), np.uint8)


def _clean(postprocess: PostProcess, region: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Morphology and connected components of one class, 0 or 1."""
    if postprocess.closing_radius_px:
        region = _closed(region, postprocess.closing_radius_px)
    if postprocess.opening_radius_px:
        disc = _disc(postprocess.opening_radius_px)
        region = np.asarray(cv2.morphologyEx(region, cv2.MORPH_OPEN, disc), np.uint8)
    if postprocess.min_area_px > 1 or postprocess.keep_largest is not None:
        region = _large_components(region, postprocess.min_area_px, postprocess.keep_largest)
    return region


def _closed(region: NDArray[np.uint8], radius_px: int) -> NDArray[np.uint8]:
    # Without a margin OpenCV also fills the strip between a region and the image's border.
    padded = np.pad(region, radius_px)
    closed = cv2.morphologyEx(padded, cv2.MORPH_CLOSE, _disc(radius_px))
    return np.asarray(closed[radius_px:-radius_px, radius_px:-radius_px], np.uint8)


def _disc(radius_px: int) -> NDArray[np.uint8]:
    """(2r + 1, 2r + 1) uint8, 1 where the centre is at most r pixels away."""
    offsets = np.arange(-radius_px, radius_px + 1)
    return (offsets[:, None] ** 2 + offsets[None, :] ** 2 <= radius_px**2).astype(np.uint8)


def _large_components(
    region: NDArray[np.uint8], min_area_px: int, keep_largest: int | None
) -> NDArray[np.uint8]:
    count, labels, stats, _ = cv2.connectedComponentsWithStats(region, connectivity=_EIGHT_NEIGHBOURS)
    areas: NDArray[Any] = np.asarray(stats)[:, cv2.CC_STAT_AREA]
    # Label 0 is everything outside the region. A stable sort keeps the upper one of equal regions.
    largest_first = 1 + np.argsort(-areas[1:], kind="stable")[:keep_largest]
    keep = np.zeros(count, np.uint8)
    keep[largest_first[areas[largest_first] >= min_area_px]] = 1
    return np.asarray(keep[labels], np.uint8)
