"""Reads what an encoded image says about itself, before anything is decoded.

A decoder allocates what a header asks for, and OpenCV's returns a half-gray picture for a file that
was cut off. Both are found here from the file's own structure: the size, and whether all of it came.
"""

from __future__ import annotations

import re
import struct
import zlib
from dataclasses import dataclass
from typing import Literal

from seg_runtime.errors import BadImageError
from seg_runtime.files.tiff_tags import TIFF_SIGNATURES, tiff_pages

__all__ = [
    "HEAD_BYTES",
    "ImageHeader",
    "ImageKind",
    "complete_header",
    "image_kind",
    "other_format",
    "read_header",
]

ImageKind = Literal["png", "jpeg", "tiff", "dicom"]

_PNG = b"\x89PNG\r\n\x1a\n"
_OTHER_FORMATS = {
    "BMP": rb"BM.{4}\0{4}",
    "GIF": rb"GIF8[79]a",
    "WebP": rb"RIFF.{4}WEBP",
    "AVIF": rb".{4}ftypavi[fs]",
    "HEIC": rb".{4}ftyp(?:he|mif1|msf1)",
    "JPEG 2000": rb"\0\0\0\x0cjP  |\xff\x4f\xff\x51",
    "JPEG XL": rb"\0\0\0\x0cJXL |\xff\x0a",
    "PNM": rb"P[1-7]\s",
    "NIfTI": rb".{344}n\+1\0",
    "NRRD": rb"NRRD0",
}
"""What files of formats that are not read begin with."""
_PNG_DEPTHS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}
"""Bits that a sample of a colour type may have (PNG specification, table 11.1)."""
_JPEG_SIZES = frozenset({*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC})
_JPEG_BARE = frozenset({0x01, 0xFF, *range(0xD0, 0xD8)})
_TIFF_DATA = ((273, 279), (324, 325))
HEAD_BYTES = 512
"""What `image_kind` and `other_format` are asked about."""
_DICOM_VRS = frozenset({b"AE", b"CS", b"DA", b"IS", b"LO", b"OB", b"SH", b"TM", b"UI", b"UL", b"UN", b"US"})


@dataclass(frozen=True)
class ImageHeader:
    """What an encoded image says about itself.

    Attributes:
        kind: the format by its first bytes, never by its file name.
        size_hw: stored (height, width) in pixels, before any EXIF rotation; (0, 0) for DICOM,
            whose reader looks for itself.
        complete: the file holds everything that its own structure announces, undamaged as far as
            its checksums tell.
    """

    kind: ImageKind
    size_hw: tuple[int, int]
    complete: bool


def image_kind(head: bytes) -> ImageKind | None:
    """The format that the first 132 bytes of a file are of.

    Example:
        >>> image_kind(b"II*\\0" + bytes(128))
        'tiff'
    """
    if head[128:132] == b"DICM":  # The preamble before it may be that of a TIFF (PS3.10, 7.1).
        return "dicom"
    if head.startswith(_PNG):
        return "png"
    if head.startswith(b"\xff\xd8\xff"):
        return "jpeg"
    if head[:4] in TIFF_SIGNATURES:
        return "tiff"
    return "dicom" if _is_bare_dicom(head) else None


def other_format(head: bytes) -> str | None:
    """The name of an image format that is not read, from the first 512 bytes of a file.

    Example:
        >>> other_format(b"\\0\\0\\0\\x18ftypheic")
        'HEIC'
    """
    return next((name for name, first in _OTHER_FORMATS.items() if re.match(first, head, re.DOTALL)), None)


def _is_bare_dicom(head: bytes) -> bool:
    """A data set that begins at once, without preamble: with an element of group 2 or 8 (PS3.10, 7.1)."""
    for order in "<>":
        if len(head) < 16:
            return False
        group, element = struct.unpack_from(order + "HH", head)
        if group not in (2, 8) or element > 0x20:
            continue
        if head[4:6] in _DICOM_VRS:
            return True
        # Without names of types: a short first element, and one of the same group after it.
        (length,) = struct.unpack_from(order + "I", head, 4)
        if length > 100 or len(head) < length + 12:
            return False
        following, number = struct.unpack_from(order + "HH", head, 8 + length)
        return bool(following == group and number > element)
    return False


def read_header(data: bytes) -> ImageHeader | None:
    """The header of an encoded image, or None when the format is not PNG, JPEG, TIFF or DICOM.

    Raises:
        BadImageError: the header itself is cut off or damaged.
    """
    kind = image_kind(data[:HEAD_BYTES])
    try:
        if kind == "png":
            return _png(data)
        if kind == "jpeg":
            return _jpeg(data)
        if kind == "tiff":
            return _tiff(data)
    except (struct.error, IndexError, KeyError, StopIteration, ValueError) as error:
        raise BadImageError("its header is cut off or damaged") from error
    return ImageHeader("dicom", (0, 0), True) if kind == "dicom" else None


def complete_header(data: bytes) -> ImageHeader | None:
    """`read_header`, of a file that holds all that it announces.

    Raises:
        BadImageError: also where it does not.
    """
    header = read_header(data)
    if header is not None and not header.complete:
        raise BadImageError(f"the {header.kind.upper()} file is cut off or damaged: copy it again")
    return header


def _png(data: bytes) -> ImageHeader:
    width, height, depth, color_type, *methods = struct.unpack_from(">IIBBBBB", data, 16)
    # libpng refuses these too, in its own words on stderr.
    if depth not in _PNG_DEPTHS.get(color_type, ()) or methods not in ([0, 0, 0], [0, 0, 1]):
        raise ValueError(f"color type {color_type}, {depth} bits, methods {methods}")
    # PNG specification, section 5.3: length, type, data, CRC of type and data.
    view, at = memoryview(data), len(_PNG)
    while at + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, at)
        end = at + 12 + length
        if end > len(data):
            break
        (checksum,) = struct.unpack_from(">I", data, end - 4)
        if zlib.crc32(view[at + 4 : end - 4]) != checksum:
            break
        if data[at + 4 : at + 8] == b"IEND":
            return ImageHeader("png", (height, width), True)
        at = end
    return ImageHeader("png", (height, width), False)


def _jpeg(data: bytes) -> ImageHeader:
    # ITU T.81, annex B: segments of marker, length and data up to the first scan.
    size_hw, at = (0, 0), 2
    while True:
        marker = data[at + 1]
        if data[at] != 0xFF:
            raise IndexError(at)
        if marker in _JPEG_BARE:
            at += 1 if marker == 0xFF else 2
            continue
        if marker == 0xDA:
            break
        if marker in _JPEG_SIZES:
            height, width = struct.unpack_from(">HH", data, at + 5)
            size_hw = (height, width)
        (length,) = struct.unpack_from(">H", data, at + 2)
        at += 2 + length
    # Thumbnails bring an end marker of their own, but they lie before the first scan.
    return ImageHeader("jpeg", size_hw, data.rfind(b"\xff\xd9", at) >= 0)


def _tiff(data: bytes) -> ImageHeader:
    page = next(tiff_pages(data))
    end = 0
    for offsets, lengths in _TIFF_DATA:
        if offsets in page.entries and lengths in page.entries:
            blocks = zip(page.values(offsets), page.values(lengths), strict=False)
            end = max((offset + length for offset, length in blocks), default=0)
    return ImageHeader("tiff", page.size_hw, 0 < end <= len(data))
