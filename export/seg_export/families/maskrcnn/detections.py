"""Brings the detections of two computations of one image into the same order, to compare them row by row."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["BORDERLINE_SHARE", "align_detections", "detection_masks", "match_rows"]

BORDERLINE_SHARE = 0.005
"""Detections of which one computation may have more than the other. A score beside the threshold or two
boxes that overlap by just as much as is allowed fall to either side with the last bit of a sum."""

Tensors = Mapping[str, NDArray[Any]]


def align_detections(reference: Tensors, outputs: Tensors, atol: float) -> tuple[Tensors, Tensors]:
    """Order rows of `outputs` as those of `reference`; scores that differ by a bit swap places.

    Rows that have no partner are left out on both sides where they are borderline, else all stays as it is,
    so that the comparison fails. Those are rows within `4 * atol` of the score at which the other side's
    list ends, and beside them a share of `BORDERLINE_SHARE`, of `atol` where that is more, or a single row.
    Counts above the number of rows are cut to one more than it: that there are more is all that they say.

    Args:
        reference: boxes (N, D, 4), scores (N, D), labels (N, D), mask_logits (N, D, 28, 28), count (N, 1).
        outputs: the same.
        atol: how far scores may be apart.
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
        scores = [tensors["scores"][image] for tensors in (reference, outputs)]
        present = [int(np.count_nonzero(values > 0)) for values in scores]
        missing = max(
            _unmatched(scores[side], scores[1 - side], {pair[side] for pair in pairs}, 4 * atol)
            for side in (0, 1)
        )
        if missing > max(1, max(BORDERLINE_SHARE, atol) * max(present)):
            continue
        counts = [min(int(tensors["count"][image, 0]), rows + 1) for tensors in (first, second)]
        same_count = abs(counts[0] - counts[1]) <= max(present) - len(pairs) + atol * max(counts)
        for tensors, source, side in ((first, reference, 0), (second, outputs, 1)):
            _reorder(tensors, source, image, [pair[side] for pair in pairs])
            tensors["count"][image] = min(counts) if same_count else counts[side]
    return first, second


def detection_masks(outputs: Tensors) -> NDArray[np.uint8]:
    """(N, D, 28, 28): the mask of each detection in its box."""
    return np.asarray(outputs["mask_logits"] > 0, dtype=np.uint8)


def _unmatched(scores: NDArray[Any], others: NDArray[Any], matched: set[int], slack: float) -> int:
    """Rows without a partner whose score is clearly above where the other side's list ends."""
    end = float(others[others > 0].min()) if (others > 0).any() else 0.0
    return sum(row not in matched and score > end + slack for row, score in enumerate(scores))


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
