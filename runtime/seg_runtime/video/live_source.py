"""Frames of a camera or an address, as they come: nobody can go back, and nobody knows the end."""

from __future__ import annotations

import re
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from seg_runtime.errors import BadVideoError, FrameNotFoundError, VideoEndedError
from seg_runtime.video import capture as captures
from seg_runtime.video.source import FrameSource

if TYPE_CHECKING:
    import cv2

__all__ = ["LiveSource"]

_FPS = 30.0


class LiveSource(FrameSource):
    """See `FrameSource` and `open_video`. Frames count from the first that was read."""

    frame_count = None

    def __init__(self, target: int | str, *, latest: bool = False) -> None:
        import cv2

        super().__init__()
        self.name = f"camera {target}" if isinstance(target, int) else _without_password(target)
        opened = captures.open_capture(target)
        if opened is None:
            raise BadVideoError(_refused(target, self.name))
        fps = opened.get(cv2.CAP_PROP_FPS)
        self.fps = fps if 1 <= fps <= 240 else _FPS
        self._announced = int(opened.get(cv2.CAP_PROP_FRAME_COUNT)) if isinstance(target, str) else 0
        # A file behind an address waits for us; a camera does not.
        self._reader = _Reader(opened, latest and self._announced <= 0)
        self._next = 0
        first = self._reader.take()
        if first is None:
            self.close()
            raise BadVideoError(f"{self.name} is there and gives no frames: is another program using it?")
        self._first: NDArray[np.uint8] | None = first
        self.size_hw = (first.shape[0], first.shape[1])

    def _read(self, index: int) -> NDArray[np.uint8]:
        if index < self._next:
            raise FrameNotFoundError(f"frame {index} of {self.name} has passed: a stream cannot go back")
        pixels = self._take()
        while self._next <= index:
            pixels = self._take()
        return pixels

    def _take(self) -> NDArray[np.uint8]:
        pixels, self._first = (self._first if self._first is not None else self._reader.take()), None
        if pixels is None and 0 < self._announced <= self._next:
            raise FrameNotFoundError(f"{self.name} ended after {self._next} frames")
        if pixels is None:
            raise VideoEndedError(f"{self.name} gave no more frames after {self._next}", self._next)
        self._next += 1
        return pixels

    def close(self) -> None:
        """Give the camera back; calling it again does nothing."""
        self._reader.close()


class _Reader:
    """Takes frames from a capture: one by one, or always the newest, which a thread keeps ready."""

    def __init__(self, capture: cv2.VideoCapture, latest: bool) -> None:
        self._capture = capture
        self._changed = threading.Condition()
        self._newest: NDArray[np.uint8] | None = None
        self._stopped = False
        self._thread = threading.Thread(target=self._keep_newest, daemon=True) if latest else None
        if self._thread:
            self._thread.start()

    def take(self) -> NDArray[np.uint8] | None:
        """The next frame, (H, W, 3) RGB; None when there will be no more, or none within `TIMEOUT_S`."""
        if self._thread is None:
            return self._decode()
        with self._changed:
            ready = self._changed.wait_for(
                lambda: self._newest is not None or self._stopped, timeout=captures.TIMEOUT_S
            )
            pixels, self._newest = self._newest, None
        return pixels if ready else None

    def close(self) -> None:
        with self._changed:
            self._stopped = True
        if self._thread is not None:
            self._thread.join(captures.TIMEOUT_S)
            if self._thread.is_alive():
                # Releasing a capture that a driver is stuck in would crash; the process's end frees it.
                return
        self._capture.release()

    def _keep_newest(self) -> None:
        pixels: NDArray[np.uint8] | None = None
        while not self._stopped:
            pixels = self._decode()
            with self._changed:
                self._newest = pixels if pixels is not None else self._newest
                self._stopped = self._stopped or pixels is None
                self._changed.notify()

    def _decode(self) -> NDArray[np.uint8] | None:
        import cv2

        read, pixels = self._capture.read()
        if not read:
            return None
        return np.asarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB), dtype=np.uint8)


def _without_password(address: str) -> str:
    return re.sub(r"//[^/@]*@", "//", address)


def _refused(target: int | str, name: str) -> str:
    if isinstance(target, str):
        return f"cannot open {name}: nothing answers there, or it is no video"
    there = sorted(int(node.name[5:]) for node in Path("/dev").glob("video*") if node.name[5:].isdecimal())
    cameras = f"cameras here: {', '.join(map(str, there))}" if there else "no camera is connected"
    return f"cannot open {name}: {cameras}"
