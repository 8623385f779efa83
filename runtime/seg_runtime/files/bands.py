"""Images of any number of bands: NumPy arrays, and TIFF files with a band per page or per sample.

OpenCV reads pages of one band each, and silently keeps one band of a page of two; pages of several bands
are therefore decoded here, uncompressed or with Deflate, as GDAL writes them by default.
"""

from __future__ import annotations

import struct
import zlib
from io import BytesIO
from math import prod
from tokenize import TokenError
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from seg_runtime.errors import BadImageError
from seg_runtime.files.limits import check_inflation
from seg_runtime.files.tiff_tags import TIFF_SIGNATURES, TiffPage, tiff_pages
from seg_runtime.opencv_log import quiet

__all__ = ["NUMPY_SIGNATURE", "read_bands", "read_page"]

NUMPY_SIGNATURE = b"\x93NUMPY"

_BITS, _COMPRESSION, _SAMPLES, _ROWS, _PLANAR, _PREDICTOR, _FORMAT = 258, 259, 277, 278, 284, 317, 339
_STRIPS, _TILES, _TILE_WIDTH, _TILE_HEIGHT = (273, 279), (324, 325), 322, 323
_DEFLATE = (8, 32946)
_MOST_BANDS = 64
_ELSE = "save it uncompressed, or the array as .npy"


def read_bands(data: bytes, max_pixels: int) -> NDArray[Any]:
    """Decode a `.npy` or TIFF file.

    Args:
        data: the file's bytes.
        max_pixels: largest height times width to decode.

    Returns:
        (H, W, C), of the dtype that the file has; C is 1 for an array or file of one band.

    Raises:
        BadImageError: another format, damaged, too large, or compressed in a way that is not known here. The
            message leaves out the file's name: the caller knows it.
    """
    if data.startswith(NUMPY_SIGNATURE):
        return _numpy(data, max_pixels)
    if data[:4] not in TIFF_SIGNATURES:
        raise BadImageError("it is no TIFF or .npy file, which alone can hold more than 3 bands")
    try:
        pages = list(tiff_pages(data))
        sizes = {page.size_hw for page in pages}
        if len(sizes) != 1:
            raise BadImageError("its pages differ in size: bands must have one size")
        _check_pixels(pages[0].size_hw, max_pixels)
        if len(pages) > _MOST_BANDS:
            raise BadImageError(f"it has {len(pages)} pages; at most {_MOST_BANDS} are read as bands")
        check_inflation(pages[0].size_hw, sum(page.pixel_bytes for page in pages), len(data))
        samples = {page.values(_SAMPLES, (1,))[0] for page in pages}
        if samples == {1}:
            return _from_pages(data, len(pages))
        if len(pages) > 1:
            raise BadImageError(f"it has {len(pages)} pages of several bands: save one page")
        if max(samples) > _MOST_BANDS:
            raise BadImageError(f"it has {max(samples)} bands; at most {_MOST_BANDS} are read")
        return read_page(pages[0])
    except (struct.error, KeyError, ValueError, zlib.error) as error:
        if isinstance(error, BadImageError):
            raise
        raise BadImageError("the TIFF file is cut off or damaged: copy it again") from error


def _numpy(data: bytes, max_pixels: int) -> NDArray[Any]:
    """Never unpickles: an array of objects is refused by its header."""
    file, headers = BytesIO(data), cast(Any, np.lib.format)
    try:
        readers = {(1, 0): headers.read_array_header_1_0, (2, 0): headers.read_array_header_2_0}
        shape, fortran, dtype = readers[headers.read_magic(file)](file)
    except (KeyError, ValueError, SyntaxError, TokenError, MemoryError, RecursionError) as error:
        raise BadImageError("its .npy header is damaged or of an unknown version") from error
    if dtype.hasobject:
        raise BadImageError("the .npy file holds Python objects, which could run code, and is refused")
    if len(shape) not in (2, 3) or min(shape) < 1:
        raise BadImageError(f"its array has the shape {shape}, expected (H, W) or (H, W, C)")
    _check_pixels(shape, max_pixels)
    if prod(shape) * dtype.itemsize != len(data) - file.tell():
        raise BadImageError("the .npy file is cut off or damaged: copy it again")
    values = np.frombuffer(data, dtype, offset=file.tell()).reshape(shape, order="F" if fortran else "C")
    native = np.ascontiguousarray(values, dtype.newbyteorder("="))
    return native[..., None] if native.ndim == 2 else native


