"""The segments of a JPEG file, from its first to its last scan (ITU T.81, annex B)."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator

from seg_runtime.errors import BadImageError

__all__ = ["SCAN", "SIZES", "count_scans", "jpeg_segments"]

SCAN = 0xDA
"""The marker of a segment after which coded data follow."""

SIZES = frozenset({*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC})
"""Markers of the segments that state the picture's size."""

_END = 0xD9
_BARE = frozenset({0x01, *range(0xD0, 0xD9)})
_MARKER = re.compile(rb"\xff{1,4096}([^\xff])", re.DOTALL)
"""A marker may be preceded by fill bytes, usually by none."""

_AFTER_DATA = re.compile(rb"\xff{1,4096}([^\xff\x00\xd0-\xd7])", re.DOTALL)
"""The first marker after coded data, in which 0xFF is stuffed and restarts are marked."""

_MOST_SEGMENTS = 512
"""A colour profile has up to 255, of 64 KB each. Pillow's time for those of EXIF grows with the square."""


def jpeg_segments(data: bytes, at: int = 2) -> Iterator[tuple[int, int]]:
    """The marker of each segment, and where its length stands, from `at` to the end of the picture.

    Raises:
        BadImageError: so many that they are no picture's.
        IndexError, struct.error: damaged or cut off.
    """
    pattern = _MARKER
    for _ in range(_MOST_SEGMENTS):
        found = pattern.search(data, at) if pattern is _AFTER_DATA else pattern.match(data, at)
        if found is None:
            raise IndexError(at)
        marker, at = found[1][0], found.end()
        if marker == _END:
            return
        pattern = _MARKER
        if marker in _BARE:
            continue
        yield marker, at
        at += struct.unpack_from(">H", data, at)[0]
        if marker == SCAN:
            pattern = _AFTER_DATA
    raise BadImageError(f"the JPEG file has over {_MOST_SEGMENTS} segments: save it again")


def count_scans(data: bytes, most: int) -> int:
    """How many scans a JPEG has, as far as it is not damaged; counted up to one more than `most`."""
    count = 0
    try:
        for marker, _ in jpeg_segments(data):
            count += marker == SCAN
            if count > most:
                break
    except (IndexError, struct.error):
        pass
    return count
