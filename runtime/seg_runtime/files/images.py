"""Image files in and out: PNG, JPEG, TIFF, DICOM, NIfTI and `.npy` as uint8 arrays, masks as PNG.

Files are read as bytes and decoded from memory, so a path may hold any characters. Nothing is
decoded before its header was checked, and nothing is written in place.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seg_runtime.errors import BadImageError, BadInputError
from seg_runtime.files.bands import NUMPY_SIGNATURE, read_bands
from seg_runtime.files.bit_depth import BitDepth, check_bit_depth, decide_depth, scale_to_uint8, unscaled
from seg_runtime.files.dicom import read_dicom
from seg_runtime.files.image_header import HEAD_BYTES, complete_header, other_format
from seg_runtime.files.limits import check_inflation
from seg_runtime.files.listing import IMAGE_SUFFIXES, list_images
from seg_runtime.files.nifti import NiftiStack, one_slice, read_nifti, split_slice
from seg_runtime.files.nifti_header import is_nifti
from seg_runtime.files.raster import Raster, decode_raster, stated_tiff_bits
from seg_runtime.files.tiff_tags import tiff_pages
from seg_runtime.plain_files import check_whole

__all__ = [
    "IMAGE_SUFFIXES",
    "MAX_PIXELS",
    "MIN_SIDE",
    "LoadedImage",
    "list_images",
    "load_image",
    "read_bytes",
    "read_image",
    "replace_file",
    "to_uint8",
    "write_mask",
    "write_png",
]

MAX_PIXELS = 2**28
"""Largest height times width that is decoded: 16384 x 16384, 0.8 GB as 8-bit RGB."""

MAX_FILE_BYTES = 2**31
"""Largest file that is read: an uncompressed TIFF of `MAX_PIXELS` 16-bit RGB pixels fits."""

MIN_SIDE = 8
"""Shortest side in pixels of an image worth segmenting."""


@dataclass(frozen=True)
class LoadedImage:
    """An image file's pixels and how they were read.

    Attributes:
        pixels: (H, W) uint8 for one channel, (H, W, 3) RGB uint8 for three, (H, W, C) uint8 for others.
        depth: what deeper pixels were reduced by; 8 bits where they are not deeper.
        warnings: what a reader of the results should know, a sentence each: a guessed depth, pages left out.
    """

    pixels: NDArray[np.uint8]
    depth: BitDepth
    warnings: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """As it stands in result files: the depth, whether it was a guess, and warnings."""
        return self.depth.to_json() | {"warnings": list(self.warnings)}


def read_image(
    path: str | Path, channels: int, *, gray: bool = False, bit_depth: int | None = None
) -> NDArray[np.uint8]:
    """The pixels of `load_image`, which says how they were read too. Arguments and errors likewise."""
    return load_image(path, channels, gray=gray, bit_depth=bit_depth).pixels


def load_image(
    path: str | Path, channels: int, *, gray: bool = False, bit_depth: int | None = None
) -> LoadedImage:
    """Read an image file as the pixels a viewer shows: EXIF orientation is applied.

    The format is what the content says. An alpha channel is dropped, not composited. A gray
    file read for three channels is replicated; a colour file read for one channel is accepted
    when red, green and blue are equal everywhere. Of a TIFF with several pages the first is read, of a
    NIfTI file with several slices the one that the path names, as "scan.nii.gz/12".
    16-bit values become 8-bit by the depth that the file states (PNG's sBIT, TIFF's BitsPerSample and
    MaxSampleValue, DICOM's BitsStored), else by `seg_runtime.files.bit_depth.decide_depth`; what DICOM adds
    is in `seg_runtime.files.dicom.read_dicom`.

    Other numbers of channels are bands of a TIFF, a page or a sample each, or of a `.npy` array (H, W, C);
    they come as they are stored. An array (H, W) or (H, W, 3) is read for one and three channels too.

    Args:
        path: the file.
        channels: 1 for gray, 3 for RGB, or how many bands; the model's.
        gray: convert a colour file to luminance (ITU-R BT.601, as OpenCV does) for one channel.
        bit_depth: how many bits of 16-bit values count, 8 to 16, whatever the file states.

    Raises:
        BadImageError: missing, empty, cut off or damaged, of an unknown format or depth, too
            small, too large, in colour where gray is wanted, or of another number of bands.
        BadInputError: no such bit depth.
        MissingExtraError: a DICOM file, and pydicom is not installed.
    """
    check_bit_depth(bit_depth)
    path = Path(path)
    try:
        file, slice_number = split_slice(path)
        data = read_bytes(file)
        if channels not in (1, 3):
            return _bands(data, channels, bit_depth)
        loaded = _decode(data, slice_number, bit_depth)
        return replace(loaded, pixels=_with_channels(loaded.pixels, channels, gray))
    except BadImageError as error:
        raise BadImageError(f"cannot read image '{path}': {error}") from error


def to_uint8(array: NDArray[Any], bits: int | None = None) -> NDArray[np.uint8]:
    """Reduce pixel values to 8 bits: `value` * 255 / (2**bits - 1), rounded, the same on every machine.

    uint8 stays as it is. The depth of uint16 values, where `bits` is not given, is estimated by
    `seg_runtime.files.bit_depth.decide_depth`.

    Args:
        array: pixel values of any shape.
        bits: how many bits of uint16 values count.

    Returns:
        A uint8 array of the same shape.

    Raises:
        BadImageError: another dtype, whose range nobody can know; bool, which is a mask and no image.

    Example:
        >>> to_uint8(np.array([0, 512, 1023], np.uint16), bits=10).tolist()
        [0, 128, 255]
    """
    return _reduced(array, None, bits)[0]


def write_mask(path: str | Path, mask: NDArray[np.uint8], *, binary: bool) -> None:
    """Write a mask as a gray PNG, whole or not at all.

    Args:
        path: the file; a present one is replaced.
        mask: (H, W) uint8 of class ids.
        binary: write 0 and 255, as viewers and the lung data sets expect; else the ids themselves.

    Raises:
        BadInputError: the file cannot be written.
    """
    write_png(path, np.where(mask > 0, np.uint8(255), np.uint8(0)) if binary else mask)


def write_png(path: str | Path, image: NDArray[np.uint8]) -> None:
    """Write a (H, W) gray or (H, W, 3) RGB uint8 image as PNG, whole or not at all.

    Raises:
        BadInputError: the file cannot be written.
    """
    import cv2

    path = Path(path)
    pixels = cv2.cvtColor(image, cv2.COLOR_RGB2BGR) if image.ndim == 3 else image
    _, encoded = cv2.imencode(".png", pixels)
    replace_file(path, encoded.tobytes())


def replace_file(path: Path, data: bytes) -> None:
    """Write a file whole or not at all, in place of one that is there.

    Raises:
        BadInputError: it cannot be written.
    """
    temporary = path.with_name(f".{uuid.uuid4().hex}.partial")
    try:
        temporary.write_bytes(data)
        temporary.replace(path)
    except OSError as error:
        raise BadInputError(f"cannot write '{path}': {error.strerror or error}") from error
    finally:
        temporary.unlink(missing_ok=True)


def read_bytes(path: Path) -> bytes:
    """All of a file that may be an image.

    Raises:
        BadImageError: it is missing, no regular file, empty or too large; the message leaves out its name.
    """
    if path.exists() and not path.is_file():
        raise BadImageError("it is a folder" if path.is_dir() else "it is not a regular file")
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise BadImageError(f"the file is larger than {MAX_FILE_BYTES} bytes: cut it into tiles first")
        check_whole(path)
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise BadImageError("there is no such file: it is missing, or has another name") from error
    except OSError as error:
        raise BadImageError(error.strerror or str(error)) from error
    if not data:
        raise BadImageError("the file is empty")
    return data


def _decode(data: bytes, slice_number: int | None, bit_depth: int | None) -> LoadedImage:
    """(H, W) gray or (H, W, 3) RGB uint8."""
    if data.startswith(NUMPY_SIGNATURE):
        return _array(data, bit_depth)
    if is_nifti(data):
        return _slice(data, slice_number, bit_depth)
    header = complete_header(data)
    if header is None:
        if other := other_format(data[:HEAD_BYTES]):
            raise BadImageError(
                f"it is in the format {other}, which is not read: save it as PNG or TIFF first"
            )
        raise BadImageError("it is not a PNG, JPEG, TIFF, DICOM or NIfTI image, whatever its name says")
    if header.kind == "dicom":
        loaded = _loaded(*read_dicom(data, MAX_PIXELS, bit_depth))
    else:
        _check_size(header.size_hw)
        check_inflation(header.size_hw, header.pixel_bytes, len(data))
        loaded = _raster(decode_raster(data, header.kind), bit_depth)
    _check_size(loaded.pixels.shape[:2])
    return loaded


def _slice(data: bytes, number: int | None, bit_depth: int | None) -> LoadedImage:
    """(H, W) uint8 of a NIfTI file."""
    # Slices of one file are mostly read one after the other.
    stack = _last_stack(data, bit_depth) if number is not None else read_nifti(data, MAX_PIXELS, bit_depth)
    pixels = one_slice(stack.pixels, number)
    _check_size(pixels.shape)
    return LoadedImage(pixels, stack.depth, stack.warnings)


@lru_cache(maxsize=1)
def _last_stack(data: bytes, bit_depth: int | None) -> NiftiStack:
    return read_nifti(data, MAX_PIXELS, bit_depth)


def _raster(raster: Raster, bit_depth: int | None) -> LoadedImage:
    pixels, depth = _reduced(raster.values, raster.stated_bits, bit_depth)
    return _loaded(np.invert(pixels) if raster.white_is_zero else pixels, depth, raster.notes)


def _array(data: bytes, bit_depth: int | None) -> LoadedImage:
    """(H, W) gray or (H, W, 3) RGB uint8 of a `.npy` file."""
    pixels, depth = _reduced(read_bands(data, MAX_PIXELS), None, bit_depth)
    _check_size(pixels.shape[:2])
    if pixels.shape[2] not in (1, 3):
        raise BadImageError(f"it has {pixels.shape[2]} bands and the model takes gray or RGB images")
    return _loaded(pixels[..., 0] if pixels.shape[2] == 1 else pixels, depth)


def _bands(data: bytes, count: int, bit_depth: int | None) -> LoadedImage:
    """(H, W, count) uint8."""
    header = None if data.startswith(NUMPY_SIGNATURE) else complete_header(data)
    pixels = read_bands(data, MAX_PIXELS)
    _check_size(pixels.shape[:2])
    if pixels.shape[2] != count:
        raise BadImageError(f"the model wants {count} bands and it has {pixels.shape[2]}")
    stated = None
    if header is not None and pixels.dtype == np.uint16:
        stated = stated_tiff_bits(next(tiff_pages(data)))
        pixels = pixels if stated is None else unscaled(pixels, stated)
    return _loaded(*_reduced(pixels, stated, bit_depth))


def _reduced(
    values: NDArray[Any], stated: int | None, wanted: int | None
) -> tuple[NDArray[np.uint8], BitDepth]:
    if values.dtype == np.uint8:
        return np.asarray(values, dtype=np.uint8), BitDepth(8, "file")
    if values.dtype == np.bool_:
        raise BadImageError("its pixels are bool, as those of a mask: save uint8, 0 to 255")
    if values.dtype != np.uint16:
        raise BadImageError(
            f"its pixels are {values.dtype} and must be 8- or 16-bit unsigned: convert it first"
        )
    depth = decide_depth(values, stated, wanted)
    return scale_to_uint8(values, depth.bits), depth


def _loaded(pixels: NDArray[np.uint8], depth: BitDepth, notes: tuple[str, ...] = ()) -> LoadedImage:
    return LoadedImage(pixels, depth, notes if depth.warning is None else (depth.warning, *notes))


def _check_size(size_hw: tuple[int, ...]) -> None:
    height, width = size_hw
    if min(height, width) < MIN_SIDE:
        raise BadImageError(f"it has {width}x{height} pixels; each side must have at least {MIN_SIDE}")
    if height * width > MAX_PIXELS:
        side = int(MAX_PIXELS**0.5)
        raise BadImageError(
            f"it has {width}x{height} pixels; the limit is {MAX_PIXELS} in all ({side}x{side}): "
            "cut it into tiles or scale it down first"
        )


def _with_channels(image: NDArray[np.uint8], channels: int, gray: bool) -> NDArray[np.uint8]:
    import cv2

    if channels == 3:
        return np.repeat(image[..., None], 3, axis=2) if image.ndim == 2 else image
    if image.ndim == 2:
        return image
    red, green, blue = (image[..., index] for index in range(3))
    if np.array_equal(red, green) and np.array_equal(red, blue):
        return np.ascontiguousarray(red)
    if not gray:
        raise BadImageError(
            "the model wants 1 channel and the image has 3: pass --gray (gray=True) to convert it"
        )
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), dtype=np.uint8)
