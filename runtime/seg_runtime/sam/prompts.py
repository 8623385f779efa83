"""Checks prompts and packs them into the inputs of SAM's decoder."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from seg_runtime.errors import BadInputError
from seg_runtime.sam.transforms import ResizeLongestSide

__all__ = [
    "BACKGROUND",
    "FOREGROUND",
    "NOT_A_POINT",
    "PADDING",
    "Prompts",
    "check_boxes",
    "check_points",
    "prompt_of_image",
    "prompts_of_model",
]

FOREGROUND = 1
BACKGROUND = 0
PADDING = -10
"""Label of a place without a point: it takes no part in the attention and changes nothing.

It is not SAM's own label -1, which is a learned token that does change the masks.
"""

NOT_A_POINT = -1
_BOX_CORNERS = (2, 3)
_EDGE_TOLERANCE_PX = 1e-3
"""Coordinates that were scaled from the very edge of an image may be off by rounding."""

_Tokens = tuple[NDArray[np.float32], NDArray[np.int32]]


@dataclass(frozen=True)
class Prompts:
    """N prompts for one image, as the decoder takes them.

    Attributes:
        coords: (N, P, 2) float32, (x, y) in pixels of the encoder's frame.
        labels: (N, P) int32: 1, 0, 2 and 3 for the corners of a box, -1 for SAM's "not a point" and
            -10 for padding.
        masks: (N, M, M) float32 logits of earlier predictions, or None.
    """

    coords: NDArray[np.float32]
    labels: NDArray[np.int32]
    masks: NDArray[np.float32] | None

    def __len__(self) -> int:
        return len(self.labels)

    def chunks(self, size: int) -> Iterator[Prompts]:
        """The same prompts, at most `size` at a time."""
        for start in range(0, len(self), size):
            part = slice(start, start + size)
            masks = None if self.masks is None else self.masks[part]
            yield Prompts(self.coords[part], self.labels[part], masks)


def prompts_of_model(
    points: ArrayLike | None,
    labels: ArrayLike | None,
    boxes: ArrayLike | None,
    masks: ArrayLike | None,
    size_hw: tuple[int, int],
) -> Prompts:
    """Check N prompts in the encoder's frame, where the image has (height, width), and pack them.

    Arguments are those of `SamPredictor.predict_batch`. Raises BadInputError.
    """
    prompts = _pack(points, labels, boxes, masks)
    if points is not None:
        marks = None if labels is None else np.asarray(labels)
        check_points(np.asarray(points, dtype=np.float64), marks, size_hw, _EDGE_TOLERANCE_PX)
    if boxes is not None:
        check_boxes(np.asarray(boxes, dtype=np.float64), size_hw)
    return prompts


def _pack(
    points: ArrayLike | None, labels: ArrayLike | None, boxes: ArrayLike | None, masks: ArrayLike | None
) -> Prompts:
    """Combine points, boxes and masks of N prompts as SAM's prompt encoder does.

    A prompt without a box ends with a "not a point" token, as the model was trained.

    Args:
        points: (N, P, 2), (x, y) in pixels of the encoder's frame, or None.
        labels: (N, P): 1 foreground, 0 background, -10 no point; wanted with points.
        boxes: (N, 4), x0 y0 x1 y1 in pixels of the encoder's frame, or None.
        masks: (N, 1, M, M) logits, or None.

    Raises:
        BadInputError: shapes, labels or values that cannot be used, or no prompt at all.
    """
    if points is None and labels is not None:
        raise BadInputError("point_labels were given without point_coords: give both")
    if points is None and boxes is None and masks is None:
        raise BadInputError("there is no prompt: give points, a box or a mask")
    parts: list[_Tokens] = []
    if points is not None:
        parts.append(_points(points, labels, end=boxes is None))
    if boxes is not None:
        parts.append(_corners(boxes))
    dense = None if masks is None else _dense(masks)
    if not parts and dense is not None:
        # A mask alone has no token; the graph wants one, so it gets one that takes no part.
        parts.append((np.zeros((len(dense), 1, 2), np.float32), np.full((len(dense), 1), PADDING, np.int32)))
    counts = {len(coords) for coords, _ in parts} | ({len(dense)} if dense is not None else set())
    if len(counts) > 1:
        raise BadInputError(
            f"points, boxes and masks are for different numbers of prompts ({sorted(counts)}): "
            "give each prompt one of each, with label -10 where it has fewer points"
        )
    coords = np.concatenate([coords for coords, _ in parts], axis=1)
    return Prompts(coords, np.concatenate([label for _, label in parts], axis=1), dense)


def prompt_of_image(
    point_coords: ArrayLike | None,
    point_labels: ArrayLike | None,
    box: ArrayLike | None,
    mask_input: ArrayLike | None,
    transform: ResizeLongestSide,
    size_hw: tuple[int, int],
) -> Prompts:
    """Check one prompt in pixels of an image of (height, width) and take it to the encoder's frame.

    Arguments are those of `SamPredictor.predict`. Raises BadInputError.
    """
    labels = None if point_labels is None else np.asarray(point_labels)[None]
    points = boxes = None
    if point_coords is not None:
        coords = _numbers(point_coords, "point_coords")
        if coords.ndim != 2 or coords.shape[1] != 2 or not len(coords):
            raise BadInputError(f"point_coords have the shape {coords.shape}; P points are (P, 2)")
        check_points(coords[None], labels, size_hw)
        points = transform.apply_coords(coords, size_hw)[None]
    if box is not None:
        corners = _numbers(box, "box")
        if corners.shape not in ((4,), (1, 4)):
            raise BadInputError(
                f"box has the shape {corners.shape}; one box is (4,): use predict_batch for several"
            )
        check_boxes(corners.reshape(1, 4), size_hw)
        boxes = transform.apply_boxes(corners, size_hw)
    masks = None if mask_input is None else np.asarray(mask_input)[None]
    return _pack(points, labels, boxes, masks)


def check_points(
    points: NDArray[np.float64],
    labels: NDArray[Any] | None,
    size_hw: tuple[int, int],
    tolerance_px: float = 0.0,
) -> None:
    """Refuse points that do not lie on an image.

    Args:
        points: (N, P, 2), (x, y) in pixels of the frame of `size_hw`.
        labels: (N, P); places with the label -10 are not looked at.
        size_hw: (height, width).
        tolerance_px: how far outside a point may be.

    Raises:
        BadInputError: the first point outside.
    """
    height, width = size_hw
    x, y = points[..., 0], points[..., 1]
    # Written so that NaN is outside.
    inside = (x >= 0) & (y >= 0) & (x < width + tolerance_px) & (y < height + tolerance_px)
    if labels is not None and labels.shape == inside.shape:
        inside |= labels == PADDING
    outside = np.argwhere(~inside)
    if len(outside):
        bad_x, bad_y = points[tuple(outside[0])]
        raise BadInputError(
            f"point ({bad_x:g}, {bad_y:g}) is outside the image of {width}x{height} pixels: "
            "points are (x, y) from its top left corner"
        )


def check_boxes(boxes: NDArray[np.float64], size_hw: tuple[int, int]) -> None:
    """Refuse boxes (N, 4) that are turned around, empty or not on an image of (height, width).

    Raises:
        BadInputError: the first such box.
    """
    height, width = size_hw
    for box in boxes:
        x0, y0, x1, y1 = box
        shown = f"box ({x0:g}, {y0:g}, {x1:g}, {y1:g})"
        if not np.isfinite(box).all():
            raise BadInputError(f"{shown} has a value that is not a number")
        if x1 <= x0 or y1 <= y0:
            raise BadInputError(f"{shown} has no area: give x0, y0, x1, y1 with x1 > x0 and y1 > y0")
        limit_xy = width + _EDGE_TOLERANCE_PX, height + _EDGE_TOLERANCE_PX
        if min(x0, y0) < -_EDGE_TOLERANCE_PX or x1 > limit_xy[0] or y1 > limit_xy[1]:
            raise BadInputError(
                f"{shown} reaches outside the image of {width}x{height} pixels: clip it first"
            )


def _numbers(values: ArrayLike, name: str) -> NDArray[np.float64]:
    try:
        return np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise BadInputError(f"{name} must be numbers in rows of equal length ({error})") from error


def _points(points: ArrayLike, labels: ArrayLike | None, end: bool) -> _Tokens:
    coords = _numbers(points, "points").astype(np.float32)
    if coords.ndim != 3 or coords.shape[2] != 2 or 0 in coords.shape:
        raise BadInputError(f"points have the shape {coords.shape}; N prompts of P points are (N, P, 2)")
    if labels is None:
        raise BadInputError(f"{coords.shape[1]} points have no labels: give 1 (foreground) or 0 (background)")
    marks = np.asarray(labels)
    if marks.shape != coords.shape[:2]:
        raise BadInputError(
            f"point_labels of shape {marks.shape} do not match points of shape {coords.shape}: "
            "give one label for each point"
        )
    unknown = marks[~np.isin(marks, (FOREGROUND, BACKGROUND, PADDING))]
    if unknown.size:
        raise BadInputError(
            f"{unknown.flat[0]} is no point label: use 1 (foreground), 0 (background) or, "
            f"to fill up prompts with fewer points, {PADDING}"
        )
    marks = marks.astype(np.int32)
    if end:
        coords = np.concatenate([coords, np.zeros((len(coords), 1, 2), np.float32)], axis=1)
        marks = np.concatenate([marks, np.full((len(marks), 1), NOT_A_POINT, np.int32)], axis=1)
    return coords, marks


def _corners(boxes: ArrayLike) -> _Tokens:
    corners = _numbers(boxes, "boxes").astype(np.float32)
    if corners.ndim != 2 or corners.shape[1] != 4 or not len(corners):
        raise BadInputError(f"boxes have the shape {corners.shape}; N boxes are (N, 4): x0, y0, x1, y1")
    labels = np.tile(np.array(_BOX_CORNERS, np.int32), (len(corners), 1))
    return corners.reshape(-1, 2, 2), labels


def _dense(masks: ArrayLike) -> NDArray[np.float32]:
    logits = np.asarray(masks, dtype=np.float32)
    square = logits.ndim == 4 and logits.shape[1] == 1 and logits.shape[2] == logits.shape[3]
    if not square or not len(logits):
        raise BadInputError(
            f"mask_input has the shape {logits.shape}; it is (1, 256, 256) for one prompt and "
            "(N, 1, 256, 256) for N: give low-resolution logits of an earlier prediction"
        )
    if not np.isfinite(logits).all():
        raise BadInputError("mask_input has values that are not finite: give the logits of a prediction")
    return logits[:, 0]
