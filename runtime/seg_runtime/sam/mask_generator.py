"""Masks of everything in an image: segment_anything's `SamAutomaticMaskGenerator` on a session."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seg_runtime.errors import BadInputError
from seg_runtime.preprocess import check_image
from seg_runtime.sam.amg import CropBox, generate_crop_boxes, make_point_grids
from seg_runtime.sam.candidates import (
    Candidate,
    OutputMode,
    StabilityFilter,
    remove_small_parts,
    suppress,
    to_record,
)
from seg_runtime.sam.predictor import SamPredictor
from seg_runtime.session import Session

__all__ = ["SamAutomaticMaskGenerator"]

_PROMPTS_IN_PROCESS = 16
"""More make ONNX Runtime on a CPU take twice as long per prompt: its buffers become too large to keep."""

_OUTPUT_MODES = ("binary_mask", "uncompressed_rle", "coco_rle")


class SamAutomaticMaskGenerator:
    """Prompts SAM with a grid of points, and keeps good masks once each.

    The parameters, their defaults and the answers are those of segment_anything's class. A mask is
    interpolated to the image only when its predicted IoU passes, one mask at a time, and is kept as
    run lengths, so memory does not grow with the grid.

    Args:
        session: from `seg_runtime.connect`.
        name: the published SAM; its models are `<name>_encoder` and `<name>_decoder`. None for the only one.
        points_per_side: points along one side of the grid; None when `point_grids` is given.
        points_per_batch: largest number of points in one run of the decoder; in process at most 16,
            which is faster there. The masks do not depend on it.
        pred_iou_thresh: masks whose predicted IoU is not above it are left out; 0 keeps all.
        stability_score_thresh: masks less stable than this are left out; 0 keeps all.
        stability_score_offset: how far the threshold is moved up and down to measure stability.
        box_nms_thresh: of two masks of one crop whose boxes have a larger IoU, one is left out.
        crop_n_layers: layers of crops to look at besides the whole image; layer i has (2**i)**2.
        crop_nms_thresh: as `box_nms_thresh`, between crops.
        crop_overlap_ratio: overlap of the crops of the first layer, as a share of the short side.
        crop_n_points_downscale_factor: each layer's grid is sparser by this factor.
        point_grids: instead of `points_per_side`, one (P, 2) array of points (x, y) in 0..1 for the
            image and for each layer.
        min_mask_region_area: fill holes and remove islands smaller than this, in pixels.
        output_mode: "binary_mask", "uncompressed_rle" or "coco_rle".

    Raises:
        BadInputError: settings that cannot be used.
        ModelNotFoundError: encoder or decoder is missing.
    """

    def __init__(
        self,
        session: Session,
        name: str | None = None,
        points_per_side: int | None = 32,
        points_per_batch: int = 64,
        pred_iou_thresh: float = 0.88,
        stability_score_thresh: float = 0.95,
        stability_score_offset: float = 1.0,
        box_nms_thresh: float = 0.7,
        crop_n_layers: int = 0,
        crop_nms_thresh: float = 0.7,
        crop_overlap_ratio: float = 512 / 1500,
        crop_n_points_downscale_factor: int = 1,
        point_grids: Sequence[NDArray[np.float64]] | None = None,
        min_mask_region_area: int = 0,
        output_mode: OutputMode = "binary_mask",
    ) -> None:
        if output_mode not in _OUTPUT_MODES:
            raise BadInputError(f"output_mode is one of {', '.join(_OUTPUT_MODES)}, not {output_mode!r}")
        if point_grids is None:
            point_grids = _regular_grids(points_per_side, crop_n_layers, crop_n_points_downscale_factor)
        elif points_per_side is not None:
            raise BadInputError("point_grids and points_per_side exclude each other: make one of them None")
        self.point_grids = _checked_grids(point_grids, crop_n_layers)
        if session.where == "in-process":
            points_per_batch = min(points_per_batch, _PROMPTS_IN_PROCESS)
        self.predictor = SamPredictor(session, name, prompts_per_call=points_per_batch)
        self.pred_iou_thresh = pred_iou_thresh
        self.stability_score_thresh = stability_score_thresh
        self.stability_score_offset = stability_score_offset
        self.box_nms_thresh = box_nms_thresh
        self.crop_n_layers = crop_n_layers
        self.crop_nms_thresh = crop_nms_thresh
        self.crop_overlap_ratio = crop_overlap_ratio
        self.min_mask_region_area = min_mask_region_area
        self.output_mode: OutputMode = output_mode

    def generate(self, image: NDArray[np.uint8]) -> list[dict[str, Any]]:
        """Masks of an image.

        Args:
            image: (H, W, 3) RGB uint8.

        Returns:
            One dictionary per mask, by falling predicted IoU when there are no crops:
            `segmentation` (a (H, W) bool array, or a dictionary of `seg_runtime.sam.rle`), `area` in
            pixels, `bbox` [x, y, width, height], `predicted_iou`, `point_coords` [[x, y]],
            `stability_score` and `crop_box` [x, y, width, height].

        Raises:
            BadInputError: another dtype or shape, or too narrow.
            InferenceError, ServerError: as from `Session.infer`.
        """
        check_image(image, 3)
        size_hw = (image.shape[0], image.shape[1])
        crops = generate_crop_boxes(size_hw, self.crop_n_layers, self.crop_overlap_ratio)
        found = [mask for box, layer in crops for mask in self._search(image, box, self.point_grids[layer])]
        if len(crops) > 1:
            corners = np.array([mask.crop_box for mask in found], np.float32).reshape(-1, 4)
            areas = (corners[:, 2] - corners[:, 0]) * (corners[:, 3] - corners[:, 1])
            # Of two masks, the one of the smaller crop stays.
            found = suppress(found, 1 / areas, self.crop_nms_thresh)
        if self.min_mask_region_area > 0:
            nms_thresh = max(self.box_nms_thresh, self.crop_nms_thresh)
            found = remove_small_parts(found, size_hw, self.min_mask_region_area, nms_thresh)
        return [to_record(mask, size_hw, self.output_mode) for mask in found]

    def _search(
        self, image: NDArray[np.uint8], crop_box: CropBox, grid: NDArray[np.float64]
    ) -> list[Candidate]:
        """Masks of one crop, without duplicates."""
        x0, y0, x1, y1 = crop_box
        crop_hw, size_hw = (y1 - y0, x1 - x0), (image.shape[0], image.shape[1])
        points_xy = grid * np.array([x1 - x0, y1 - y0])
        accept = StabilityFilter(
            self.predictor.mask_threshold, self.stability_score_offset, self.stability_score_thresh
        )
        found, done = [], 0
        with self.predictor as predictor:
            predictor.set_image(image[y0:y1, x0:x1])
            prompts = predictor.transform.apply_coords(points_xy, crop_hw)[:, None]
            labels = np.ones((len(prompts), 1), np.int32)
            for low_res, scores in predictor.predict_low_res(prompts, labels):
                for row, column in np.argwhere(self._promising(scores)):
                    x, y = points_xy[done + row]
                    score, point_xy = float(scores[row, column]), (float(x + x0), float(y + y0))
                    crop = (crop_box, predictor.frame)
                    mask = accept.candidate(low_res[row, column], score, point_xy, crop, size_hw)
                    found += [mask] if mask is not None else []
                done += len(scores)
        return suppress(found, np.array([mask.score for mask in found], np.float32), self.box_nms_thresh)

    def _promising(self, scores: NDArray[np.float32]) -> NDArray[np.bool_]:
        if self.pred_iou_thresh <= 0:
            return np.ones(scores.shape, np.bool_)
        return np.asarray(scores > np.float32(self.pred_iou_thresh))


def _regular_grids(
    points_per_side: int | None, crop_layers: int, downscale_factor: int
) -> list[NDArray[np.float64]]:
    if points_per_side is None:
        raise BadInputError("there are no points: give points_per_side or point_grids")
    if crop_layers < 0 or downscale_factor < 1 or points_per_side // downscale_factor**crop_layers < 1:
        raise BadInputError(
            f"{points_per_side} points per side, divided by {downscale_factor} in each of {crop_layers} "
            "layers of crops, leave no grid: give more points or fewer layers"
        )
    return make_point_grids(points_per_side, crop_layers, downscale_factor)


def _checked_grids(grids: Sequence[NDArray[np.float64]], crop_layers: int) -> list[NDArray[np.float64]]:
    checked = [np.asarray(grid, dtype=np.float64) for grid in grids]
    if len(checked) <= crop_layers:
        raise BadInputError(
            f"{crop_layers} layers of crops need {crop_layers + 1} point grids, not {len(checked)}"
        )
    for grid in checked:
        if grid.ndim != 2 or grid.shape[1] != 2 or not len(grid):
            raise BadInputError(f"a point grid has the shape {grid.shape}; P points are (P, 2), in 0..1")
        if not ((grid >= 0) & (grid < 1)).all():
            raise BadInputError("a point grid has values outside 0..1: give shares of width and height")
    return checked
