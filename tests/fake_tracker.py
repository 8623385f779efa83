"""A tracker that needs no model: an object is all pixels of the colour that it had where it was prompted."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from clips import write_frames
from numpy.typing import NDArray

from seg_runtime.video import FrameSource

DISCS = {1: (220, 40, 40), 2: (40, 200, 60)}
"""RGB of the discs in a clip of `disc_frame`, by the object that they are."""

BACKGROUND = (90, 90, 110)


def disc_center(number: int, index: int) -> tuple[int, int]:
    """(x, y) of a disc in a frame: 1 goes right, 2 goes up."""
    return (20 + 2 * index, 30) if number == 1 else (100, 80 - index)


def disc_frame(index: int, size_hw: tuple[int, int] = (96, 128)) -> NDArray[np.uint8]:
    frame = np.full((*size_hw, 3), BACKGROUND, np.uint8)
    for number, color in DISCS.items():
        cv2.circle(frame, disc_center(number, index), 12, color, -1)
    return frame


def disc_clip(path: Path, count: int = 20) -> Path:
    return write_frames(path, [disc_frame(index) for index in range(count)])


@dataclass
class State:
    source: FrameSource
    colors: dict[int, NDArray[np.float64]] = field(default_factory=dict)
    first: int | None = None
    closed: bool = False

    def __enter__(self) -> State:
        return self

    def __exit__(self, *error: object) -> None:
        self.closed = True


@dataclass
class ColorTracker:
    """sam2's signatures; `before_frame` is called with each index, and may raise."""

    before_frame: Callable[[int], None] = lambda index: None
    states: list[State] = field(default_factory=list)
    calls: list[tuple[Any, ...]] = field(default_factory=list)
    engine: str = "colours"

    def init_state(self, source: FrameSource) -> State:
        self.states.append(State(source))
        return self.states[-1]

    def add_new_points_or_box(
        self,
        inference_state: State,
        frame_idx: int,
        obj_id: int,
        points: NDArray[np.float32] | None = None,
        labels: NDArray[np.int32] | None = None,
        clear_old_points: bool = True,
        normalize_coords: bool = True,
        box: NDArray[np.float32] | None = None,
    ) -> None:
        self.calls.append(
            (
                "prompt",
                frame_idx,
                obj_id,
                *(None if value is None else value.tolist() for value in (points, labels, box)),
            )
        )
        x, y = points[0] if points is not None else (box[:2] + box[2:]) / 2
        self._learn(inference_state, frame_idx, obj_id, np.s_[int(y) : int(y) + 1, int(x) : int(x) + 1])

    def add_new_mask(
        self, inference_state: State, frame_idx: int, obj_id: int, mask: NDArray[np.bool_]
    ) -> None:
        self.calls.append(("mask", frame_idx, obj_id, int(mask.sum())))
        self._learn(inference_state, frame_idx, obj_id, mask)

    def propagate_in_video(
        self, inference_state: State
    ) -> Iterator[tuple[int, list[int], NDArray[np.float32]]]:
        source, index = inference_state.source, inference_state.first or 0
        while source.frame_count is None or index < source.frame_count:
            frame = source.frame(index).astype(np.float64)
            self.before_frame(index)
            ids = sorted(inference_state.colors)
            far = [np.abs(frame - inference_state.colors[number]).max(axis=2) for number in ids]
            yield index, ids, (40 - np.stack(far)[:, None]).astype(np.float32) / 10
            index += 1

    def _learn(self, state: State, frame_idx: int, obj_id: int, where: Any) -> None:
        state.colors[obj_id] = state.source.frame(frame_idx)[where].reshape(-1, 3).mean(axis=0)
        state.first = frame_idx if state.first is None else min(state.first, frame_idx)
