"""Opens OpenCV's captures without OpenCV's own lines on stderr."""

from __future__ import annotations

from typing import TYPE_CHECKING

from seg_runtime.opencv_log import quiet

if TYPE_CHECKING:
    import cv2

__all__ = ["TIMEOUT_S", "open_capture"]

TIMEOUT_S = 10.0
"""How long a camera or stream may keep us waiting for its first frame, or for the next."""


def open_capture(target: str | int) -> cv2.VideoCapture | None:
    """A capture of a path, an address or a camera's index; None when OpenCV cannot open it."""
    import cv2

    with quiet():
        if isinstance(target, int):
            capture = cv2.VideoCapture(target)
        else:
            timeouts = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, cv2.CAP_PROP_READ_TIMEOUT_MSEC]
            settings = [value for name in timeouts for value in (name, int(1000 * TIMEOUT_S))]
            # Of OpenCV's backends FFmpeg alone reads files and addresses the same on every machine.
            capture = cv2.VideoCapture(target, cv2.CAP_FFMPEG, settings)
            # Phones store frames as the sensor saw them; releases of OpenCV differ in turning them.
            capture.set(cv2.CAP_PROP_ORIENTATION_AUTO, 1)
        if capture.isOpened():
            return capture
        capture.release()
        return None
