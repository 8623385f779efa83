"""Writes frames into an mp4 file that appears when it is complete, or not at all."""

from __future__ import annotations

import shutil
import uuid
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from seg_runtime.errors import BadInputError
from seg_runtime.opencv_log import quiet
from seg_runtime.video.capture import open_capture
from seg_runtime.video.mp4_times import set_times
from seg_runtime.video.times import is_steady

__all__ = ["VideoWriter", "check_video_path"]

_MIN_FREE_BYTES = 16 * 2**20
"""OpenCV does not tell when the disk is full: below this it is said before the last byte is gone."""


class VideoWriter:
    """An mp4 of frames of one size, for a `with` block: finished at its end, discarded on an error.

    OpenCV's own MPEG-4 encoder ("mp4v") is in every build of it; H.264 ("avc1") is not. Sides must be even
    for the encoder: an odd one gets its last column or row twice.
    """

    def __init__(
        self,
        path: str | Path,
        fps: float,
        size_hw: tuple[int, int],
        codec: str = "mp4v",
        *,
        times_s: NDArray[np.float64] | None = None,
    ) -> None:
        """Open a hidden file beside `path`, whose folder is made when missing.

        Args:
            path: ends in .mp4; a present file is replaced at the end.
            fps: frames per second, above 0.
            size_hw: (height, width) of the frames in pixels.
            codec: four letters that OpenCV knows.
            times_s: (frames,) float64, increasing, from 0: when each frame appears, for at least as many as
                will be written; None for a constant rate, which is also written when it holds every time to
                within half a frame. Other times need a codec that stores frames in order, as "mp4v" does.

        Raises:
            BadInputError: another suffix, a folder that cannot be written to, a codec that is not there.
        """
        import cv2

        self._path = Path(path)
        check_video_path(self._path)
        self._size_hw = size_hw
        self._last_s = 1 / fps
        self._times_s = None if times_s is None or is_steady(times_s, fps) else times_s
        self._padding = (0, size_hw[0] % 2, 0, size_hw[1] % 2)
        self._temporary = self._path.with_name(f".{uuid.uuid4().hex}.partial.mp4")
        self.frames_written = 0
        _make_writable(self._path.parent)
        width, height = size_hw[1] + size_hw[1] % 2, size_hw[0] + size_hw[0] % 2
        with quiet():
            fourcc = cv2.VideoWriter.fourcc(*f"{codec:4.4}")
            self._writer = cv2.VideoWriter(str(self._temporary), cv2.CAP_FFMPEG, fourcc, fps, (width, height))
        if not self._writer.isOpened():
            self.discard()
            raise BadInputError(
                f"cannot write '{self._path}': OpenCV has no encoder '{codec}' for mp4 here, or none for "
                f"{width}x{height} pixels at {fps:g} frames per second; 'mp4v' is in its own builds"
            )

    def write(self, frame: NDArray[np.uint8]) -> None:
        """Append a (H, W, 3) uint8 RGB frame.

        Raises:
            BadInputError: a frame of another size, or the disk is full.
        """
        import cv2

        if frame.shape != (*self._size_hw, 3):
            raise BadInputError(f"a frame of {frame.shape} does not fit a video of {self._size_hw} pixels")
        if shutil.disk_usage(self._path.parent).free < _MIN_FREE_BYTES:
            raise BadInputError(f"cannot write '{self._path}': the disk is full")
        pixels = cv2.cvtColor(frame, cv2.COLOR_RGB2BGR)
        if any(self._padding):
            pixels = cv2.copyMakeBorder(pixels, *self._padding, cv2.BORDER_REPLICATE)
        self._writer.write(pixels)
        self.frames_written += 1

    def finish(self) -> None:
        """Close the file, see that all frames are in it, and give it its name.

        Raises:
            BadInputError: frames are missing, as after a full disk; nothing is left behind.
        """
        self._writer.release()
        if not self.frames_written:
            self.discard()
            return
        try:
            stored = _count(self._temporary)
            # Ctrl-C may come between storing a frame and counting it.
            if stored < self.frames_written:
                raise BadInputError(
                    f"cannot write '{self._path}': {stored} of {self.frames_written} frames were stored; "
                    "is the disk full?"
                )
            if self._times_s is not None:
                set_times(self._temporary, self._times_s[:stored], self._last_s)
            self._temporary.replace(self._path)
        except OSError as error:
            raise BadInputError(f"cannot write '{self._path}': {error.strerror or error}") from error
        finally:
            self.discard()

    def discard(self) -> None:
        """Close and remove what was written; after `finish` it does nothing."""
        self._writer.release()
        self._temporary.unlink(missing_ok=True)

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.finish()
        else:
            self.discard()


def check_video_path(path: Path) -> None:
    """Refuse what cannot become a video. Raises BadInputError."""
    if path.suffix.lower() != ".mp4":
        raise BadInputError(f"videos are written as mp4, not '{path.name}': name a file that ends in .mp4")
    if path.is_dir():
        raise BadInputError(f"'{path}' is a folder: give a file to write to")


def _make_writable(folder: Path) -> None:
    # OpenCV only says that it could not, not why.
    probe = folder / f".{uuid.uuid4().hex}.partial"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise BadInputError(f"cannot write into '{folder}': {error.strerror or error}") from error


def _count(path: Path) -> int:
    """Frames in the index, which is the last thing that is written; 0 when it is not there."""
    import cv2

    capture = open_capture(str(path.resolve()))
    if capture is None:
        return 0
    count = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
    capture.release()
    return count
