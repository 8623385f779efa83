"""Reads from a video file's own structure what OpenCV does not say, before anything is decoded."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

__all__ = ["boxes", "is_complete", "is_mirrored", "lists_frames"]

_EBML, _SEGMENT = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"
_MP4 = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip")


def is_complete(path: Path) -> bool | None:
    """Whether a file holds everything that it announces: MP4 and MOV, AVI, Matroska and WebM.

    Returns:
        True or False; None for other formats, and where a file does not say how long it is.
    """
    size = path.stat().st_size
    start = _start(path)
    with path.open("rb") as file, suppress(struct.error, IndexError, ValueError):
        if start[4:8] in _MP4:
            return b"moov" in {name for name, _, _ in boxes(file, 0, size)}
        if start[:4] == b"RIFF":
            return bool(struct.unpack("<I", start[4:8])[0] + 8 <= size)
        return _matroska(file, size) if start[:4] == _EBML else None
    return False


def lists_frames(path: Path) -> bool:
    """Whether a file lists its frames (MP4, MOV, AVI); of others FFmpeg estimates how many there are."""
    start = _start(path)
    return start[4:8] in _MP4 or start[:4] == b"RIFF"


def is_mirrored(path: Path) -> bool:
    """Whether an MP4 or MOV says that viewers mirror its picture, which OpenCV does not see."""
    with path.open("rb") as file, suppress(struct.error, ValueError):
        index = _find(file, 0, path.stat().st_size, b"moov")
        tracks = [body for body in boxes(file, *index) if body[0] == b"trak"] if index else []
        for _, start, end in tracks:
            header = _find(file, start, end, b"tkhd")
            if header and _has_mirror(file, *header):
                return True
    return False


def _has_mirror(file: BinaryIO, start: int, end: int) -> bool:
    """Whether a track's header has a matrix that turns left into right; sound has no width and no height."""
    file.seek(end - 44)
    a, b, _, c, d, _, _, _, _, width, height = struct.unpack(">11i", file.read(44))
    return bool(a * d - b * c < 0 and width and height)


def boxes(file: BinaryIO, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """MP4's boxes between two places of a file: name, first byte of the content, first byte after it.

    Raises:
        ValueError, struct.error: one that is longer than what holds it.
    """
    while start < end:
        file.seek(start)
        length, name = struct.unpack(">I4s", file.read(8))
        body = start + 8
        if length == 1:
            (length,) = struct.unpack(">Q", file.read(8))
            body += 8
        stop = end if length == 0 else start + length
        if not body <= stop <= end:
            raise ValueError(f"a box of {length} bytes at {start} does not fit")
        yield name, body, stop
        start = stop


def _find(file: BinaryIO, start: int, end: int, name: bytes) -> tuple[int, int] | None:
    """Where the content of the first box of a name begins and ends."""
    return next(((body, stop) for found, body, stop in boxes(file, start, end) if found == name), None)


def _start(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(12)


def _matroska(file: BinaryIO, size: int) -> bool | None:
    """A header, then one segment that says how long it is, unless it was written as a stream."""
    if file.read(4) != _EBML:
        return False
    length = _length(file)
    file.seek(length or 0, 1)
    if file.read(4) != _SEGMENT:
        return False
    length = _length(file)
    return None if length is None else file.tell() + length <= size


def _length(file: BinaryIO) -> int | None:
    """EBML's variable length: leading zeros of the first byte say how many follow; all ones is unknown."""
    first = file.read(1)[0]
    more = 8 - first.bit_length()
    value = int.from_bytes(bytes([first & (0x7F >> more)]) + file.read(more), "big")
    return None if value == (1 << (7 * (more + 1))) - 1 else value
