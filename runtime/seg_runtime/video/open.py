"""Finds out what kind of source a path, an address or a number is."""

from __future__ import annotations

from pathlib import Path

from seg_runtime.errors import BadVideoError
from seg_runtime.video.source import FrameSource

__all__ = ["open_video"]

_STREAMS = ("rtsp", "rtsps", "http", "https")


def open_video(
    source: str | Path | int, *, latest: bool = False, allow_truncated: bool = False, fps: float | None = None
) -> FrameSource:
    """Open frames to read one after the other, holding a few of them at most.

    - a video file: all that OpenCV's FFmpeg decodes, turned and mirrored as viewers show it, pixels as they
      are stored. Its frames are counted and timed by decoding them once, as containers announce frames that
      are not there.
    - a folder: JPEG files, or PNG and TIFF files when there are none; sorted by number when every stem
      is one, as sam2 does, else by name with numbers in it in their order.
    - a camera: its index, as a number or digits.
    - a stream: rtsp://, rtsps://, http:// or https://.

    Args:
        source: path, address or index; a file or folder named by digits is taken before a camera.
        latest: skip frames of a camera or stream that came while the caller was busy.
        allow_truncated: use the frames that a video file which was cut off still has.
        fps: constant frames per second instead of the source's own times; folders have 24 without it.

    Raises:
        BadVideoError: missing, empty, cut off, without frames, or with frames of several sizes; a camera
            or stream that does not open; an unknown kind of address; fps that is not positive.
    """
    if fps is not None and not 0 < fps <= 1000:
        raise BadVideoError(f"frames per second must lie above 0 and up to 1000; they are {fps:g}")
    opened = _open(source, latest, allow_truncated)
    if fps is not None:
        opened.fps, opened.times_s = fps, None
    return opened


def _open(source: str | Path | int, latest: bool, allow_truncated: bool) -> FrameSource:
    from seg_runtime.video.file_source import VideoFileSource
    from seg_runtime.video.folder_source import ImageFolderSource
    from seg_runtime.video.live_source import LiveSource

    if isinstance(source, int):
        return LiveSource(source, latest=latest)
    text = str(source)
    if isinstance(source, str) and "://" in source:
        kind = source.split("://")[0].lower()
        if kind not in _STREAMS:
            raise BadVideoError(
                f"cannot read frames from {kind}://: give {'://, '.join(_STREAMS)}:// or a path"
            )
        return LiveSource(source, latest=latest)
    path = Path(source)
    if path.is_dir():
        return ImageFolderSource(path)
    if not path.exists() and text.isascii() and text.isdecimal():
        return LiveSource(int(text), latest=latest)
    return VideoFileSource(path, allow_truncated=allow_truncated)