def _check_pixels(shape: tuple[int, ...], max_pixels: int) -> None:
    if shape[0] * shape[1] > max_pixels:
        raise BadImageError(
            f"it has {shape[1]}x{shape[0]} pixels; the limit is {max_pixels}: cut it into tiles"
        )


def _from_pages(data: bytes, count: int) -> NDArray[Any]:
    """A band per page, in any compression that OpenCV knows."""
    import cv2

    try:
        with quiet():
            read, pages = cv2.imdecodemulti(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except (cv2.error, MemoryError) as error:
        raise BadImageError(f"the TIFF file cannot be decoded: {_ELSE}") from error
    if not read or len(pages) != count or any(page.ndim != 2 for page in pages):
        raise BadImageError(f"the TIFF file cannot be decoded: {_ELSE}")
    return np.dstack(pages)


def read_page(page: TiffPage) -> NDArray[Any]:
    """(H, W, C) of a page of several bands: interleaved, or one plane after the other.

    Raises:
        BadImageError: compressed in a way that is not known here, or of another depth than 8 or 16 bits.
        KeyError, struct.error, ValueError, zlib.error: cut off or damaged.
    """
    (height, width), (count,) = page.size_hw, page.values(_SAMPLES)
    planes = count if page.values(_PLANAR, (1,))[0] == 2 else 1
    dtype, tiled = _dtype(page), _TILES[0] in page.entries
    rows = min(page.values(_ROWS, (height,))[0], height)
    block_hw = (page.values(_TILE_HEIGHT)[0], page.values(_TILE_WIDTH)[0]) if tiled else (rows, width)
    down, across = -(-height // block_hw[0]), -(-width // block_hw[1])
    offsets, lengths = (page.values(tag) for tag in (_TILES if tiled else _STRIPS))
    if len(offsets) != planes * down * across:
        raise KeyError(offsets)
    image = np.empty((height, width, count), dtype.newbyteorder("="))
    for index, (offset, length) in enumerate(zip(offsets, lengths, strict=True)):
        plane, cell = divmod(index, down * across)
        top, left = (cell // across) * block_hw[0], (cell % across) * block_hw[1]
        # A tile is whole at the border of the image; a strip ends with it.
        shape = (block_hw[0] if tiled else min(rows, height - top), block_hw[1], count // planes)
        block = _block(page, page.data[offset : offset + length], shape, dtype)
        into = image[top : top + shape[0], left : left + shape[1]]
        bands = slice(plane, plane + 1) if planes > 1 else slice(None)
        into[..., bands] = block[: into.shape[0], : into.shape[1]]
    return image


def _dtype(page: TiffPage) -> np.dtype[Any]:
    (bits, *others), formats = page.values(_BITS), page.values(_FORMAT, (1,))
    if bits not in (8, 16) or any(other != bits for other in others) or set(formats) != {1}:
        raise BadImageError("its bands must all be 8- or 16-bit unsigned: convert it first")
    return np.dtype(f"{page.order}u{bits // 8}")


def _block(page: TiffPage, stored: bytes, shape: tuple[int, int, int], dtype: np.dtype[Any]) -> NDArray[Any]:
    """One strip or tile, (h, w, bands)."""
    (compression,), (predictor,) = page.values(_COMPRESSION, (1,)), page.values(_PREDICTOR, (1,))
    size = prod(shape) * dtype.itemsize
    if (compression != 1 and compression not in _DEFLATE) or predictor not in (1, 2):
        raise BadImageError(f"its bands are compressed in a way that is not read here: {_ELSE}")
    if compression != 1:
        stored = zlib.decompressobj().decompress(stored, size)
    values = np.frombuffer(stored[:size], dtype).reshape(shape)
    # The predictor stores the difference to the pixel on the left.
    return np.cumsum(values, axis=1, dtype=dtype.newbyteorder("=")) if predictor == 2 else values
