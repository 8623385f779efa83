"""Brings the detections of two computations of one image into the same order, to compare them row by row."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["BORDERLINE_SHARE", "align_detections", "match_rows"]

BORDERLINE_SHARE = 0.005
"""Detections of which one computation may have more than the other. A score beside the threshold or two
boxes that overlap by just as much as is allowed fall to either side with the last bit of a sum."""

Tensors = Mapping[str, NDArray[Any]]


def align_detections(reference: Tensors, outputs: Tensors) -> tuple[Tensors, Tensors]:
    """Order rows of `outputs` as those of `reference`; scores that differ by a bit swap places.

    Rows that have no partner are left out on both sides when they are no more than `BORDERLINE_SHARE`, or a
    single one in an image; else all stays as it is, so that the comparison fails. Counts above the number
    of rows are cut to one more than it: that there are more is all that they say.

    Args:
        reference: boxes (N, D, 4), scores (N, D), labels (N, D), mask_logits (N, D, 28, 28), count (N, 1).
        outputs: the same.
    """
    first, second = (
        {name: array.copy() for name, array in tensors.items()} for tensors in (reference, outputs)
    )
    rows = first["scores"].shape[1]
    for image in range(len(first["scores"])):
        pairs = match_rows(
            *(
                tensors[name][image]
                for tensors in (reference, outputs)
                for name in ("boxes", "scores", "labels")
            )
        )
        present = [int(np.count_nonzero(tensors["scores"][image] > 0)) for tensors in (reference, outputs)]
        missing = max(present) - len(pairs)
        counts = [min(int(tensors["count"][image, 0]), rows + 1) for tensors in (first, second)]
        if missing > max(1, BORDERLINE_SHARE * max(present)):
            continue
        same_count = abs(counts[0] - counts[1]) <= missing
        for tensors, source, side in ((first, reference, 0), (second, outputs, 1)):
            _reorder(tensors, source, image, [pair[side] for pair in pairs])
            tensors["count"][image] = min(counts) if same_count else counts[side]
    return first, second


def match_rows(
    boxes: NDArray[Any],
    scores: NDArray[Any],
    labels: NDArray[Any],
    other_boxes: NDArray[Any],
    other_scores: NDArray[Any],
    other_labels: NDArray[Any],
    iou: float = 0.9,
) -> list[tuple[int, int]]:
    """Pairs of rows of one label whose boxes overlap by more than an IoU, the best overlap first chosen.

    Args:
        boxes, other_boxes: (D, 4) x0, y0, x1, y1.
        scores, other_scores: (D,); rows of score 0 are empty.
        labels, other_labels: (D,).
        iou: what is needed to be a pair.
    """
    overlaps = _ious(boxes, other_boxes) * (labels[:, None] == other_labels)
    overlaps *= (scores > 0)[:, None] & (other_scores > 0)
    pairs = []
    for row in range(len(boxes)):
        partner = int(overlaps[row].argmax())
        if overlaps[row, partner] > iou:
            pairs.append((row, partner))
            overlaps[:, partner] = 0
    return pairs


def _reorder(tensors: dict[str, NDArray[Any]], source: Tensors, image: int, rows: list[int]) -> None:
    for name in ("boxes", "scores", "labels", "mask_logits"):
        tensors[name][image] = 0
        tensors[name][image, : len(rows)] = source[name][image, rows]


def _ious(first: NDArray[Any], second: NDArray[Any]) -> NDArray[np.float64]:
    a, b = first[:, None].astype(np.float64), second[None].astype(np.float64)
    sides = np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2])
    shared = np.prod(np.maximum(sides, 0), axis=-1)
    areas = np.prod(a[..., 2:] - a[..., :2], axis=-1) + np.prod(b[..., 2:] - b[..., :2], axis=-1)
    return np.asarray(shared / np.maximum(areas - shared, 1e-9))
