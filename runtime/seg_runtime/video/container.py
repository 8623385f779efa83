"""Tells from a video file's own structure whether all of it came, before anything is decoded."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import BinaryIO

__all__ = ["is_complete"]

_EBML, _SEGMENT = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"


def is_complete(path: Path) -> bool | None:
    """Whether a file holds everything that it announces: MP4 and MOV, AVI, Matroska and WebM.

    Returns:
        True or False; None for other formats, and where a file does not say how long it is.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(12)
        file.seek(0)
        try:
            if start[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip"):
                return _mp4(file, size)
            if start[:4] == b"RIFF":
                return bool(struct.unpack("<I", start[4:8])[0] + 8 <= size)
            if start[:4] == _EBML:
                return _matroska(file, size)
        except (struct.error, IndexError):
            return False
    return None


def _mp4(file: BinaryIO, size: int) -> bool:
    """Boxes of a length and a name each; the index ("moov") may be the last of them."""
    position, names = 0, set()
    while position < size:
        file.seek(position)
        length, name = struct.unpack(">I4s", file.read(8))
        if length == 1:
            (length,) = struct.unpack(">Q", file.read(8))
        elif length == 0:
            length = size - position
        if length < 8 or position + length > size:
            return False
        names.add(name)
        position += length
    return b"moov" in names


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
