"""Automatic masks: measured in the frame of the image, kept as run lengths, chosen, written as records."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from seg_runtime.sam.amg import CropBox, remove_small_regions
from seg_runtime.sam.boxes import is_near_crop_edge, mask_to_box, nms
from seg_runtime.sam.masks import MaskFrame
from seg_runtime.sam.rle import coco_rle, decode_counts, encode_counts, uncompressed_rle

__all__ = ["Candidate", "OutputMode", "StabilityFilter", "remove_small_parts", "suppress", "to_record"]

OutputMode = Literal["binary_mask", "uncompressed_rle", "coco_rle"]


@dataclass(frozen=True)
class Candidate:
    """One mask that passed the filters.

    Attributes:
        counts: run lengths in the frame of the image, from `seg_runtime.sam.rle.encode_counts`.
        box_xyxy: in pixels of the image, the last column and row included.
        point_xy: the prompt, in pixels of the image.
        crop_box: the crop it was found in.
        score: the model's estimate of its IoU.
        stability: IoU of the masks at a higher and at a lower threshold.
    """

    counts: NDArray[np.int64]
    box_xyxy: tuple[int, int, int, int]
    point_xy: tuple[float, float]
    crop_box: CropBox
    score: float
    stability: float


@dataclass(frozen=True)
class StabilityFilter:
    """Takes logits to the image and drops masks that are unstable or cut by the edge of their crop.

    Attributes:
        mask_threshold: a pixel belongs to a mask when its logit is above it.
        offset: how far the threshold is moved up and down to measure stability.
        min_stability: what a mask needs; 0 keeps all.
    """

    mask_threshold: float
    offset: float
    min_stability: float

    def candidate(
        self,
        low_res: NDArray[np.float32],
        score: float,
        point_xy: tuple[float, float],
        crop: tuple[CropBox, MaskFrame],
        size_hw: tuple[int, int],
    ) -> Candidate | None:
        """The mask in the image, or None when it is left out.

        Args:
            low_res: (256, 256) logits.
            score: its predicted IoU.
            point_xy: the prompt in pixels of the image.
            crop: where it was found, and the way of its masks.
            size_hw: (height, width) of the image.
        """
        crop_box, frame = crop
        # What is not even above the lower threshold belongs to no mask that is looked at here.
        logits, origin_xy = frame.upscale_above(low_res, self.mask_threshold - abs(self.offset))
        stability = self._stability(logits)
        if self.min_stability > 0 and not stability >= np.float32(self.min_stability):
            return None
        mask = (logits > np.float32(self.mask_threshold)).view(np.uint8)
        box = mask_to_box(mask, origin_xy)
        if is_near_crop_edge(box, crop_box, size_hw):
            return None
        x0, y0, _, _ = crop_box
        in_image = (box[0] + x0, box[1] + y0, box[2] + x0, box[3] + y0)
        left, top = origin_xy
        inside = mask[box[1] - top : box[3] - top + 1, box[0] - left : box[2] - left + 1]
        counts = encode_counts(inside, in_image[:2], size_hw)
        return Candidate(counts, in_image, point_xy, crop_box, score, float(stability))

    def _stability(self, logits: NDArray[np.float32]) -> np.float32:
        high, low = (
            np.float32(self.mask_threshold + self.offset),
            np.float32(self.mask_threshold - self.offset),
        )
        intersection, union = (np.float32(np.count_nonzero(logits > level)) for level in (high, low))
        with np.errstate(invalid="ignore"):  # An empty mask: 0 / 0, which is no stability at all.
            return np.float32(intersection / union)


def suppress(
    masks: Sequence[Candidate], scores: NDArray[np.float32], iou_threshold: float
) -> list[Candidate]:
    """The masks that non-maximum suppression of their boxes leaves, by falling score."""
    if not masks:
        return []
    boxes = np.array([mask.box_xyxy for mask in masks])
    return [masks[index] for index in nms(boxes, scores, iou_threshold)]


def remove_small_parts(
    masks: Sequence[Candidate], size_hw: tuple[int, int], min_area: int, iou_threshold: float
) -> list[Candidate]:
    """Fill small holes, remove small islands, and drop masks that became duplicates.

    Of two duplicates the one that needed no cleaning stays.
    """
    cleaned, untouched = [], []
    for candidate in masks:
        mask, filled = remove_small_regions(decode_counts(candidate.counts, size_hw), min_area, "holes")
        mask, removed = remove_small_regions(mask, min_area, "islands")
        untouched.append(not filled and not removed)
        cleaned.append(candidate if untouched[-1] else _with_mask(candidate, mask))
    return suppress(cleaned, np.array(untouched, np.float32), iou_threshold)


def to_record(candidate: Candidate, size_hw: tuple[int, int], mode: OutputMode) -> dict[str, Any]:
    """The dictionary that `SamAutomaticMaskGenerator.generate` gives for a mask."""
    counts = candidate.counts
    segmentation: Any
    if mode == "binary_mask":
        segmentation = decode_counts(counts, size_hw)
    else:
        segmentation = (coco_rle if mode == "coco_rle" else uncompressed_rle)(counts, size_hw)
    return {
        "segmentation": segmentation,
        "area": int(counts[1::2].sum()),
        "bbox": _xywh(candidate.box_xyxy),
        "predicted_iou": candidate.score,
        "point_coords": [list(candidate.point_xy)],
        "stability_score": candidate.stability,
        "crop_box": _xywh(candidate.crop_box),
    }


def _with_mask(candidate: Candidate, mask: NDArray[np.bool_]) -> Candidate:
    pixels = np.ascontiguousarray(mask).view(np.uint8)
    return replace(candidate, counts=encode_counts(pixels), box_xyxy=mask_to_box(pixels))


def _xywh(box_xyxy: tuple[int, int, int, int]) -> list[int]:
    x0, y0, x1, y1 = box_xyxy
    return [x0, y0, x1 - x0, y1 - y0]
