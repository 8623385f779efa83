"""Clips for tracking tests: folders of JPEGs that sam2 reads, and a source of the same frames for us."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

CLIPS = Path(__file__).parent / "data" / "clips"


class FolderSource:
    """The frames of a folder of numbered JPEGs.

    Attributes:
        closed: whether `close` was called.
    """

    def __init__(self, folder: Path, count_is_known: bool = True) -> None:
        self._paths = sorted(folder.glob("*.jpg"))
        self.size_hw = self.frame(0).shape[:2] if self._paths else (0, 0)
        self.frame_count = len(self._paths) if count_is_known else None
        self.closed = False

    def frame(self, index: int) -> NDArray[np.uint8]:
        return np.asarray(Image.open(self._paths[index]).convert("RGB"))

    def __iter__(self) -> Iterator[NDArray[np.uint8]]:
        return (self.frame(index) for index in range(len(self._paths)))

    def close(self) -> None:
        self.closed = True


def write_jpegs(frames: Iterator[NDArray[np.uint8]], folder: Path) -> Path:
    for index, frame in enumerate(frames):
        Image.fromarray(frame).save(folder / f"{index:05d}.jpg", quality=95)
    return folder


def moving_shapes(count: int = 12, size_hw: tuple[int, int] = (120, 200)) -> Iterator[NDArray[np.uint8]]:
    """A red disc and a green square that cross over a textured ground, (H, W, 3) uint8 RGB each."""
    height, width = size_hw
    y, x = np.mgrid[:height, :width]
    ground = 90 + 50 * np.sin(x / 9) * np.cos(y / 7)
    for index in range(count):
        frame = np.repeat(ground[..., None], 3, axis=2).astype(np.uint8)
        at = index / max(1, count - 1)
        cv2.circle(frame, (int(30 + at * (width - 60)), height // 2), 22, (220, 40, 30), -1)
        corner = (int(width - 60 - at * (width - 80)), int(20 + at * 30))
        cv2.rectangle(frame, corner, (corner[0] + 36, corner[1] + 30), (30, 200, 60), -1)
        yield frame


def video_frames(name: str, count: int) -> Iterator[NDArray[np.uint8]]:
    """The first frames of a clip of `CLIPS`, (H, W, 3) uint8 RGB each."""
    capture = cv2.VideoCapture(str(CLIPS / name))
    try:
        for _ in range(count):
            found, frame = capture.read()
            assert found
            yield np.ascontiguousarray(frame[..., ::-1])
    finally:
        capture.release()
