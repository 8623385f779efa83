"""Frames of a video file, exact by index: OpenCV's seek is checked against the time of every frame."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from seg_runtime.errors import BadVideoError, VideoEndedError
from seg_runtime.video.capture import open_capture
from seg_runtime.video.container import is_complete
from seg_runtime.video.source import FrameSource

if TYPE_CHECKING:
    import cv2

__all__ = ["VideoFileSource"]

_READ_ON = 32
"""So many frames ahead are decoded and thrown away; a seek starts at a key frame, often further back."""

_FPS = 25.0
"""Where a file does not say."""

_CLAIM_TOLERANCE = 0.02
"""Containers without an index estimate their frames from duration and rate."""


class VideoFileSource(FrameSource):
    """See `FrameSource` and `open_video`.

    Opening decodes the file once, without converting pixels, for the exact number of frames and the time
    of each. A seek is believed when the time of the frame it lands on is known and not past the wanted one;
    else the file is opened again and read on from its start, which is slow and exact.
    """

    def __init__(self, path: Path, *, allow_truncated: bool = False) -> None:
        super().__init__()
        self.name = str(path)
        _check_file(path)
        # An absolute path cannot be taken for one of FFmpeg's protocols ("concat:...").
        self._path = path.resolve()
        complete = is_complete(self._path)
        self._capture = open_capture(str(self._path))
        if self._capture is None:
            raise BadVideoError(
                f"video '{path}' is cut off and has lost its index: no frame can be read, copy it again"
                if complete is False
                else f"cannot read video '{path}': OpenCV's FFmpeg does not know what it is"
            )
        try:
            claimed = self._claimed()
            self._times_ms, damaged = self._scan(complete is False, claimed)
            self.frame_count = len(self._times_ms)
            self._check_count(self.frame_count, claimed, complete, damaged, allow_truncated)
            self._seekable = bool(np.all(np.diff(self._times_ms) > 0))
            self._reopen()
            self._grab()
            first = self._retrieve()
        except BaseException:
            self.close()
            raise
        self.size_hw = (first.shape[0], first.shape[1])

    def _scan(self, cut_off: bool, claimed: int) -> tuple[NDArray[np.float64], bool]:
        """(frames,) time of each frame in ms, as the decoder gives them; whether some follow a failure."""
        import cv2

        times = []
        capture = self._open_capture()
        while capture.grab():
            times.append(capture.get(cv2.CAP_PROP_POS_MSEC))
        # At the end of a sound file nothing follows; after damaged bytes the decoder finds frames again.
        damaged = any(capture.grab() for _ in range(claimed - len(times)))
        # The last frame of a file that was cut off is a part of one, which FFmpeg fills up by guessing.
        return np.array(times[:-1] if cut_off else times, dtype=np.float64), damaged

    def _claimed(self) -> int:
        import cv2

        capture = self._open_capture()
        fps = capture.get(cv2.CAP_PROP_FPS)
        self.fps = fps if 0 < fps <= 1000 else _FPS
        return max(int(capture.get(cv2.CAP_PROP_FRAME_COUNT)), 0)

    def _check_count(
        self, count: int, claimed: int, complete: bool | None, damaged: bool, allow_truncated: bool
    ) -> None:
        if not count:
            raise BadVideoError(f"video '{self.name}' has no frames that can be read")
        short = claimed - count > max(2, _CLAIM_TOLERANCE * claimed)
        found = f"{count} of the {claimed} frames that it announces can be read"
        state = "damaged in the middle" if damaged else "cut off"
        if damaged or complete is False or (complete is None and short):
            if not allow_truncated:
                raise BadVideoError(
                    f"video '{self.name}' is {state}: {found}; copy it again, or use those with "
                    "--allow-truncated (allow_truncated=True)"
                )
            self.note = f"'{self.name}' is {state}: {found}"
        elif short:
            # Editors hide frames in whole files too, so this is no error.
            self.note = f"'{self.name}': {found}"

    def _read(self, index: int) -> NDArray[np.uint8]:
        if index < self._grabbed:
            # Each seek decodes from a key frame on: who goes back frame by frame gets several at once.
            first = max(index - self.capacity + 2, 0) if self._grabbed - index <= self.capacity else index
            self._seek(first)
            for before in range(max(first, self._grabbed), index):
                self._hold(before, self._decode(before))
        elif index - self._grabbed > _READ_ON:
            self._seek(index)
        return self._decode(index)

    def _decode(self, index: int) -> NDArray[np.uint8]:
        while self._grabbed < index:
            if not self._grab():
                raise VideoEndedError(
                    f"video '{self.name}' broke off at frame {self._grabbed + 1} of {self.frame_count}: "
                    "it changed or became unreadable while it was read",
                    self._grabbed + 1,
                )
        return self._retrieve()

    def _seek(self, index: int) -> None:
        import cv2

        if self._seekable:
            capture = self._open_capture()
            capture.set(cv2.CAP_PROP_POS_FRAMES, index)
            landed = capture.grab()
            time_ms = capture.get(cv2.CAP_PROP_POS_MSEC)
            place = int(np.searchsorted(self._times_ms, time_ms))
            if landed and place <= index and self._times_ms[place] == time_ms:
                self._grabbed = place
                return
        self._reopen()

    def _reopen(self) -> None:
        self.close()
        self._capture = open_capture(str(self._path))
        if self._capture is None:
            raise VideoEndedError(f"video '{self.name}' can no longer be read", 0)
        self._grabbed = -1

    def _grab(self) -> bool:
        grabbed = self._open_capture().grab()
        self._grabbed += int(grabbed)
        return grabbed

    def _retrieve(self) -> NDArray[np.uint8]:
        import cv2

        retrieved, pixels = self._open_capture().retrieve()
        if not retrieved:
            raise VideoEndedError(f"frame {self._grabbed} of '{self.name}' cannot be decoded", self._grabbed)
        return np.asarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB), dtype=np.uint8)

    def _open_capture(self) -> cv2.VideoCapture:
        if self._capture is None:
            raise BadVideoError(f"video '{self.name}' is closed: open it again")
        return self._capture

    def close(self) -> None:
        """Close the file; calling it again does nothing."""
        if self._capture is not None:
            self._capture.release()
            self._capture = None


def _check_file(path: Path) -> None:
    try:
        size = path.stat().st_size
        if not path.is_file():
            raise BadVideoError(f"cannot read video '{path}': it is not a regular file")
        with path.open("rb"):
            pass
    except FileNotFoundError as error:
        raise BadVideoError(f"cannot read video '{path}': there is no such file or folder") from error
    except OSError as error:
        raise BadVideoError(f"cannot read video '{path}': {error.strerror or error}") from error
    if size == 0:
        raise BadVideoError(f"video '{path}' is empty (0 bytes): copy it again")
