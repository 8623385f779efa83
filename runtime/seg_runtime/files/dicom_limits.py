"""What reading a DICOM file may cost, checked before pydicom and its decoders do the work.

pydicom inflates a data set whole, walks through any number of elements in Python, and hands compressed pixels
to decoders that allocate what the pixels themselves announce, whatever the data set says.
"""

from __future__ import annotations

import struct
import zlib
from io import BytesIO
from typing import Any

from seg_runtime.errors import BadImageError
from seg_runtime.files.jpeg_segments import SIZES, count_scans, jpeg_segments
from seg_runtime.files.limits import MOST_SCANS, check_scans

__all__ = ["CountedFile", "check_pixel_data", "plain_data_set"]

_FREE_PIXELS = 2**25
"""Pixels that any file may have; the largest mammograms have less. They take 20 bytes each on the way."""

_MOST_INFLATION = 40
"""Bytes of pixels per byte of a larger file, or of a deflated one; X-rays reach 3 to 20."""

_MOST_INFLATED = 2 * _FREE_PIXELS
"""Bytes that any deflated data set may have."""

_MOST_READS = 200_000
"""Of pieces of a file, two or three for each element; files of one frame have some hundred elements."""

_LARGEST_ELEMENT = 2**21
"""Bytes of any element but the pixels: the largest, tables of 65536 values, have 128 KB each."""

_PIXEL_DATA = 0x7FE00010
_EXPLICIT = b"\x02\x00\x10\x00UI\x14\x001.2.840.10008.1.2.1\x00"
"""The element of file meta information that says: little endian, with names of types, not deflated."""

_JPEG_SIZES = SIZES | {0xF7}
"""That of JPEG-LS too."""

_J2K = b"\xff\x4f\xff\x51"
"""How a JPEG 2000 code stream begins: the size follows (ITU T.800, A.5.1)."""


class CountedFile(BytesIO):
    """A file in memory that ends the walk of a parser which never comes to an end."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self._left = _MOST_READS

    def read(self, size: int | None = -1) -> bytes:
        self._left -= 1
        if self._left < 0:
            raise BadImageError(
                "it has far more elements than an image of one frame: export the image again, without them"
            )
        return super().read(size)


def plain_data_set(data: bytes) -> bytes:
    """The file with its data set inflated, where it is deflated; else as it is.

    Raises:
        BadImageError: it inflates to more than images of its size do.
        Exception: pydicom's, of damaged bytes.
    """
    from pydicom.filereader import read_dataset
    from pydicom.uid import DeflatedExplicitVRLittleEndian

    file = CountedFile(data)
    file.seek(132 if data[128:132] == b"DICM" else 0)
    meta = read_dataset(file, False, True, stop_when=lambda tag, *_: tag >> 16 != 2)
    if meta.get("TransferSyntaxUID") != DeflatedExplicitVRLittleEndian:
        return data
    return bytes(128) + b"DICM" + _EXPLICIT + _inflated(memoryview(data)[file.tell() :])


def check_pixel_data(dataset: Any, stored: int) -> None:
    """Refuse pixels that would be decoded into far more than they are, or than the data set says.

    Args:
        dataset: with its transfer syntax set.
        stored: bytes of the file.

    Raises:
        BadImageError: what is too large, or does not fit the data set.
    """
    values = (dataset.get_item(tag).value for tag in map(int, dataset.keys()) if tag != _PIXEL_DATA)
    if any(isinstance(value, bytes) and len(value) > _LARGEST_ELEMENT for value in values):
        raise BadImageError(f"an element of it has over {_LARGEST_ELEMENT} bytes: export the image again")
    pixels = int(dataset.Rows) * int(dataset.Columns)
    decoded = pixels * int(dataset.SamplesPerPixel) * -(-int(dataset.BitsAllocated) // 8)
    if pixels > _FREE_PIXELS and decoded > _MOST_INFLATION * stored:
        raise BadImageError(
            f"it has {dataset.Columns}x{dataset.Rows} pixels ({decoded / 1e6:.0f} MB) in a file of "
            f"{stored / 1e6:.1f} MB, as no image has: export it uncompressed"
        )
    if dataset.file_meta.TransferSyntaxUID.is_encapsulated:
        _check_encapsulated(dataset.PixelData, (int(dataset.Rows), int(dataset.Columns)), decoded)


def _check_encapsulated(value: bytes, size_hw: tuple[int, int], decoded: int) -> None:
    """Of the fragments of one compressed frame."""
    from pydicom.encaps import get_frame

    # Compression that makes noise larger stays far below this.
    if len(value) > 2 * decoded + _LARGEST_ELEMENT:
        raise BadImageError(f"its pixels are {len(value)} bytes, compressed, of {decoded}: export it again")
    frame = get_frame(value, 0, number_of_frames=1)
    check_scans(count_scans(frame, MOST_SCANS) if frame.startswith(b"\xff\xd8\xff") else 0)
    stated = _stated_size(frame)
    if stated is not None and stated[0] * stated[1] > size_hw[0] * size_hw[1]:
        raise BadImageError(
            f"its pixels are a picture of {stated[1]}x{stated[0]} and its header says "
            f"{size_hw[1]}x{size_hw[0]}: export it again"
        )


def _stated_size(frame: bytes) -> tuple[int, int] | None:
    """(height, width) in the headers of a JPEG, JPEG-LS or JPEG 2000; None for RLE, and without any."""
    at = frame.find(_J2K)
    if at >= 0 and not frame.startswith(b"\xff\xd8"):
        width, height = struct.unpack_from(">II", frame, at + 8)
        return height, width
    if not frame.startswith(b"\xff\xd8"):
        return None
    for marker, place in jpeg_segments(frame):
        if marker in _JPEG_SIZES:
            height, width = struct.unpack_from(">HH", frame, place + 3)
            return height, width
    return None


def _inflated(deflated: memoryview) -> bytes:
    most = max(_MOST_INFLATED, _MOST_INFLATION * len(deflated))
    stream = zlib.decompressobj(-zlib.MAX_WBITS)
    inflated = stream.decompress(deflated, most)
    if stream.unconsumed_tail:
        raise BadImageError(
            f"its {len(deflated)} bytes inflate to over {most}, as no image does: export it uncompressed"
        )
    return inflated
