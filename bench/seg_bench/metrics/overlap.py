"""Dice, IoU and mean IoU of NumPy arrays, defined as in the article that this toolkit follows."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from seg_runtime.errors import BadInputError

__all__ = ["dice_score", "iou_score", "mean_iou"]


def dice_score(
    pred: NDArray[Any], target: NDArray[Any], threshold: float = 0.5, smooth: float = 1.0
) -> float:
    """Dice coefficient, (2 |P and T| + smooth) / (|P| + |T| + smooth).

    Args:
        pred: mask or probabilities of any shape; a value >= `threshold` is foreground.
        target: mask of the same shape; a value other than 0 is foreground.
        threshold: the probability at which foreground begins.
        smooth: keeps the quotient defined; two empty masks score 1 when it is above 0.

    Raises:
        BadInputError: the shapes differ.
    """
    both, pred_area, target_area = _areas(pred, target, threshold)
    total = pred_area + target_area + smooth
    return (2.0 * both + smooth) / total if total else 1.0


def iou_score(pred: NDArray[Any], target: NDArray[Any], threshold: float = 0.5) -> float:
    """Intersection over union; 1 when both masks are empty. Arguments and errors as `dice_score`."""
    both, pred_area, target_area = _areas(pred, target, threshold)
    union = pred_area + target_area - both
    return both / union if union else 1.0


def mean_iou(
    pred_classes: NDArray[np.integer[Any]],
    target_classes: NDArray[np.integer[Any]],
    num_classes: int,
    ignore_index: int = 255,
) -> float:
    """Mean IoU over the classes that occur in the prediction or the target.

    Args:
        pred_classes: integer class of each pixel, any shape.
        target_classes: integer class of each pixel, same shape.
        num_classes: classes are 0 to num_classes - 1.
        ignore_index: pixels with this target are left out.

    Returns:
        The mean; 0 when no class occurs at all, as in the article.

    Raises:
        BadInputError: the shapes differ, or an array does not hold integers.
    """
    _check_shapes(pred_classes, target_classes)
    for name, array in (("pred_classes", pred_classes), ("target_classes", target_classes)):
        if array.dtype.kind not in "iu":
            raise BadInputError(f"mean_iou wants integer classes; {name} is {array.dtype}: take the argmax")
    pred, target = pred_classes, target_classes
    valid = target != ignore_index
    if not valid.all():
        pred, target = pred[valid], target[valid]
    scores = []
    # Comparing and counting bytes is quicker than any histogram, for up to some twenty classes.
    for class_id in range(num_classes):
        in_pred, in_target = pred == class_id, target == class_id
        union = np.count_nonzero(in_pred | in_target)
        if union:
            scores.append(np.count_nonzero(in_pred & in_target) / union)
    return float(np.mean(scores)) if scores else 0.0


def _areas(pred: NDArray[Any], target: NDArray[Any], threshold: float) -> tuple[int, int, int]:
    """Pixels in both, in the prediction and in the target."""
    _check_shapes(pred, target)
    pred_mask, target_mask = pred >= threshold, target != 0
    both = np.count_nonzero(pred_mask & target_mask)
    return both, np.count_nonzero(pred_mask), np.count_nonzero(target_mask)


def _check_shapes(pred: NDArray[Any], target: NDArray[Any]) -> None:
    if pred.shape != target.shape:
        raise BadInputError(
            f"prediction and target must have one shape; they are {pred.shape} and {target.shape}: "
            "bring both to the resolution of the target"
        )
