"""Mask average precision as COCO defines it, computed by pycocotools."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seg_runtime.errors import MissingExtraError
from seg_runtime.sam.rle import coco_rle, encode_counts

__all__ = ["AveragePrecision", "Found", "labelled_objects", "mask_average_precision"]

Rle = Mapping[str, Any]


@dataclass(frozen=True)
class Found:
    """What a model found in one image.

    Attributes:
        scores: one per object, in 0..1.
        labels: one per object, from 1 on.
        rles: COCO's compressed run lengths of each mask.
    """

    scores: Sequence[float]
    labels: Sequence[int]
    rles: Sequence[Rle]


@dataclass(frozen=True)
class AveragePrecision:
    """Means over classes, in 0..1; None where no image has an object.

    Attributes:
        ap: over mask IoUs of 0.50 to 0.95 in steps of 0.05, COCO's main figure.
        ap50: at a mask IoU of 0.50.
    """

    ap: float | None
    ap50: float | None


def mask_average_precision(
    truths: Sequence[Found], found: Sequence[Found], max_detections: int = 100
) -> AveragePrecision:
    """COCO's AP of masks (Lin et al., 2014), all sizes of objects together.

    Args:
        truths: the objects of each image; their scores are not looked at.
        found: what the model found in each, in the same order.
        max_detections: how many of an image count, the best ones; COCO takes 100.

    Raises:
        MissingExtraError: pycocotools is not installed.
    """
    try:
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval
    except ImportError as error:
        raise MissingExtraError("pycocotools, which average precision needs,", "bench") from error
    labels = sorted({label for truth in truths for label in truth.labels})
    if not labels:
        return AveragePrecision(None, None)
    with contextlib.redirect_stdout(io.StringIO()):  # it prints its progress
        truth, guess = COCO(), COCO()
        for coco, images in ((truth, truths), (guess, found)):
            coco.dataset = {
                "info": {},
                "images": [_image(number, image) for number, image in enumerate(images)],
                "categories": [{"id": label} for label in labels],
                "annotations": _annotations(images),
            }
            coco.createIndex()
        evaluation = COCOeval(truth, guess, "segm")
        evaluation.params.maxDets = [max_detections]
        evaluation.params.areaRng, evaluation.params.areaRngLbl = [[0, 1e10]], ["all"]
        evaluation.evaluate()
        evaluation.accumulate()
    # (IoU thresholds, recalls, classes, sizes, limits); -1 where there is nothing to find.
    precision = evaluation.eval["precision"][:, :, :, 0, 0]
    return AveragePrecision(float(precision.mean()), float(precision[0].mean()))


def labelled_objects(labels: NDArray[np.int32]) -> Found:
    """The objects of an (H, W) map of ids, as ground truth of class 1."""
    ids = np.unique(labels)
    size_hw = (labels.shape[0], labels.shape[1])
    rles = [coco_rle(encode_counts(labels == number), size_hw) for number in ids[ids > 0]]
    return Found([1.0] * len(rles), [1] * len(rles), rles)


def _image(number: int, image: Found) -> dict[str, int]:
    height, width = image.rles[0]["size"] if image.rles else (0, 0)
    return {"id": number, "height": height, "width": width}


def _annotations(images: Sequence[Found]) -> list[dict[str, Any]]:
    from pycocotools import mask as coco_mask

    annotations: list[dict[str, Any]] = []
    for number, image in enumerate(images):
        for score, label, rle in zip(image.scores, image.labels, image.rles, strict=True):
            counts = rle["counts"]
            packed = {**rle, "counts": counts.encode() if isinstance(counts, str) else counts}
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": int(label),
                    "segmentation": packed,
                    "area": float(coco_mask.area(packed)),
                    "iscrowd": 0,
                    "score": float(score),
                }
            )
    return annotations
