"""Checks prompts and takes them to the model's square: points and boxes as points with labels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from seg_runtime.errors import BadInputError
from seg_runtime.sam import prompts
from seg_runtime.sam.prompts import BACKGROUND, FOREGROUND, PADDING, check_boxes, check_points

__all__ = ["NOTHING", "NOT_A_POINT", "Points", "box_points", "click_points", "join", "object_points"]

_CORNERS = (2, 3)
_LABELS = (FOREGROUND, BACKGROUND, *_CORNERS)


@dataclass(frozen=True)
class Points:
    """Points of N prompts, in pixels of the model's input.

    Attributes:
        coords: (N, P, 2) float32, (x, y).
        labels: (N, P) int32: 1 foreground, 0 background, 2 and 3 for the corners of a box, -1 for "not a
            point", -10 where a prompt has fewer points.
    """

    coords: NDArray[np.float32]
    labels: NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.labels)


NOT_A_POINT = Points(np.zeros((1, 1, 2), np.float32), np.full((1, 1), prompts.NOT_A_POINT, np.int32))
"""What sam2 gives its prompt encoder on frames without points: a token that was learned."""

NOTHING = Points(np.zeros((1, 1, 2), np.float32), np.full((1, 1), PADDING, np.int32))
"""No token at all, as sam2 prompts single images with a mask alone."""


def click_points(
    coords: ArrayLike | None, labels: ArrayLike | None, size_hw: tuple[int, int], normalize: bool, side: int
) -> Points | None:
    """Points of an image or frame in the model's pixels; None for none.

    Args:
        coords: (P, 2) or (N, P, 2), (x, y) in pixels of the image, or shares of its sides.
        labels: (P,) or (N, P): 1, 0, also 2 and 3 for the corners of a box, -10 for padding.
        size_hw: (height, width) of the image.
        normalize: whether coordinates are pixels; else they are shares.
        side: S, of the model's input.

    Raises:
        BadInputError: points without labels or the reverse, shapes or labels that cannot be used, a
            point outside the image.
    """
    if coords is None and labels is None:
        return None
    if coords is None or labels is None:
        given, other = ("labels", "points") if coords is None else ("points", "labels")
        raise BadInputError(f"{given} were given without {other}: give both, one label for each point")
    points = _numbers(coords, "points")
    points = points[None] if points.ndim == 2 else points
    if points.ndim != 3 or points.shape[2] != 2:
        raise BadInputError(f"points have the shape {np.shape(coords)}; P points are (P, 2)")
    marks = np.asarray(labels)
    marks = marks[None] if marks.ndim == 1 else marks
    if marks.shape != points.shape[:2]:
        raise BadInputError(
            f"labels of shape {marks.shape} do not match points of shape {points.shape}: "
            "give one label for each point"
        )
    unknown = marks[~np.isin(marks, (*_LABELS, PADDING))]
    if unknown.size:
        raise BadInputError(f"{unknown.flat[0]} is no point label: use 1 (foreground) or 0 (background)")
    check_points(points, marks, size_hw if normalize else (1, 1), 1e-3)
    return Points(_to_model(points, size_hw, normalize, side), marks.astype(np.int32))


def box_points(boxes: ArrayLike, size_hw: tuple[int, int], normalize: bool, side: int) -> Points:
    """Boxes (4,) or (N, 4), x0 y0 x1 y1, as two points each. Raises BadInputError; as `click_points`."""
    corners = _numbers(boxes, "box")
    if corners.size == 0 or corners.shape[-1] != 4 or corners.ndim > 2:
        raise BadInputError(f"box has the shape {corners.shape}; a box is (4,): x0, y0, x1, y1")
    corners = corners.reshape(-1, 4)
    check_boxes(corners, size_hw if normalize else (1, 1))
    labels = np.tile(np.array(_CORNERS, np.int32), (len(corners), 1))
    return Points(_to_model(corners.reshape(-1, 2, 2), size_hw, normalize, side), labels)


def object_points(
    coords: ArrayLike | None,
    labels: ArrayLike | None,
    box: ArrayLike | None,
    size_hw: tuple[int, int],
    normalize: bool,
    side: int,
) -> Points:
    """The points and box of one object on a frame; arguments as of `click_points`. Raises BadInputError."""
    corners = None if box is None else box_points(box, size_hw, normalize, side)
    points = join(corners, click_points(coords, labels, size_hw, normalize, side))
    if points is None or not points.labels.size:
        raise BadInputError("there is no prompt: give points with labels, or a box")
    if len(points) != 1:
        raise BadInputError(f"prompts are for {len(points)} objects: prompt one object at a time")
    return points


def join(first: Points | None, second: Points | None) -> Points | None:
    """The points of both for the same prompts, those of `first` in front.

    Raises:
        BadInputError: they are for different numbers of prompts.
    """
    if first is None or second is None:
        return second if first is None else first
    if len(first) != len(second):
        raise BadInputError(
            f"boxes are for {len(first)} prompts and points for {len(second)}: give each prompt one of each, "
            f"with label {PADDING} where it has fewer points"
        )
    coords = np.concatenate([first.coords, second.coords], axis=1)
    return Points(coords, np.concatenate([first.labels, second.labels], axis=1))


def _to_model(
    coords: NDArray[np.float64], size_hw: tuple[int, int], normalize: bool, side: int
) -> NDArray[np.float32]:
    """In sam2's own order and type, so that the results are the same numbers."""
    scaled = coords.astype(np.float32)
    if normalize:
        scaled = scaled / np.array(size_hw[::-1], np.float32)
    return np.asarray(scaled * np.float32(side), dtype=np.float32)


def _numbers(values: ArrayLike, name: str) -> NDArray[np.float64]:
    try:
        return np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise BadInputError(f"{name} must be numbers in rows of equal length ({error})") from error
