"""Finds JPEG files whose data end before their picture does; decoders fill the rest without a word."""

from __future__ import annotations

import io
import struct
import warnings
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from seg_runtime.files.jpeg_segments import SCAN, jpeg_segments

__all__ = ["ends_early", "holds_too_little"]

_SIZES = frozenset({0xC0, 0xC1, 0xC2})
_BLOCKS = 16
_LARGE = 2**24
"""Pixels from which on decoding a picture again takes time and memory."""

_OTHER_DATA = (b"\x00\x00", b"\x55\xaa", b"\xaa\x55")


@dataclass(frozen=True)
class _Scan:
    """The first scan: in which steps it covers the picture, and where its coded data begin and end."""

    size_hw: tuple[int, int]
    mcu_hw: tuple[int, int]
    progressive: bool
    begin: int
    end: int

    @property
    def mcus(self) -> tuple[int, int]:
        """How many steps (down, across); a step is one block or more."""
        (height, width), (mcu_height, mcu_width) = self.size_hw, self.mcu_hw
        return -(-height // mcu_height), -(-width // mcu_width)


def holds_too_little(data: bytes) -> bool:
    """Whether a JPEG has fewer bits than its header claims blocks, which is seen without decoding.

    A block takes at least a bit of a progressive file's first scan, and two of others: one code for its mean
    and one for the rest.
    """
    scan = _checked_scan(data)
    if scan is None:
        return False
    down, across = scan.mcus
    return 8 * (scan.end - scan.begin) < down * across * (1 if scan.progressive else 2)


def ends_early(data: bytes, pixels: NDArray[np.uint8]) -> bool:
    """Whether the rest of a decoded JPEG is filler, because its data end above the last rows.

    Blocks are coded in order, each in one bit or more. The last two bytes of the first scan are thus those of
    the last 16 blocks at most, unless data are missing: other bytes there then change rows further up.
    Decoding twice takes time and is done only for pictures that end in constant rows, of large ones at an
    eighth of their size, where each block is one pixel.

    Args:
        data: a file that OpenCV could decode.
        pixels: (H, W) or (H, W, 3) uint8, as decoded, turned by EXIF or not.
    """
    if not any(_is_flat(border) for border in _borders(pixels)):
        return False
    scan = _checked_scan(data)
    if scan is None or scan.end - scan.begin < 4:
        return False
    large = scan.size_hw[0] * scan.size_hw[1] > _LARGE
    before = _decoded(data, large)
    for other in _OTHER_DATA:
        changed = _first_change(before, _decoded(data[: scan.end - 2] + other + data[scan.end :], large))
        if changed is not None:
            return (8 * changed + 7 if large else changed) < _last_rows(scan)
    return False


def _borders(pixels: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], ...]:
    return pixels[-8:], pixels[:8], pixels[:, -8:], pixels[:, :8]


def _is_flat(border: NDArray[np.uint8]) -> bool:
    """Filler has one colour; so have the borders of many good X-rays."""
    return bool((border == border[0, 0]).all())


def _last_rows(scan: _Scan) -> int:
    """The first row that the last blocks may reach, with one for interpolated colours."""
    down, across = scan.mcus
    return (down - 1 - -(-_BLOCKS // across)) * scan.mcu_hw[0] - 1


def _first_change(before: NDArray[np.uint8] | None, after: NDArray[np.uint8] | None) -> int | None:
    """The first row that differs; None when none does, or one could not be decoded."""
    if before is None or after is None or before.shape != after.shape:
        return None
    rows = np.flatnonzero((before != after).reshape(len(before), -1).any(axis=1))
    return int(rows[0]) if rows.size else None


def _decoded(data: bytes, reduced: bool) -> NDArray[np.uint8] | None:
    """By Pillow: changed data make libjpeg complain, on stderr where OpenCV calls it."""
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(data)) as image:
                if reduced:
                    image.draft(image.mode, (image.width // 8, image.height // 8))
                return np.asarray(image, dtype=np.uint8)
    except (OSError, ValueError, Image.DecompressionBombError):
        return None


def _checked_scan(data: bytes) -> _Scan | None:
    """None for kinds of JPEG that OpenCV does not decode."""
    try:
        scan = _first_scan(data)
    except (IndexError, struct.error, ValueError):
        return None
    return scan if min(scan.size_hw) else None


def _first_scan(data: bytes) -> _Scan:
    size_hw, mcu_hw, progressive = (0, 0), (8, 8), False
    for marker, at in jpeg_segments(data):
        if marker in _SIZES:
            height, width, components = struct.unpack_from(">HHB", data, at + 3)
            factors = data[at + 9 : at + 8 + 3 * components : 3]
            size_hw, progressive = (height, width), marker == 0xC2
            # One component is coded block by block, whatever its factors.
            if components > 1:
                mcu_hw = (8 * max(each & 15 for each in factors), 8 * max(each >> 4 for each in factors))
        if marker == SCAN:
            begin = at + struct.unpack_from(">H", data, at)[0]
            return _Scan(size_hw, mcu_hw, progressive, begin, _coded_end(data, begin))
    raise IndexError(len(data))


def _coded_end(data: bytes, begin: int) -> int:
    """Where coded data end whose last two bytes may be replaced, neither being part of a stuffed 0xFF."""
    end = begin
    while (end := data.find(b"\xff", end)) >= 0 and (data[end + 1] == 0 or 0xD0 <= data[end + 1] <= 0xD7):
        end += 2
    end = len(data) if end < 0 else end
    while end - begin > 3 and 0xFF in data[end - 3 : end]:
        end -= 1
    return end
