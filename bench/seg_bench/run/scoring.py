"""Compares what a pipeline gave with the ground truth, image by image and over all images."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from seg_bench.data.classes import ClassSample
from seg_bench.data.find import AnySample, ShownSample
from seg_bench.data.nuclei import InstanceSample
from seg_bench.metrics import (
    ClassResult,
    Hd95Definition,
    class_confusion,
    class_distances,
    class_scores,
    dice_score,
    hausdorff_95,
    iou_score,
)
from seg_bench.metrics.average_precision import Found, labelled_objects, mask_average_precision
from seg_bench.metrics.objects import matched_dice
from seg_bench.pipelines import Objects, Outcome
from seg_runtime.sam.rle import coco_rle, encode_counts

__all__ = ["Scorer", "foreground_dice"]


def foreground_dice(sample: ShownSample, outcome: Outcome) -> float:
    """Dice of one image, foreground (the union of objects) against background.

    Raises:
        BadInputError: the ground truth is of another size.
    """
    (predicted,) = outcome.masks
    truth = sample.load_truth()
    sample.check_size(predicted.shape, truth.mask.shape)
    return dice_score(truth.judged(predicted), truth.mask)


class Scorer:
    """Scores outcomes; remembers objects and classes, whose figures are of all images together."""

    def __init__(self) -> None:
        self._truths: list[Found] = []
        self._found: list[Found] = []
        self._confusions: list[NDArray[np.int64]] = []
        self._distances: list[NDArray[np.float64]] = []

    def score(
        self,
        sample: AnySample,
        outcome: Outcome,
        classes: int = 0,
        spacing_hw: tuple[float, float] | None = None,
        hd95: Hd95Definition = "directed",
    ) -> dict[str, float]:
        """Dice, IoU and HD95 of one image, foreground against background; ignored pixels count not.

        For objects also `count_error`, found minus true from `Outcome.sure` on, and `matched_dice`, the mean
        over the objects that were found (NaN where there is none).

        Args:
            sample: the image.
            outcome: what a call with it alone gave.
            classes: how many the model has, if several.
            spacing_hw: (height, width) of a pixel of the image in mm; None for HD95 in pixels.
            hd95: which definition of HD95.

        Raises:
            BadInputError: the ground truth is of another size.
        """
        (predicted,) = outcome.masks
        labels = sample.load_labels() if isinstance(sample, InstanceSample) else None
        truth = sample.load_truth()
        target = truth.mask
        sample.check_size(predicted.shape, target.shape)
        predicted = truth.judged(predicted)
        scores = {
            "dice": dice_score(predicted, target),
            "iou": iou_score(predicted, target),
            "hd95": hausdorff_95(predicted, target, spacing_hw, hd95),
        }
        if outcome.objects and labels is not None:
            scores |= self._score_objects(labels, outcome.objects[0], outcome.sure)
        if outcome.classes and isinstance(sample, ClassSample):
            found, true = outcome.classes[0], sample.load_classes()
            counted = ~truth.ignored
            if counted.any():
                self._confusions.append(class_confusion(found[counted], true[counted], classes))
                self._distances.append(class_distances(found, true, counted, classes, spacing_hw, hd95))
        return scores

    def objects(self, max_detections: int) -> dict[str, Any]:
        """`ap` and `ap50` over all images that were scored; None where none has an object."""
        result = mask_average_precision(self._truths, self._found, max_detections)
        return {"ap": result.ap, "ap50": result.ap50}

    def classes(self) -> ClassResult | None:
        """Of each class over all images that were scored; None where no truth names classes."""
        if not self._confusions:
            return None
        pixels = np.sum(self._confusions, axis=0)
        return ClassResult(
            class_scores(self._confusions, self._distances), tuple(tuple(row) for row in pixels.tolist())
        )

    def _score_objects(self, labels: NDArray[np.int32], found: Objects, threshold: float) -> dict[str, float]:
        truth, sure = labelled_objects(labels), found.scores >= threshold
        size_hw = (labels.shape[0], labels.shape[1])
        rles = [coco_rle(encode_counts(mask), size_hw) for mask in found.masks]
        self._truths.append(truth)
        self._found.append(Found(found.scores.tolist(), found.labels.tolist(), rles))
        pairs = matched_dice(found.masks[sure], labels)
        return {
            "count_error": int(np.count_nonzero(sure)) - len(truth.rles),
            "matched_dice": float(pairs.mean()) if len(pairs) else float("nan"),
        }
