"""Dice and IoU of each class where a model tells several apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["ClassScore", "class_areas", "class_scores"]


@dataclass(frozen=True)
class ClassScore:
    """One class over all images; fields as those of `seg_bench.records.ClassAccuracy`."""

    dice: float | None
    iou: float | None
    images: int


def class_areas(pred: NDArray[np.integer[Any]], target: NDArray[np.integer[Any]]) -> NDArray[np.int64]:
    """Pixels of each class in one image.

    Args:
        pred: class of each pixel, from 0 on, any shape with a pixel.
        target: the true one, same shape.

    Returns:
        (N, 3) pixels in both, in the prediction and in the target; N - 1 is the highest class of the two.

    Example:
        >>> class_areas(np.array([[0, 1]]), np.array([[1, 1]])).tolist()
        [[0, 1, 0], [1, 1, 2]]
    """
    count = int(max(pred.max(), target.max())) + 1
    areas = [np.bincount(values.ravel(), minlength=count) for values in (pred[pred == target], pred, target)]
    return np.stack(areas, axis=1)


def class_scores(areas: Sequence[NDArray[np.int64]], count: int) -> tuple[ClassScore, ...]:
    """Scores of the classes 0 to `count` - 1, from what `class_areas` gave for each image.

    Dice is 2 |P and T| / (|P| + |T|) and IoU |P and T| / |P or T|, without smoothing, as means over the
    images in which prediction or target has the class. An image that has it in neither says nothing about it.
    """
    return tuple(_score([each[number] for each in areas if number < len(each)]) for number in range(count))


def _score(areas: Sequence[NDArray[np.int64]]) -> ClassScore:
    """From the three areas of one class in each image."""
    seen = [each for each in areas if each.any()]
    if not seen:
        return ClassScore(None, None, 0)
    both, pred, target = np.transpose(seen)
    dice, iou = 2 * both / (pred + target), both / (pred + target - both)
    return ClassScore(float(dice.mean()), float(iou.mean()), int(np.count_nonzero(target)))
