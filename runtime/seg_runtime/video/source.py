"""What every source of frames can do, whether it can go back or not."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Iterator
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from seg_runtime.errors import FrameNotFoundError, VideoEndedError

__all__ = ["FrameSource"]

_HELD_BYTES = 64 * 2**20
_HELD_FRAMES = 4, 16
"""Frames that a source keeps at least and at most; between them, as many as fit into `_HELD_BYTES`."""


class FrameSource(ABC):
    """Frames of one size, read when asked for; a `with` block closes it.

    Attributes:
        name: what it was opened by, fit to be shown: an address without its password.
        size_hw: (height, width) of every frame in pixels.
        frame_count: how many frames there are; None for cameras and streams, where nobody knows.
        fps: frames per second; of a file with a variable rate the mean.
        times_s: (frames,) float64, the second in which each frame appears, from 0, as a file's container
            says; None elsewhere, and for files without times or with times that go back.
        names: a name per frame, the stems of a folder's files; None elsewhere.
        note: what a person should know about the source, in one line; None when all is well.
    """

    name: str
    size_hw: tuple[int, int]
    frame_count: int | None
    fps: float
    times_s: NDArray[np.float64] | None = None
    names: tuple[str, ...] | None = None
    note: str | None = None

    def __init__(self) -> None:
        self._held: OrderedDict[int, NDArray[np.uint8]] = OrderedDict()

    def frame(self, index: int) -> NDArray[np.uint8]:
        """The frame of an index, counted from 0 in the order of decoding.

        The last few frames are kept (see `capacity`), so that drawing what was just tracked decodes nothing
        again. Asking for the next one is cheapest.

        Returns:
            (H, W, 3) uint8 RGB; shared, so it cannot be written to.

        Raises:
            FrameNotFoundError: there is none, or it has passed and the source cannot go back.
            VideoEndedError: the source broke off before it.
        """
        index = int(index)
        if index in self._held:
            return self._held[index]
        if index < 0 or (self.frame_count is not None and index >= self.frame_count):
            raise FrameNotFoundError(f"there is no frame {index} in '{self.name}': {self._extent()}")
        return self._hold(index, self._read(index))

    def time_s(self, index: int) -> float | None:
        """Seconds from the first frame to this one: as the file says, else at `fps`; None for streams."""
        if self.times_s is not None:
            return round(float(self.times_s[index]), 6)
        return None if self.frame_count is None else round(index / self.fps, 6)

    @property
    def capacity(self) -> int:
        """How many frames are kept: 16 of up to 1 million pixels, 4 of 5 million and more."""
        least, most = _HELD_FRAMES
        return min(max(_HELD_BYTES // (3 * self.size_hw[0] * self.size_hw[1]), least), most)

    def __iter__(self) -> Iterator[NDArray[np.uint8]]:
        """All frames from the first; raises VideoEndedError after the last one of a source that broke off."""
        index = 0
        while self.frame_count is None or index < self.frame_count:
            try:
                pixels = self.frame(index)
            except FrameNotFoundError:
                # A stream of unknown length came to its end.
                if self.frame_count is None and index:
                    return
                raise
            yield pixels
            index += 1

    @abstractmethod
    def _read(self, index: int) -> NDArray[np.uint8]:
        """Decode a frame that exists as far as `frame_count` tells; a new (H, W, 3) RGB array."""

    @abstractmethod
    def close(self) -> None:
        """Give back the file or the camera; calling it again does nothing."""

    def __enter__(self) -> FrameSource:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _hold(self, index: int, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        self._check(index, pixels)
        pixels.flags.writeable = False
        self._held[index] = pixels
        if len(self._held) > self.capacity:
            self._held.popitem(last=False)
        return pixels

    def _check(self, index: int, pixels: NDArray[np.uint8]) -> None:
        if pixels.shape[:2] == self.size_hw:
            return
        height, width = pixels.shape[:2]
        raise VideoEndedError(
            f"frame {index} of '{self.name}' has {width}x{height} pixels and those before it "
            f"{self.size_hw[1]}x{self.size_hw[0]}: a video has frames of one size",
            index,
        )

    def _extent(self) -> str:
        count = self.frame_count
        if count is None:
            return "frames of a stream count from 0"
        return f"it has {count} frame{'' if count == 1 else 's'}, 0 to {count - 1}"
