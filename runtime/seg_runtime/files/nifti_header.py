"""What the first bytes of a NIfTI file say, of both versions and byte orders, and its bytes inflated.

The header is looked at before anything is inflated, and without nibabel, which is an extra.
"""

from __future__ import annotations

import gzip
import struct
import zlib
from dataclasses import dataclass
from io import BytesIO
from math import isfinite, prod
from typing import Any

from seg_runtime.errors import BadImageError
from seg_runtime.files.limits import FREE_BYTES, MOST_INFLATION

__all__ = [
    "DAMAGED_HEADER",
    "first_bytes",
    "inflate_nifti",
    "is_nifti",
    "is_nifti1",
    "nifti_slices",
    "nifti_spacing_hw",
]

DAMAGED_HEADER = "the header of the NIfTI file is damaged: convert it again"

_GZIP = b"\x1f\x8b"
_HEADER_BYTES = 540
"""Of NIfTI-2; that of NIfTI-1 has 348."""
_MOST_BYTES = 2**30
"""Of the values of a file: 2048 slices of 512x512 with 16 bits."""
_MOST_EXTENSIONS = 2**24
"""Bytes between header and values."""
_MM = {0: 1.0, 1: 1000.0, 2: 1.0, 3: 0.001}
"""Length of each unit of the header; a file that states none means mm."""


def is_nifti(data: bytes) -> bool:
    """Whether bytes, gzipped or not, begin as a NIfTI file of one part does."""
    return _order(first_bytes(data)) is not None


def nifti_slices(data: bytes) -> int:
    """How many slices a file has, as its header says. Raises BadImageError for other shapes."""
    return prod(_header(first_bytes(data)).sizes[2:])


def nifti_spacing_hw(data: bytes) -> tuple[float, float] | None:
    """(height, width) of a pixel in mm; None where the header does not say. Raises as `nifti_slices`."""
    header = _header(first_bytes(data))
    width, height = map(abs, header.sides)
    good = header.unit in _MM and all(isfinite(side) and side > 0 for side in (width, height))
    return (height * _MM[header.unit], width * _MM[header.unit]) if good else None


def is_nifti1(head: bytes) -> bool:
    """Whether the first bytes are of NIfTI-1, not NIfTI-2."""
    return _order(head) in ("<1", ">1")


def inflate_nifti(data: bytes, max_pixels: int) -> bytes:
    """The file's bytes, up to the end of its values.

    Args:
        data: gzipped or not.
        max_pixels: largest height times width of a slice.

    Raises:
        BadImageError: it is damaged or too large, or neither a slice nor a stack of them.
    """
    return _inflated(data, _checked_size(first_bytes(data), len(data), max_pixels))


@dataclass(frozen=True)
class _Header:
    """The size of each axis, bits of a value, where values begin, (x, y) of a pixel and their unit."""

    sizes: tuple[int, ...]
    bits: int
    offset: int
    sides: tuple[float, float]
    unit: int


def _header(head: bytes) -> _Header:
    order = _order(head) or "<1"
    first = order.endswith("1")

    def field(kind: str, at: int) -> tuple[Any, ...]:
        return struct.unpack_from(order[0] + kind, head, at)

    count, *shape = field("8h", 40) if first else field("8q", 16)
    (bits,) = field("h", 72 if first else 14)
    (offset,) = field("f", 108) if first else field("q", 168)
    _, width, height = field("3f", 76) if first else field("3d", 104)
    (unit,) = field("B", 123) if first else field("i", 500)
    sizes = tuple(shape[:count]) if 1 <= count <= 7 else ()
    if min(sizes, default=0) < 1 or bits < 1 or not 0 <= offset <= _MOST_EXTENSIONS:
        raise BadImageError(DAMAGED_HEADER)
    if len(sizes) < 2 or prod(sizes[3:]) > 1:
        shown = "x".join(map(str, sizes))
        raise BadImageError(
            f"it has the shape {shown}, and a slice or a stack of slices is wanted: save one volume of it"
        )
    return _Header(sizes, bits, int(offset), (width, height), unit & 7)


def _checked_size(head: bytes, stored: int, max_pixels: int) -> int:
    """Bytes up to the end of the values, as the header announces them."""
    header = _header(head)
    sizes, size = header.sizes, prod(header.sizes) * header.bits // 8
    if sizes[0] * sizes[1] > max_pixels or size > _MOST_BYTES:
        raise BadImageError(
            f"it has {prod(sizes)} values ({size / 1e6:.0f} MB); the limit is {_MOST_BYTES} bytes: save a "
            "part of it"
        )
    if size > FREE_BYTES and size > MOST_INFLATION * stored:
        raise BadImageError(
            f"it inflates from {stored / 1e6:.1f} to {size / 1e6:.0f} MB, as no image does: save it as .nii"
        )
    return header.offset + size


def _inflated(data: bytes, size: int) -> bytes:
    if not data.startswith(_GZIP):
        plain = data
    else:
        try:
            file = gzip.GzipFile(fileobj=BytesIO(data))
            # At the end of the file its checksum is compared.
            plain, rest = file.read(size), len(file.read(_MOST_EXTENSIONS))
        except (OSError, EOFError, zlib.error):
            plain, rest = b"", 0
        if rest == _MOST_EXTENSIONS:
            raise BadImageError("it has far more bytes than its header says: convert it again")
    if len(plain) < size:
        raise BadImageError("the NIfTI file is cut off or damaged: copy it again")
    return plain


def first_bytes(data: bytes) -> bytes:
    """Those of a header, inflated; fewer, or none, where the file has no more."""
    if not data.startswith(_GZIP):
        return data[:_HEADER_BYTES]
    try:
        return gzip.GzipFile(fileobj=BytesIO(data[: 2**16])).read(_HEADER_BYTES)
    except (OSError, EOFError, zlib.error):
        return b""


def _order(head: bytes) -> str | None:
    """Byte order and version, as "<1"; None of what is no NIfTI file."""
    for order in "<>":
        if len(head) >= 348 and head[344:348] == b"n+1\0" and head[:4] == struct.pack(f"{order}i", 348):
            return f"{order}1"
        if len(head) >= _HEADER_BYTES and head[4:8] == b"n+2\0" and head[:4] == struct.pack(f"{order}i", 540):
            return f"{order}2"
    return None
