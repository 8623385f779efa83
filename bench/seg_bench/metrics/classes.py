"""How well each class is found where a model tells several apart, and which it takes for which."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seg_bench.metrics.surface import Hd95Definition, hausdorff_95

__all__ = [
    "ClassResult",
    "ClassScore",
    "class_confusion",
    "class_distances",
    "class_scores",
    "pooled_mean_iou",
]

Confusion = tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class ClassScore:
    """One class over all images; fields as those of `seg_bench.records.ClassAccuracy`."""

    dice: float | None
    iou: float | None
    images: int
    hd95: float | None = None
    hd95_infinite: int = 0


@dataclass(frozen=True)
class ClassResult:
    """All classes over all images; `confusion` as that of `seg_bench.records.Accuracy`."""

    scores: tuple[ClassScore, ...]
    confusion: Confusion


def class_confusion(
    pred: NDArray[np.integer[Any]], target: NDArray[np.integer[Any]], count: int
) -> NDArray[np.int64]:
    """Pixels of one image by their true and their predicted class.

    Args:
        pred: class of each pixel, 0 to `count` - 1, any shape.
        target: the true one, same shape.
        count: of the classes.

    Returns:
        (count, count): the row is the true class, the column the predicted one.

    Example:
        >>> class_confusion(np.array([[0, 1]]), np.array([[1, 1]]), 2).tolist()
        [[0, 0], [1, 1]]
    """
    pairs = target.astype(np.int64).ravel() * count + pred.ravel()
    return np.bincount(pairs, minlength=count * count).reshape(count, count)


def class_distances(
    pred: NDArray[np.integer[Any]],
    target: NDArray[np.integer[Any]],
    counted: NDArray[np.bool_],
    count: int,
    spacing_hw: tuple[float, float] | None = None,
    definition: Hd95Definition = "directed",
) -> NDArray[np.float64]:
    """HD95 of each class in one image.

    Args:
        pred, target: (H, W) classes, 0 to `count` - 1 where they count.
        counted: (H, W), the pixels that count; others are of no class.
        count: of the classes.
        spacing_hw, definition: as of `hausdorff_95`.

    Returns:
        (count,) pixels or mm: infinite where one of both has the class, NaN where neither has.
    """
    distances = np.full(count, np.nan)
    for number in np.union1d(pred[counted], target[counted]):
        found, true = (pred == number) & counted, (target == number) & counted
        distances[number] = hausdorff_95(found, true, spacing_hw, definition)
    return distances


def class_scores(
    confusions: Sequence[NDArray[np.int64]], distances: Sequence[NDArray[np.float64]] = ()
) -> tuple[ClassScore, ...]:
    """Scores of every class from what `class_confusion` and `class_distances` gave for each image.

    Dice is 2 |P and T| / (|P| + |T|) and IoU |P and T| / |P or T|, without smoothing, as means over the
    images in which prediction or target has the class. An image that has it in neither says nothing about it.
    HD95 is the mean of those that are finite.
    """
    matrices = np.stack(confusions)
    both = np.diagonal(matrices, axis1=1, axis2=2)
    areas = np.stack((both, matrices.sum(axis=1), matrices.sum(axis=2)), axis=2)
    measured = np.stack(distances) if len(distances) else np.full(both.shape, np.nan)
    return tuple(_score(areas[:, number], measured[:, number]) for number in range(both.shape[1]))


def pooled_mean_iou(confusion: Confusion) -> float | None:
    """Mean over classes of the IoU of the pixels of all images, as Pascal VOC and Cityscapes have it.

    Args:
        confusion: pixels by true (row) and predicted (column) class.

    Returns:
        None without a pixel. Classes that are neither in truth nor in a prediction are left out; the
        background is a class.

    Example:
        >>> pooled_mean_iou(((3, 1), (0, 4)))
        0.775
    """
    matrix = np.asarray(confusion, np.int64)
    both = np.diagonal(matrix)
    union = matrix.sum(axis=0) + matrix.sum(axis=1) - both
    found = union > 0
    return float((both[found] / union[found]).mean()) if found.any() else None


def _score(areas: NDArray[np.int64], distances: NDArray[np.float64]) -> ClassScore:
    """From (images, 3) pixels in both, prediction and target, and the distance of each image."""
    seen = areas[areas.any(axis=1)]
    if not len(seen):
        return ClassScore(None, None, 0)
    both, pred, target = seen.T
    dice, iou = 2 * both / (pred + target), both / (pred + target - both)
    finite = distances[np.isfinite(distances)]
    return ClassScore(
        dice=float(dice.mean()),
        iou=float(iou.mean()),
        images=int(np.count_nonzero(target)),
        hd95=float(finite.mean()) if len(finite) else None,
        hd95_infinite=int(np.isinf(distances).sum()),
    )
