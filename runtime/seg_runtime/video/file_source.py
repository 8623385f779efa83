"""Frames of a video file, exact by index: OpenCV's seek is checked against the time of every frame."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from seg_runtime.errors import BadVideoError, VideoEndedError
from seg_runtime.video.capture import open_capture
from seg_runtime.video.container import is_complete, is_mirrored, lists_frames
from seg_runtime.video.source import FrameSource
from seg_runtime.video.times import rate_of

if TYPE_CHECKING:
    import cv2

__all__ = ["VideoFileSource"]

_READ_ON = 32
"""So many frames ahead are decoded and thrown away; a seek starts at a key frame, often further back."""

_CLAIM_TOLERANCE = 0.02
"""Containers without an index estimate their frames from duration and rate."""

_END_TOLERANCE_S = 1.0
"""Sound may go on for so long after the last frame, and the duration counts it."""

_MAX_RETRIES = 10_000
"""How often a decoder that failed is asked for more: headers may announce billions of frames."""


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
                else f"cannot read video '{path}': OpenCV's FFmpeg finds no picture in it, or does not know "
                "what it is"
            )
        try:
            claimed, announced_fps = self._claimed()
            self._times_ms, damaged = self._scan(complete is False, claimed)
            self.frame_count = len(self._times_ms)
            short = self._is_short(claimed, announced_fps)
            self._check_count(claimed, complete, short, damaged, allow_truncated)
            self._set_times(announced_fps)
            self._see_first()
        except BaseException:
            self.close()
            raise

    def _set_times(self, announced_fps: float) -> None:
        times_s = (self._times_ms - self._times_ms[0]) / 1000
        steps = np.diff(times_s)
        self._seekable = bool(np.all(steps > 0))
        # Some recorders give two frames one time; files without times give all frames the same.
        self.times_s = times_s if np.all(steps >= 0) and (steps.any() or not len(steps)) else None
        self.fps = rate_of(self.times_s, announced_fps)

    def _see_first(self) -> None:
        """The size of the frames, and how the file wants them to be shown."""
        import cv2

        self._reopen()
        capture = self._open_capture()
        sideways = capture.get(cv2.CAP_PROP_ORIENTATION_META) % 180 == 90
        # OpenCV turns the x axis to where it belongs; the y axis of a mirrored picture is then reversed.
        self._flip_axis = int(sideways) if is_mirrored(self._path) else None
        self._grab()
        first = self._retrieve()
        self.size_hw = (first.shape[0], first.shape[1])
        wide, high = capture.get(cv2.CAP_PROP_SAR_NUM), capture.get(cv2.CAP_PROP_SAR_DEN)
        aspect = wide / high if wide > 0 and high > 0 else 1.0
        notes = self.note, _stretched(self.name, self.size_hw, aspect, sideways)
        self.note = "; ".join(filter(None, notes)) or None

    def _scan(self, cut_off: bool, claimed: int) -> tuple[NDArray[np.float64], bool]:
        """(frames,) time of each frame in ms, as the decoder gives them; whether some follow a failure."""
        import cv2

        times = []
        capture = self._open_capture()
        while capture.grab():
            times.append(capture.get(cv2.CAP_PROP_POS_MSEC))
        # At the end of a sound file nothing follows; after damaged bytes the decoder finds frames again.
        damaged = any(capture.grab() for _ in range(min(claimed - len(times), _MAX_RETRIES)))
        # The last frame of a file that was cut off is a part of one, which FFmpeg fills up by guessing.
        return np.array(times[:-1] if cut_off else times, dtype=np.float64), damaged

    def _claimed(self) -> tuple[int, float]:
        """How many frames and frames per second the header announces; both may be nonsense."""
        import cv2

        capture = self._open_capture()
        return max(int(capture.get(cv2.CAP_PROP_FRAME_COUNT)), 0), capture.get(cv2.CAP_PROP_FPS)

    def _is_short(self, claimed: int, announced_fps: float) -> bool:
        """Whether frames are missing: in number, or in time where the number is duration by rate."""
        missing = claimed - len(self._times_ms)
        if not len(self._times_ms) or missing <= max(2, _CLAIM_TOLERANCE * claimed):
            return False
        if lists_frames(self._path) or announced_fps <= 0:
            return True
        duration_s = claimed / announced_fps
        missing_s = duration_s - self._times_ms[-1] / 1000
        return bool(missing_s > max(_END_TOLERANCE_S, _CLAIM_TOLERANCE * duration_s))

    def _check_count(
        self, claimed: int, complete: bool | None, short: bool, damaged: bool, allow_truncated: bool
    ) -> None:
        count = len(self._times_ms)
        if not count:
            raise BadVideoError(f"video '{self.name}' has no frames that can be read")
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
        rgb = np.asarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB), dtype=np.uint8)
        return rgb if self._flip_axis is None else np.ascontiguousarray(np.flip(rgb, self._flip_axis))

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


def _stretched(name: str, size_hw: tuple[int, int], aspect: float, sideways: bool) -> str | None:
    """What to know when stored pixels are `aspect` times as wide as high; of a frame that was turned."""
    height, width = size_hw
    shown = (width, round(height * aspect)) if sideways else (round(width * aspect), height)
    if shown == (width, height):
        return None
    return (
        f"'{name}' has pixels that are not square: viewers show {shown[0]}x{shown[1]}; prompts, masks and "
        f"the overlay have the {width}x{height} that are stored"
    )
