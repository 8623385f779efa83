"""Decodes PNG, JPEG and TIFF files through OpenCV, and what OpenCV leaves out of what these files mean."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seg_runtime.errors import BadImageError
from seg_runtime.files.bands import read_page
from seg_runtime.files.bit_depth import unscaled
from seg_runtime.files.image_header import ImageKind
from seg_runtime.files.jpeg_data import ends_early, holds_too_little
from seg_runtime.files.tiff_tags import TiffPage, tiff_pages
from seg_runtime.opencv_log import quiet

__all__ = ["Raster", "decode_raster", "stated_tiff_bits"]

_SUBFILE, _BITS, _PHOTOMETRIC, _SAMPLES, _MAX_VALUE, _PLANAR, _EXTRA, _S_MAX_VALUE = (
    254, 258, 262, 277, 281, 284, 338, 341,
)  # fmt: skip
_WHITE_IS_ZERO, _RGB = 0, 2
_ASSOCIATED, _UNASSOCIATED = 1, 2
_REDUCED_OR_MASK = 5
_ENDS_EARLY = "the JPEG file is damaged: its data end before the last rows; copy it again"
_USUAL_BITS = (8, 10, 12, 14, 16)


@dataclass(frozen=True)
class Raster:
    """Decoded pixels and what the file says about them.

    Attributes:
        values: (H, W) gray or (H, W, 3) RGB, uint8, uint16 or what nobody can show.
        stated_bits: how many bits of uint16 count, where the file says so.
        white_is_zero: the gray values are still to be inverted.
        notes: what of the file was left out, a sentence each.
    """

    values: NDArray[Any]
    stated_bits: int | None = None
    white_is_zero: bool = False
    notes: tuple[str, ...] = ()


def decode_raster(data: bytes, kind: ImageKind) -> Raster:
    """Decode a complete file whose header was checked.

    Raises:
        BadImageError: it cannot be decoded, or its data do not reach to the last row.
    """
    if kind == "tiff":
        return _tiff(data)
    if kind == "jpeg" and holds_too_little(data):
        raise BadImageError(_ENDS_EARLY)
    values = _decoded(data, kind)
    if kind == "jpeg" and ends_early(data, values):
        raise BadImageError(_ENDS_EARLY)
    bits = _png_bits(data) if kind == "png" else None
    return Raster(*_unscaled(values, bits))


def stated_tiff_bits(page: TiffPage) -> int | None:
    """How many bits of a deep page count: BitsPerSample below 16, else what MaxSampleValue needs."""
    try:
        bits = max(page.values(_BITS, (1,)))
        largest = max(page.values(_S_MAX_VALUE, page.values(_MAX_VALUE, (0,))))
    except (KeyError, struct.error, ValueError):
        return None
    if 8 < bits < 16:
        return bits
    if bits != 16 or not 255 <= largest <= 65535:
        return None
    # What is not all ones is the largest value there is, and not the largest possible.
    needed = largest.bit_length()
    return needed if largest + 1 == 2**needed else next(usual for usual in _USUAL_BITS if usual >= needed)


def _tiff(data: bytes) -> Raster:
    pages = _pages(data)
    page = pages[0]
    try:
        samples, deep = page.values(_SAMPLES, (1,))[0], max(page.values(_BITS, (1,))) > 8
        planes = page.values(_PLANAR, (1,))[0] == 2
        photometric = page.values(_PHOTOMETRIC, (1,))[0]
        # OpenCV mixes up the samples of deep pages with one plane after the other, and of gray with alpha.
        if deep and samples > 1 and (planes or samples == 2):
            values = read_page(page)
            values = values[..., :3] if photometric == _RGB else values[..., 0]
        else:
            values = _decoded(_with_plain_colours(page), "tiff")
    except BadImageError:
        raise
    except (struct.error, KeyError, IndexError, ValueError, zlib.error) as error:
        raise BadImageError("the TIFF file is cut off or damaged: copy it again") from error
    values, bits = _unscaled(values, stated_tiff_bits(page))
    notes = (f"it has {len(pages)} pages, of which the first was read",) if len(pages) > 1 else ()
    # OpenCV inverts pages of 8 bits only.
    return Raster(values, bits, photometric == _WHITE_IS_ZERO and values.dtype != np.uint8, notes)


def _pages(data: bytes) -> list[TiffPage]:
    """The first page, and those after it that are pictures in their own right."""
    found: list[TiffPage] = []
    try:
        for page in tiff_pages(data):
            if not found or not page.values(_SUBFILE, (0,))[0] & _REDUCED_OR_MASK:
                found.append(page)
    except (KeyError, struct.error, IndexError):
        # Damage after the first page, which alone is read, does no harm.
        pass
    if not found:
        raise BadImageError("its header is cut off or damaged")
    return found


def _with_plain_colours(page: TiffPage) -> bytes:
    """The file, its alpha declared as multiplied already, so that libtiff leaves the colours as they are."""
    extra = page.values(_EXTRA, (0,))
    if _UNASSOCIATED not in extra:
        return page.data
    changed = (_ASSOCIATED if each == _UNASSOCIATED else each for each in extra)
    data = bytearray(page.data)
    struct.pack_into(page.layout(_EXTRA), data, page.where(_EXTRA), *changed)
    return bytes(data)


def _png_bits(data: bytes) -> int | None:
    """Significant bits of the colours as the sBIT chunk, which lies before the pixels, has them."""
    at, color_type = 8, data[25]
    while data[at + 4 : at + 8] not in (b"IDAT", b"IEND"):
        (length,) = struct.unpack_from(">I", data, at)
        if data[at + 4 : at + 8] == b"sBIT" and length:
            # Color types 4 and 6 have alpha as the last.
            bits = max(data[at + 8 : at + 8 + length - (color_type in (4, 6))], default=0)
            return bits if 8 <= bits <= 16 else None
        at += 12 + length
    return None


def _unscaled(values: NDArray[Any], bits: int | None) -> tuple[NDArray[Any], int | None]:
    if bits is None or values.dtype != np.uint16:
        return values, bits
    return unscaled(values, bits), bits


def _decoded(data: bytes, kind: ImageKind) -> NDArray[Any]:
    """(H, W) or (H, W, 3) RGB of the dtype that the file has."""
    import cv2

    # IMREAD_UNCHANGED would ignore the EXIF orientation.
    flags = cv2.IMREAD_ANYDEPTH | cv2.IMREAD_ANYCOLOR
    try:
        with quiet():
            pixels = cv2.imdecode(np.frombuffer(data, dtype=np.uint8), flags)
    except (cv2.error, MemoryError) as error:
        raise BadImageError(f"the {kind.upper()} file cannot be decoded") from error
    if pixels is None:
        raise BadImageError(f"the {kind.upper()} file cannot be decoded: save it again with another program")
    # In place: a copy of a large picture takes as much again.
    return pixels if pixels.ndim == 2 else cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB, dst=pixels)
