"""Points and boxes as a person gives them, grouped into one prompt per object."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from seg_runtime.errors import BadInputError
from seg_runtime.files.masks import read_shape
from seg_runtime.sam.prompts import PADDING, check_boxes, check_points
from seg_runtime.sam.transforms import ResizeLongestSide

__all__ = ["ObjectPrompts", "group_prompts", "read_mask_input"]

_SURE_LOGIT = 10.0


@dataclass(frozen=True)
class ObjectPrompts:
    """One prompt for each of N objects, in the encoder's frame, for `SamPredictor.predict_chunks`.

    Attributes:
        points: (N, P, 2) float64, (x, y), or None.
        labels: (N, P) int32, -10 where an object has fewer points, or None.
        boxes: (N, 4) float64, or None.
        masks: (N, 1, 256, 256) float32 logits, or None.
    """

    points: NDArray[np.float64] | None
    labels: NDArray[np.int32] | None
    boxes: NDArray[np.float64] | None
    masks: NDArray[np.float32] | None

    def __len__(self) -> int:
        for values in (self.boxes, self.points, self.masks):
            if values is not None:
                return len(values)
        return 0


def group_prompts(
    points: Sequence[tuple[float, float, int]],
    boxes: Sequence[tuple[float, float, float, float]],
    mask: NDArray[np.float32] | None,
    transform: ResizeLongestSide,
    size_hw: tuple[int, int],
) -> ObjectPrompts:
    """One object per box, or one for everything when there is at most one box.

    With several boxes a point belongs to every box that it lies in.

    Args:
        points: (x, y, label) in pixels of the image; label 1 foreground, 0 background.
        boxes: x0, y0, x1, y1 in pixels of the image.
        mask: (256, 256) logits for the only object, or None.
        transform: to the encoder's frame.
        size_hw: (height, width) of the image.

    Raises:
        BadInputError: nothing given, something outside the image, a box with x1 <= x0, a point in none
            of several boxes, or a mask for several objects.
    """
    if not points and not boxes and mask is None:
        raise BadInputError("there is no prompt: give a point, a box or a mask")
    count = max(len(boxes), 1)
    if mask is not None and count > 1:
        raise BadInputError(f"a mask refines one object and there are {count} boxes: give one box at most")
    corners = np.array(boxes, dtype=np.float64).reshape(-1, 4)
    check_boxes(corners, size_hw)
    places = np.array([(x, y) for x, y, _ in points], dtype=np.float64).reshape(-1, 2)
    marks = np.array([label for _, _, label in points], dtype=np.int32)
    check_points(places[None], None, size_hw)
    labels = np.tile(marks, (count, 1))
    if count > 1 and len(marks):
        x0, y0, x1, y1 = (corners[:, index, None] for index in range(4))
        inside = (places[:, 0] >= x0) & (places[:, 0] <= x1) & (places[:, 1] >= y0) & (places[:, 1] <= y1)
        if not inside.any(axis=0).all():
            x, y = places[np.flatnonzero(~inside.any(axis=0))[0]]
            raise BadInputError(f"point ({x:g}, {y:g}) is in none of the {count} boxes: it refines no object")
        labels[~inside] = PADDING
    return ObjectPrompts(
        points=np.tile(transform.apply_coords(places, size_hw), (count, 1, 1)) if len(marks) else None,
        labels=labels if len(marks) else None,
        boxes=transform.apply_boxes(corners, size_hw) if len(corners) else None,
        masks=None if mask is None else mask[None, None],
    )


def read_mask_input(
    path: Path, transform: ResizeLongestSide, size_hw: tuple[int, int]
) -> NDArray[np.float32]:
    """A mask prompt from a file.

    Args:
        path: `.npy` with the (256, 256) or (1, 256, 256) logits of an earlier answer, or a mask of
            the size of the segmented image, see `seg_runtime.files.masks`.
        transform: to the encoder's frame.
        size_hw: (height, width) of the segmented image.

    Returns:
        (256, 256) float32 logits.

    Raises:
        BadInputError: a file that cannot be read, is empty or ambiguous, or has another size.
    """
    side = transform.target_length // 4
    if path.suffix == ".npy":
        try:
            logits = np.load(path, allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise BadInputError(f"cannot read mask '{path}': {error}") from error
        if logits.shape not in ((side, side), (1, side, side)):
            raise BadInputError(f"mask '{path}' has the shape {logits.shape}: wanted {side}x{side} logits")
        return np.asarray(logits.reshape(side, side), dtype=np.float32)
    mask = read_shape(path).foreground
    if mask.shape != size_hw:
        raise BadInputError(
            f"mask '{path}' has {mask.shape[1]}x{mask.shape[0]} pixels and the image "
            f"{size_hw[1]}x{size_hw[0]}: give a mask of the image's size"
        )
    if not mask.any():
        raise BadInputError(f"mask '{path}' is empty: it shows no object")
    resized = transform.apply_image(np.repeat(mask[..., None], 3, axis=2).astype(np.uint8) * np.uint8(255))
    square = np.zeros((4 * side, 4 * side), np.float32)
    square[: resized.shape[0], : resized.shape[1]] = resized[..., 0]
    shares = square.reshape(side, 4, side, 4).mean(axis=(1, 3)) / 255
    return np.asarray((2 * shares - 1) * _SURE_LOGIT, dtype=np.float32)
