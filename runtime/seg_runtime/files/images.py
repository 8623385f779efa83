"""Image files in and out: PNG, JPEG, TIFF, DICOM and `.npy` as uint8 arrays, masks as PNG.

Files are read as bytes and decoded from memory, so a path may hold any characters. Nothing is
decoded before its header was checked, and nothing is written in place.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seg_runtime.errors import BadImageError, BadInputError
from seg_runtime.files.bands import NUMPY_SIGNATURE, read_bands
from seg_runtime.files.dicom import read_dicom
from seg_runtime.files.image_header import read_header

__all__ = [
    "IMAGE_SUFFIXES",
    "MAX_PIXELS",
    "MIN_SIDE",
    "list_images",
    "read_image",
    "to_uint8",
    "write_mask",
    "write_png",
]

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".dcm", ".dicom", ".npy")
"""What `list_images` takes from a folder; a file named outright may have any suffix."""

MAX_PIXELS = 2**28
"""Largest height times width that is decoded: 16384 x 16384, 0.8 GB as 8-bit RGB."""

MAX_FILE_BYTES = 2**31
"""Largest file that is read: an uncompressed TIFF of `MAX_PIXELS` 16-bit RGB pixels fits."""

MIN_SIDE = 8
"""Shortest side in pixels of an image worth segmenting."""


def read_image(path: str | Path, channels: int, *, gray: bool = False) -> NDArray[np.uint8]:
    """Read an image file as the pixels a viewer shows: EXIF orientation is applied.

    The format is told by the file's content. An alpha channel is dropped, not composited. A gray
    file read for three channels is replicated; a colour file read for one channel is accepted
    when red, green and blue are equal everywhere. Of a TIFF with several pages the first is read.
    16-bit values become 8-bit by `to_uint8`, DICOM values by `seg_runtime.files.dicom.read_dicom`.

    Other numbers of channels are bands of a TIFF, a page or a sample each, or of a `.npy` array (H, W, C);
    they come as they are stored. An array (H, W) or (H, W, 3) is read for one and three channels too.

    Args:
        path: the file.
        channels: 1 for gray, 3 for RGB, or how many bands; the model's.
        gray: convert a colour file to luminance (ITU-R BT.601, as OpenCV does) for one channel.

    Returns:
        (H, W) uint8 for one channel, (H, W, 3) RGB uint8 for three, (H, W, C) uint8 for others.

    Raises:
        BadImageError: missing, empty, cut off or damaged, of an unknown format or depth, too
            small, too large, in colour where gray is wanted, or of another number of bands.
        MissingExtraError: a DICOM file, and pydicom is not installed.
    """
    path = Path(path)
    try:
        data = _read_bytes(path)
        if channels in (1, 3):
            return _with_channels(_decode(data), channels, gray)
        return _bands(data, channels)
    except BadImageError as error:
        raise BadImageError(f"cannot read image '{path}': {error}") from error


def to_uint8(array: NDArray[Any]) -> NDArray[np.uint8]:
    """Reduce pixel values to 8 bits, by shifts alone, so that every machine gets the same bytes.

    uint8 stays as it is. The depth of uint16 values is that of the
    largest one in the array: up to 255 they are 8-bit values in a wider container and stay, up to
    4095 they are 12-bit and shifted right by 4, above that they are 16-bit and shifted by 8.

    Args:
        array: pixel values of any shape.

    Returns:
        A uint8 array of the same shape.

    Raises:
        BadImageError: another dtype, whose range nobody can know; bool, which is a mask and no image.
    """
    if array.dtype == np.uint8:
        return np.asarray(array, dtype=np.uint8)
    if array.dtype == np.bool_:
        raise BadImageError("its pixels are bool, as those of a mask: save uint8, 0 to 255")
    if array.dtype != np.uint16:
        raise BadImageError(
            f"its pixels are {array.dtype} and must be 8- or 16-bit unsigned: convert it first"
        )
    largest = int(array.max()) if array.size else 0
    shift = 0 if largest <= 255 else 4 if largest <= 4095 else 8
    return np.asarray(array >> shift, dtype=np.uint8)


def list_images(sources: Iterable[str | Path]) -> tuple[Path, ...]:
    """The image files of files and folders, in the order given, each folder sorted by name.

    Only paths are held, so ten thousand images cost a few megabytes until they are read one by
    one. Files are taken as given, existing or not: reading one tells what is wrong with it.
    Subfolders, hidden files and files without a suffix of `IMAGE_SUFFIXES` are left out of folders;
    a file reached twice is listed once.

    Raises:
        BadInputError: a folder without images, or an unreadable one.
    """
    found: dict[Path, None] = {}
    for source in map(Path, sources):
        found.update(dict.fromkeys(_folder_images(source) if source.is_dir() else [source]))
    return tuple(found)


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
    try:
        _replace(path, encoded.tobytes())
    except OSError as error:
        raise BadInputError(f"cannot write '{path}': {error.strerror or error}") from error


def _replace(path: Path, data: bytes) -> None:
    temporary = path.with_name(f".{uuid.uuid4().hex}.partial")
    try:
        temporary.write_bytes(data)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _folder_images(folder: Path) -> list[Path]:
    try:
        entries = [entry for entry in folder.iterdir() if not entry.name.startswith(".")]
    except OSError as error:
        raise BadInputError(f"cannot list folder '{folder}': {error.strerror or error}") from error
    images = sorted(entry for entry in entries if entry.suffix.lower() in IMAGE_SUFFIXES and entry.is_file())
    if not images:
        wanted = ", ".join(IMAGE_SUFFIXES)
        raise BadInputError(f"folder '{folder}' has no images ({wanted}); subfolders are not searched")
    return images


def _read_bytes(path: Path) -> bytes:
    if path.exists() and not path.is_file():
        raise BadImageError("it is a folder" if path.is_dir() else "it is not a regular file")
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise BadImageError(f"the file is larger than {MAX_FILE_BYTES} bytes: cut it into tiles first")
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise BadImageError("there is no such file") from error
    except OSError as error:
        raise BadImageError(error.strerror or str(error)) from error
    if not data:
        raise BadImageError("the file is empty")
    return data


def _decode(data: bytes) -> NDArray[np.uint8]:
    """(H, W) gray or (H, W, 3) RGB uint8."""
    if data.startswith(NUMPY_SIGNATURE):
        return _array(data)
    header = read_header(data)
    if header is None:
        raise BadImageError("it is not a PNG, JPEG, TIFF or DICOM image, whatever its name says")
    if not header.complete:
        raise BadImageError(f"the {header.kind.upper()} file is cut off or damaged: copy it again")
    if header.kind == "dicom":
        image = read_dicom(data, MAX_PIXELS)
    else:
        _check_size(header.size_hw)
        image = _decode_raster(data, header.kind)
    _check_size(image.shape[:2])
    return image


def _array(data: bytes) -> NDArray[np.uint8]:
    """(H, W) gray or (H, W, 3) RGB uint8 of a `.npy` file."""
    pixels = to_uint8(read_bands(data, MAX_PIXELS))
    _check_size(pixels.shape[:2])
    if pixels.shape[2] not in (1, 3):
        raise BadImageError(f"it has {pixels.shape[2]} bands and the model takes gray or RGB images")
    return pixels[..., 0] if pixels.shape[2] == 1 else pixels


def _bands(data: bytes, count: int) -> NDArray[np.uint8]:
    """(H, W, count) uint8."""
    header = None if data.startswith(NUMPY_SIGNATURE) else read_header(data)
    if header is not None and not header.complete:
        raise BadImageError(f"the {header.kind.upper()} file is cut off or damaged: copy it again")
    pixels = read_bands(data, MAX_PIXELS)
    _check_size(pixels.shape[:2])
    if pixels.shape[2] != count:
        raise BadImageError(f"the model wants {count} bands and it has {pixels.shape[2]}")
    return to_uint8(pixels)


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


def _decode_raster(data: bytes, kind: str) -> NDArray[np.uint8]:
    import cv2

    # IMREAD_UNCHANGED would ignore the EXIF orientation.
    flags = cv2.IMREAD_ANYDEPTH | cv2.IMREAD_ANYCOLOR
    try:
        pixels = cv2.imdecode(np.frombuffer(data, dtype=np.uint8), flags)
    except (cv2.error, MemoryError) as error:
        raise BadImageError(f"the {kind.upper()} file cannot be decoded") from error
    if pixels is None:
        raise BadImageError(f"the {kind.upper()} file cannot be decoded: save it again with another program")
    image = to_uint8(pixels)
    return image if image.ndim == 2 else np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), dtype=np.uint8)


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
