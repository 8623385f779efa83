"""J, F and J&F of tracked objects, as DAVIS 2017 defines them for semi-supervised tracking.

J is the region similarity (IoU), F the boundary measure: precision and recall of boundary pixels that lie
within 0.008 of the image's diagonal (rounded up to whole pixels) of the other boundary, in their harmonic
mean. Both are averaged over the frames of an object but its first and last, then over objects. Perazzi et
al., CVPR 2016; Pont-Tuset et al., arXiv:1704.00675.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from seg_runtime.errors import BadInputError

__all__ = [
    "BOUNDARY_TOLERANCE",
    "VOID_ID",
    "DavisScores",
    "SequenceScores",
    "boundary_measure",
    "combine_sequences",
    "measure_sequence",
    "region_similarity",
]

BOUNDARY_TOLERANCE = 0.008
"""Share of the image's diagonal that boundaries may be apart."""

VOID_ID = 255
"""Pixels of an annotation that do not count."""

_CORNER = np.ones((2, 2), dtype=np.uint8)


def region_similarity(
    pred: NDArray[Any], target: NDArray[Any], void: NDArray[np.bool_] | None = None
) -> float:
    """J, the intersection over union of two masks; 1 when both are empty.

    Args:
        pred: (H, W) mask; a value other than 0 is foreground.
        target: (H, W) mask, the same.
        void: (H, W) bool, True where pixels do not count.

    Raises:
        BadInputError: masks of different shapes or not two-dimensional.
    """
    first, second = _masks(pred, target, void)
    union = cv2.countNonZero(cv2.bitwise_or(first, second))
    return cv2.countNonZero(cv2.bitwise_and(first, second)) / union if union else 1.0


def boundary_measure(
    pred: NDArray[Any],
    target: NDArray[Any],
    void: NDArray[np.bool_] | None = None,
    tolerance: float = BOUNDARY_TOLERANCE,
) -> float:
    """F, how well two boundaries match; 1 when both masks have none, 0 when one has none.

    A pixel is on the boundary when it differs from its right, lower or lower right neighbour (`_seg2bmap`
    of Martin et al.). Two pixels match when they are no farther apart than the tolerance.

    Args:
        pred: (H, W) mask; a value other than 0 is foreground.
        target: (H, W) mask, the same.
        void: (H, W) bool, True where pixels do not count: they are background in both masks.
        tolerance: share of the diagonal, or whole pixels from 1 on.

    Raises:
        BadInputError: masks of different shapes or not two-dimensional.
    """
    first, second = _masks(pred, target, void)
    radius = tolerance if tolerance >= 1 else math.ceil(tolerance * math.hypot(*first.shape))
    window = _window(np.asarray(cv2.bitwise_or(first, second), dtype=np.uint8))
    first_edge, second_edge = _boundary(first[window]), _boundary(second[window])
    first_count, second_count = cv2.countNonZero(first_edge), cv2.countNonZero(second_edge)
    if not first_count or not second_count:
        return float(first_count == second_count)
    precision = _near(first_edge, second_edge, radius) / first_count
    recall = _near(second_edge, first_edge, radius) / second_count
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


@dataclass(frozen=True)
class SequenceScores:
    """What the objects of one sequence reached.

    Attributes:
        name: of the sequence.
        object_ids: (K,) ids.
        j_frames: (K, T) float64, J per object and measured frame.
        f_frames: (K, T) float64, F.
    """

    name: str
    object_ids: tuple[int, ...]
    j_frames: NDArray[np.float64]
    f_frames: NDArray[np.float64]

    def objects(self) -> dict[str, tuple[float, float]]:
        """(J, F) per object as "name_id", means over the frames."""
        means = zip(self.j_frames.mean(axis=1), self.f_frames.mean(axis=1), strict=True)
        return {
            f"{self.name}_{number}": (float(j), float(f))
            for number, (j, f) in zip(self.object_ids, means, strict=True)
        }


@dataclass(frozen=True)
class DavisScores:
    """J, F and their mean over the objects of all sequences, with (J, F) of each object."""

    j: float
    f: float
    j_and_f: float
    objects: dict[str, tuple[float, float]]


