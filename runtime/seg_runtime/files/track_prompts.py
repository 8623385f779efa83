"""Prompts for tracking as a person gives them, grouped into one call per object and frame."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from seg_runtime.errors import BadInputError, FrameNotFoundError
from seg_runtime.files.images import read_image
from seg_runtime.files.indexed import VOID, indexed_labels
from seg_runtime.sam.prompts import check_boxes, check_points
from seg_runtime.video.source import FrameSource

__all__ = [
    "BoxPrompt",
    "MaskPrompt",
    "ObjectPrompt",
    "PointPrompt",
    "group_track_prompts",
    "read_mask_prompts",
]


@dataclass(frozen=True)
class PointPrompt:
    """A pixel of an object (label 1) or not of it (label 0), (x, y) in pixels of the video."""

    x: float
    y: float
    label: int = 1
    frame: int = 0
    object_id: int = 1


@dataclass(frozen=True)
class BoxPrompt:
    """A box around an object, x0, y0, x1, y1 in pixels of the video."""

    box_xyxy: tuple[float, float, float, float]
    frame: int = 0
    object_id: int = 1


@dataclass(frozen=True)
class MaskPrompt:
    """The object itself: (H, W) bool in the size of the video."""

    mask: NDArray[np.bool_]
    frame: int = 0
    object_id: int = 1


PromptT = TypeVar("PromptT", PointPrompt, BoxPrompt, MaskPrompt)


@dataclass(frozen=True)
class ObjectPrompt:
    """All that is said about one object in one frame: points and a box, or a mask.

    Attributes:
        frame: its index.
        object_id: from 1.
        points_xy: (P, 2) float32, (x, y) in pixels of the video; P may be 0.
        labels: (P,) int32, 1 foreground, 0 background.
        box_xyxy: (4,) float32, or None.
        mask: (H, W) bool, or None.
    """

    frame: int
    object_id: int
    points_xy: NDArray[np.float32]
    labels: NDArray[np.int32]
    box_xyxy: NDArray[np.float32] | None = None
    mask: NDArray[np.bool_] | None = None


def group_track_prompts(
    points: Sequence[PointPrompt],
    boxes: Sequence[BoxPrompt],
    masks: Sequence[MaskPrompt],
    source: FrameSource,
) -> list[ObjectPrompt]:
    """One prompt per frame and object, in the order of frames and ids.

    Raises:
        BadInputError: nothing given, something outside the frame, an id below 1, two boxes or masks for one
            object in one frame, or a mask beside points or a box; another frame than the first of a stream.
        FrameNotFoundError: a frame that the video does not have.
    """
    given: list[PointPrompt | BoxPrompt | MaskPrompt] = [*points, *boxes, *masks]
    if not given:
        raise BadInputError("there is nothing to track: give a point, a box or a mask of an object")
    for prompt in given:
        _check_place(prompt.frame, prompt.object_id, source)
    places = sorted({(prompt.frame, prompt.object_id) for prompt in given})
    return [
        _group(place, _at(place, points), _at(place, boxes), _at(place, masks), source.size_hw)
        for place in places
    ]


def read_mask_prompts(
    path: Path, frame: int, object_id: int | None, size_hw: tuple[int, int], default_id: int = 1
) -> list[MaskPrompt]:
    """Objects of a mask file.

    Args:
        path: an image in the size of the video. An indexed PNG, as DAVIS has them, holds an object for each
            id but 0 and 255; of any other image, or with an `object_id`, all that is not 0 is one object.
        frame: which frame it shows.
        object_id: the object that it is; None to take the file's ids, or `default_id`.
        size_hw: (height, width) of the video.
        default_id: of the one object of an image without ids.

    Raises:
        BadInputError: it cannot be read, is empty, or has another size.
    """
    ids = indexed_labels(path)
    labels = read_image(path, 1, gray=True) if ids is None else ids
    if labels.shape != size_hw:
        raise BadInputError(
            f"mask '{path}' has {labels.shape[1]}x{labels.shape[0]} pixels and the video "
            f"{size_hw[1]}x{size_hw[0]}: give a mask of the video's size"
        )
    shown = [] if ids is None else [int(number) for number in np.unique(ids) if number not in (0, VOID)]
    if shown and object_id is None:
        found = {number: labels == number for number in shown}
    else:
        # White in an indexed PNG is void beside ids, and the object where there are none.
        number = default_id if object_id is None else object_id
        found = {number: np.isin(labels, shown) if shown else labels > 0}
    if not any(mask.any() for mask in found.values()):
        raise BadInputError(f"mask '{path}' is empty: it shows no object")
    return [MaskPrompt(np.asarray(mask), frame, number) for number, mask in found.items()]


def _check_place(frame: int, object_id: int, source: FrameSource) -> None:
    if object_id < 1:
        raise BadInputError(f"objects are numbered from 1, not {object_id}")
    if source.frame_count is None and frame != 0:
        raise BadInputError(
            f"a prompt on frame {frame} of {source.name}: a stream is tracked as it comes, so prompts belong "
            "to its first frame (0)"
        )
    if frame < 0 or (source.frame_count is not None and frame >= source.frame_count):
        raise FrameNotFoundError(
            f"a prompt on frame {frame}: '{source.name}' has {source.frame_count} frames, "
            f"0 to {(source.frame_count or 1) - 1}"
        )


def _at(place: tuple[int, int], prompts: Sequence[PromptT]) -> list[PromptT]:
    return [prompt for prompt in prompts if (prompt.frame, prompt.object_id) == place]


def _group(
    place: tuple[int, int],
    points: list[PointPrompt],
    boxes: list[BoxPrompt],
    masks: list[MaskPrompt],
    size_hw: tuple[int, int],
) -> ObjectPrompt:
    frame, number = place
    where = f"object {number} in frame {frame}"
    for kind, prompts in (("boxes", boxes), ("masks", masks)):
        if len(prompts) > 1:
            raise BadInputError(
                f"{where} has {len(prompts)} {kind}: give one, or tell objects apart with #1, #2, ..."
            )
    if masks and (points or boxes):
        raise BadInputError(f"{where} has a mask and points or a box: a mask says it all, give one of them")
    places = np.array([(point.x, point.y) for point in points], dtype=np.float64).reshape(-1, 2)
    check_points(places[None], None, size_hw)
    corners = np.array([box.box_xyxy for box in boxes], dtype=np.float64).reshape(-1, 4)
    check_boxes(corners, size_hw)
    labels = np.array([point.label for point in points], dtype=np.int32)
    box = corners[0].astype(np.float32) if len(corners) else None
    return ObjectPrompt(
        frame, number, places.astype(np.float32), labels, box, masks[0].mask if masks else None
    )
