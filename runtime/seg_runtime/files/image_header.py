"""Reads what an encoded image says about itself, before anything is decoded.

A decoder allocates what a header asks for, and OpenCV's returns a half-gray picture for a file that
was cut off. Both are found here from the file's own structure: the size, and whether all of it came.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from seg_runtime.errors import BadImageError
from seg_runtime.files.jpeg_segments import SCAN, SIZES, count_scans, jpeg_segments
from seg_runtime.files.limits import MOST_SCANS, check_scans
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
    "NIfTI in two files (.hdr and .img)": rb".{344}ni1\0",
    "NRRD": rb"NRRD0",
}
"""What files of formats that are not read begin with."""
_PNG_DEPTHS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}
"""Bits that a sample of a colour type may have (PNG specification, table 11.1)."""
_PNG_CHANNELS = {0: 1, 2: 3, 3: 3, 4: 2, 6: 4}
_MOST_CHUNKS = 2**18
"""Chunks of a PNG: those of the largest file that is read, in the pieces of 8 KB that libpng writes."""

_MOST_TEXTS = 2**20
"""Bytes of compressed texts and colour profiles in a PNG; they inflate to 1 GB."""

_PNG_SPARE = 2**16
"""Bytes of compressed pixels that any PNG may have; they inflate to 64 MB."""

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
        pixel_bytes: of a decoded pixel, all its channels together.
        complete: the file holds everything that its own structure announces, undamaged as far as
            its checksums tell.
    """

    kind: ImageKind
    size_hw: tuple[int, int]
    pixel_bytes: int
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
    except BadImageError:
        raise
    except (struct.error, IndexError, KeyError, StopIteration, ValueError) as error:
        raise BadImageError("its header is cut off or damaged") from error
    return ImageHeader("dicom", (0, 0), 0, True) if kind == "dicom" else None


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
    channels = _PNG_CHANNELS[color_type]
    pixel_bytes = channels * (2 if depth == 16 else 1)
    pixel_data = texts = 0
    for kind, chunk in _png_chunks(data):
        pixel_data += len(chunk) if kind == b"IDAT" else 0
        texts += len(chunk) if _is_compressed(kind, chunk) else 0
        if texts > _MOST_TEXTS:
            raise BadImageError(
                f"the PNG file has over {_MOST_TEXTS} bytes of compressed texts: save it again"
            )
        if kind == b"IEND":
            _check_png_data(pixel_data, (height, width), channels * depth)
            return ImageHeader("png", (height, width), pixel_bytes, True)
    return ImageHeader("png", (height, width), pixel_bytes, False)


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, memoryview]]:
    """Type and data of each chunk, up to the first that is damaged or cut off."""
    # PNG specification, section 5.3: length, type, data, CRC of type and data.
    view, at = memoryview(data), len(_PNG)
    for _ in range(_MOST_CHUNKS):
        if at + 12 > len(data):
            return
        (length,) = struct.unpack_from(">I", data, at)
        end = at + 12 + length
        if end > len(data):
            return
        (checksum,) = struct.unpack_from(">I", data, end - 4)
        if zlib.crc32(view[at + 4 : end - 4]) != checksum:
            return
        yield data[at + 4 : at + 8], view[at + 8 : end - 4]
        at = end
    raise BadImageError(f"the PNG file has over {_MOST_CHUNKS} chunks: save it again with another program")


def _is_compressed(kind: bytes, chunk: memoryview) -> bool:
    """Whether libpng inflates what this chunk has to say, which nothing here reads."""
    if kind == b"iTXt":
        # A keyword of 79 bytes at most, then whether the text is compressed.
        return bytes(chunk[:81]).partition(b"\0")[2][:1] == b"\1"
    return kind in (b"zTXt", b"iCCP")


def _check_png_data(stored: int, size_hw: tuple[int, int], pixel_bits: int) -> None:
    """Refuse pixel data that go on after the picture: libpng inflates them to their end."""
    rows = size_hw[0] * (1 + -(-size_hw[1] * pixel_bits // 8))
    if stored > 2 * rows + _PNG_SPARE:
        raise BadImageError(
            f"the PNG file has {stored} bytes of compressed pixels, and all of them are {rows}: save it again"
        )


def _jpeg(data: bytes) -> ImageHeader:
    size_hw, components = (0, 0), 3
    for marker, at in jpeg_segments(data):
        if marker in SIZES:
            height, width, components = struct.unpack_from(">HHB", data, at + 3)
            size_hw = (height, width)
        if marker == SCAN:
            # Thumbnails have an end marker too, but they lie before the first scan.
            complete = data.rfind(b"\xff\xd9", at) >= 0
            check_scans(count_scans(data, MOST_SCANS))
            return ImageHeader("jpeg", size_hw, 3 if components > 1 else 1, complete)
    raise IndexError(len(data))


def _tiff(data: bytes) -> ImageHeader:
    page = next(tiff_pages(data))
    end = 0
    for offsets, lengths in _TIFF_DATA:
        if offsets in page.entries and lengths in page.entries:
            blocks = zip(page.values(offsets), page.values(lengths), strict=False)
            end = max((offset + length for offset, length in blocks), default=0)
    return ImageHeader("tiff", page.size_hw, page.pixel_bytes, 0 < end <= len(data))
