"""Keeps OpenCV's own lines off stderr."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["quiet"]

_SILENT = 0


@contextmanager
def quiet() -> Iterator[None]:
    """Our errors are one line: OpenCV and FFmpeg print nothing meanwhile."""
    import cv2

    # FFmpeg's level is read once, when OpenCV loads it; a level that the user chose stays.
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    # OpenCV 5 moved both functions there.
    logging: Any = getattr(cv2.utils, "logging", cv2)
    before = logging.getLogLevel()
    logging.setLogLevel(_SILENT)
    try:
        yield
    finally:
        logging.setLogLevel(before)
