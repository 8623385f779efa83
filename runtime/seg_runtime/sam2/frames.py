"""Frames of a video by index, read as a stream and stretched to the model's square."""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from seg_runtime.errors import BadImageError, BadInputError

__all__ = ["FrameReader", "FrameSource", "Video"]


class FrameSource(Protocol):
    """What is read of a video, as `seg_runtime.video.open_video` gives it.

    Attributes:
        size_hw: (height, width) of every frame in pixels.
        frame_count: None when the end is not known, as with a camera; then only `__iter__` is used.
    """

    @property
    def size_hw(self) -> tuple[int, int]: ...

    @property
    def frame_count(self) -> int | None: ...

    def frame(self, index: int) -> NDArray[np.uint8]:
        """(H, W, 3) uint8 RGB."""

    def __iter__(self) -> Iterator[NDArray[np.uint8]]: ...

    def close(self) -> None: ...


Video = str | int | os.PathLike[str] | FrameSource
"""A path, address or camera that `open_video` takes, or a source that is open already."""


class FrameReader:
    """One video as the tracker reads it. Holds no frame, but the newest one of an endless source.

    Args:
        video: a path, address or camera, closed with the reader, or a source, which stays the caller's.

    Attributes:
        size_hw: (height, width) of the frames.
        count: number of frames; None while the end is not known: such a video is read forwards only.

    Raises:
        BadInputError: the video has no frames, or as from `open_video`.
    """

    def __init__(self, video: Video) -> None:
        self._owned = isinstance(video, str | int | os.PathLike)
        self._source = _open(video) if isinstance(video, str | int | os.PathLike) else video
        self.count: int | None = self._source.frame_count
        self._newest: tuple[int, NDArray[np.uint8]] | None = None
        self._stream = iter(self._source) if self.count is None else None
        if not self.has(0):
            self.close()
            raise BadInputError("the video has no frames: give one with at least one frame")
        height, width = self._source.size_hw
        self.size_hw = (height, width)

    @property
    def newest(self) -> int:
        """Index of the frame read last of a source without a known end."""
        return self._newest[0] if self._newest else -1

    def has(self, index: int) -> bool:
        """Whether there is such a frame. An endless source is read up to it."""
        if self.count is not None:
            return 0 <= index < self.count
        while self.newest < index and self._advance():
            pass
        return 0 <= index <= self.newest

    def square(self, index: int, side: int) -> NDArray[np.uint8]:
        """A frame as (side, side, 3) uint8, resized as sam2 resizes JPEG frames (Pillow's bicubic).

        Raises:
            BadInputError: there is no such frame, or it has passed by.
            BadImageError: it has another size than the first.
        """
        from PIL import Image

        frame = np.ascontiguousarray(self._frame(index))
        if frame.shape != (*self.size_hw, 3):
            height, width = self.size_hw
            raise BadImageError(
                f"frame {index} has the shape {frame.shape}, and the video is of {width}x{height} pixels: "
                "split the video where its size changes"
            )
        return np.asarray(Image.fromarray(frame).resize((side, side), Image.Resampling.BICUBIC))

    def close(self) -> None:
        """Close the source if it was opened here."""
        self._stream = self._newest = None
        if self._owned:
            self._source.close()

    def _frame(self, index: int) -> NDArray[np.uint8]:
        if not self.has(index):
            raise BadInputError(no_such_frame(index, self.count, self.newest))
        if self.count is not None or self._newest is None:
            return self._source.frame(index)
        newest, frame = self._newest
        if index != newest:
            raise BadInputError(
                f"frame {index} has passed by, the newest is {newest}: a camera or stream cannot go back, "
                "so give prompts on the newest frame and track forwards"
            )
        return frame

    def _advance(self) -> bool:
        frame = None if self._stream is None else next(self._stream, None)
        if frame is None:
            return False
        self._newest = (self.newest + 1, frame)
        return True


def no_such_frame(index: int, count: int | None, newest: int) -> str:
    """One line about a frame that a video does not have."""
    if count is None:
        return f"there is no frame {index}: the video ended after frame {newest}"
    return f"there is no frame {index}: the video has {count} frames, 0 to {count - 1}"


def _open(video: str | int | os.PathLike[str]) -> FrameSource:
    opened: FrameSource = importlib.import_module("seg_runtime.video").open_video(video)
    return opened