def measure_sequence(
    name: str,
    pairs: Iterable[tuple[NDArray[np.uint8], NDArray[np.uint8]]],
    object_ids: Sequence[int] | None = None,
    *,
    skip_ends: bool = True,
) -> SequenceScores:
    """Measure J and F of every object in every frame, reading one frame after the other.

    Args:
        name: of the sequence.
        pairs: (prediction, annotation) per frame, both (H, W) uint8 of object ids; `VOID_ID` in an
            annotation marks pixels that do not count.
        object_ids: whom to measure; None for all ids in the first annotation, as DAVIS does.
        skip_ends: leave the first and the last frame out, as DAVIS does: the first one is the prompt.

    Raises:
        BadInputError: fewer than three frames (one, when no ends are skipped), no objects, or frames of
            different sizes.
    """
    rows: list[list[tuple[float, float]]] = []
    ids = tuple(object_ids) if object_ids is not None else None
    for pred, target in pairs:
        if ids is None:
            ids = tuple(int(number) for number in np.unique(target) if number not in (0, VOID_ID))
        # The first row is never used when ends are skipped, and costs as much as any other.
        rows.append(
            [] if skip_ends and not rows else [_object_scores(pred, target, number) for number in ids]
        )
    measured = rows[1:-1] if skip_ends else rows
    if not ids or not measured:
        raise BadInputError(
            f"sequence '{name}' has {len(ids or ())} objects and {len(measured)} frames to measure: "
            "it needs one of each"
        )
    values = np.array(measured, dtype=np.float64)
    return SequenceScores(name, ids, values[..., 0].T, values[..., 1].T)


def combine_sequences(sequences: Iterable[SequenceScores]) -> DavisScores:
    """DAVIS' summary: every object counts the same, however long its sequence is.

    Raises:
        BadInputError: there is no sequence.
    """
    objects: dict[str, tuple[float, float]] = {}
    for sequence in sequences:
        objects.update(sequence.objects())
    if not objects:
        raise BadInputError("there is no sequence to summarise")
    j, f = (float(value) for value in np.mean(list(objects.values()), axis=0))
    return DavisScores(j, f, (j + f) / 2, objects)


def _object_scores(pred: NDArray[np.uint8], target: NDArray[np.uint8], number: int) -> tuple[float, float]:
    void = target == VOID_ID
    arguments = pred == number, target == number, void if void.any() else None
    return region_similarity(*arguments), boundary_measure(*arguments)


def _masks(
    pred: NDArray[Any], target: NDArray[Any], void: NDArray[np.bool_] | None
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Both masks as 0 and 1, without what is void."""
    shapes = {pred.shape, target.shape} | (set() if void is None else {void.shape})
    if pred.ndim != 2 or len(shapes) != 1:
        raise BadInputError(
            f"J and F want (H, W) masks of one shape; the prediction has {pred.shape} and "
            f"the annotation {target.shape}"
        )
    first, second = (mask if mask.dtype == np.bool_ else mask != 0 for mask in (pred, target))
    if void is not None:
        first, second = first & ~void, second & ~void
    return np.ascontiguousarray(first).view(np.uint8), np.ascontiguousarray(second).view(np.uint8)


def _window(mask: NDArray[np.uint8]) -> tuple[slice, slice]:
    """The part of the frame that has foreground, and a pixel around it: boundaries lie nowhere else."""
    left, top, width, height = cv2.boundingRect(mask)
    return slice(max(top - 1, 0), top + height + 1), slice(max(left - 1, 0), left + width + 1)


def _boundary(mask: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """1 where the 2x2 pixels from here to the lower right are not all the same."""
    edge = cv2.morphologyEx(mask, cv2.MORPH_GRADIENT, _CORNER, anchor=(0, 0), borderType=cv2.BORDER_REPLICATE)
    return np.asarray(edge, dtype=np.uint8)


def _near(edge: NDArray[np.uint8], other: NDArray[np.uint8], radius: float) -> int:
    """How many pixels of `edge` lie within the radius of one of `other`."""
    return cv2.countNonZero(cv2.bitwise_and(edge, _dilate(other, radius)))


def _dilate(mask: NDArray[np.uint8], radius: float) -> NDArray[np.uint8]:
    """Dilation by a disc: the union of the rectangles in it, which OpenCV dilates by row and column."""
    dilated = np.zeros_like(mask)
    for width, height in _rectangles(radius):
        kernel = np.ones((2 * height + 1, 2 * width + 1), dtype=np.uint8)
        cv2.bitwise_or(dilated, cv2.dilate(mask, kernel), dilated)
    return dilated


def _rectangles(radius: float) -> list[tuple[int, int]]:
    """(half width, half height) of rectangles whose union is the disc x^2 + y^2 <= radius^2."""
    tallest: dict[int, int] = {}
    for height in range(int(radius) + 1):
        tallest[int(math.sqrt(radius**2 - height**2))] = height
    return list(tallest.items())
