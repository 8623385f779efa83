"""Draws objects over their image: masks, boxes, and names with scores that can be read on any background."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from seg_runtime.files.overlay import distinct_colors
from seg_runtime.instances import InstanceResult
from seg_runtime.paste import MaskCrop

__all__ = ["draw_instances"]

_PLATE, _TEXT, _OUTLINE = (16, 16, 16), (255, 255, 255), (16, 16, 16)
_ALPHA = 0.4
_SMALL = 4.0
"""An object is small whose box is less than so many plates large."""


def draw_instances(image: NDArray[np.uint8], result: InstanceResult) -> NDArray[np.uint8]:
    """Tint each mask, frame each object, and write its class and score on a dark plate.

    Colours tell neighbours apart, not classes. The best object lies on top, and lines and letters grow with
    the image. A plate stands above its object, else below it, else inside a large one, and is left out where
    it would hide the plate of a better object, a small object or the middle of a large one.

    Args:
        image: (H, W, 3) uint8 RGB.
        result: of this image.

    Returns:
        (H, W, 3) uint8 RGB; the image is not changed.
    """
    canvas = image.copy()
    thickness = max(1, round(min(image.shape[:2]) / 500))
    order = range(len(result) - 1, -1, -1)
    crops = result.crops
    colors = distinct_colors(((crop.mask, crop.origin_xy) for crop in reversed(crops)), result.size_hw)[::-1]
    for index in order:
        _draw_mask(canvas, crops[index], colors[index], thickness)
    for index in order:
        _draw_box(canvas, result.boxes_xyxy[index], colors[index], thickness)
    for index, plate in _plates(result, thickness).items():
        _draw_plate(canvas, plate, colors[index], thickness)
    return canvas


def _draw_mask(
    canvas: NDArray[np.uint8], crop: MaskCrop, color: tuple[int, int, int], thickness: int
) -> None:
    import cv2

    if not crop.mask.size:
        return
    x, y = crop.origin_xy
    part = canvas[y : y + crop.mask.shape[0], x : x + crop.mask.shape[1]]
    tint = np.array(color, dtype=np.float32) * _ALPHA
    part[crop.mask] = np.rint(part[crop.mask] * (1 - _ALPHA) + tint).astype(np.uint8)
    contours, _ = cv2.findContours(crop.mask.view(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(canvas, contours, -1, color, thickness, cv2.LINE_AA, offset=crop.origin_xy)


def _draw_box(
    canvas: NDArray[np.uint8], box: NDArray[np.float32], color: tuple[int, int, int], thickness: int
) -> None:
    import cv2

    x0, y0, x1, y1 = (round(float(value)) for value in box)
    cv2.rectangle(canvas, (x0, y0), (x1, y1), _OUTLINE, thickness + 2)
    cv2.rectangle(canvas, (x0, y0), (x1, y1), color, thickness)


@dataclass(frozen=True)
class _Plate:
    """A text and the rectangle that it fills, x0, y0, x1, y1 in pixels, the last ones outside."""

    text: str
    box: tuple[int, int, int, int]
    origin_xy: tuple[int, int]
    scale: float

    def covers(self, x: float, y: float) -> bool:
        x0, y0, x1, y1 = self.box
        return x0 <= x < x1 and y0 <= y < y1

    def overlaps(self, other: Sequence[float]) -> bool:
        x0, y0, x1, y1 = self.box
        return x0 < other[2] and other[0] < x1 and y0 < other[3] and other[1] < y1


def _plates(result: InstanceResult, thickness: int) -> dict[int, _Plate]:
    """Plates by object, the best first, as far as there is room for them."""
    boxes = result.boxes_xyxy
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    centers = (boxes[:, :2] + boxes[:, 2:]) / 2
    placed: dict[int, _Plate] = {}
    for index, (name, score) in enumerate(zip(result.class_names, result.scores, strict=True)):
        for plate in _places(f"{name} {100 * score:.0f}%", boxes[index], result.size_hw, thickness):
            small = areas < _SMALL * (plate.box[2] - plate.box[0]) * (plate.box[3] - plate.box[1])
            hidden = (plate.covers(*center) for number, center in enumerate(centers) if number != index)
            covered = [*(better.box for better in placed.values()), *boxes[small]]
            if not any(hidden) and not any(map(plate.overlaps, covered)):
                placed[index] = plate
                break
    return placed


def _places(
    text: str, box: NDArray[np.float32], size_hw: tuple[int, int], thickness: int
) -> Iterator[_Plate]:
    """Where a plate may stand, the best place first, never over an edge of the image."""
    import cv2

    height, width = size_hw
    scale = max(0.35, min(height, width) / 1600)
    (text_width, text_height), below = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, thickness)
    pad = thickness + 2
    plate_width, plate_height = text_width + 2 * pad, text_height + below + 2 * pad
    top, bottom = round(float(box[1])), round(float(box[3]))
    x = min(max(round(float(box[0])), 0), max(width - plate_width, 0))
    for y in (top - plate_height, bottom, max(top, 0)):
        if 0 <= y <= height - plate_height:
            corners = (x, y, x + plate_width, y + plate_height)
            yield _Plate(text, corners, (x + pad, y + pad + text_height), scale)


def _draw_plate(
    canvas: NDArray[np.uint8], plate: _Plate, color: tuple[int, int, int], thickness: int
) -> None:
    import cv2

    x0, y0, x1, y1 = plate.box
    cv2.rectangle(canvas, (x0, y0), (x1 - 1, y1 - 1), _PLATE, -1)
    cv2.rectangle(canvas, (x0, y0), (x0 + thickness, y1 - 1), color, -1)
    font, line = cv2.FONT_HERSHEY_SIMPLEX, cv2.LINE_AA
    cv2.putText(canvas, plate.text, plate.origin_xy, font, plate.scale, _TEXT, thickness, line)
