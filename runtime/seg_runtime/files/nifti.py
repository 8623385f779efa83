"""Reads and writes NIfTI, a slice or a stack of slices, through nibabel, which is an extra.

A slice is the plane of the file's first two axes, as it is stored: columns go along the first axis, rows
along the second, slices along the third, and nothing is flipped. The header is looked at before anything is
inflated.
"""

from __future__ import annotations

import gzip
import importlib
import logging
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from math import isfinite, prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seg_runtime.errors import BadImageError, MissingExtraError
from seg_runtime.files.bit_depth import BitDepth, decide_depth, scale_to_uint8
from seg_runtime.files.limits import FREE_BYTES, MOST_INFLATION

__all__ = [
    "NiftiStack",
    "is_nifti",
    "is_nifti_name",
    "labels_as_nifti",
    "nifti_affine",
    "nifti_slices",
    "nifti_spacing_hw",
    "nifti_values",
    "one_slice",
    "read_nifti",
    "split_slice",
]

_GZIP = b"\x1f\x8b"
_HEADER_BYTES = 540
"""Of NIfTI-2; that of NIfTI-1 has 348."""
_MOST_BYTES = 2**30
"""Of the values of a file: 2048 slices of 512x512 with 16 bits."""
_MOST_EXTENSIONS = 2**24
"""Bytes between header and values."""
_MM = {0: 1.0, 1: 1000.0, 2: 1.0, 3: 0.001}
"""Length of each unit of the header; a file that states none means mm."""
_DAMAGED_HEADER = "the header of the NIfTI file is damaged: convert it again"
_GEOMETRY = (
    *("pixdim", "xyzt_units", "dim_info", "qform_code", "sform_code", "quatern_b", "quatern_c", "quatern_d"),
    *("qoffset_x", "qoffset_y", "qoffset_z", "srow_x", "srow_y", "srow_z"),
)


@dataclass(frozen=True)
class NiftiStack:
    """The slices of a file.

    Attributes:
        pixels: (N, H, W) uint8.
        depth: what unsigned values were reduced by, else the bits of a stored value.
        image: nibabel's, for `labels_as_nifti`.
        warnings: what a reader of the results should know.
    """

    pixels: NDArray[np.uint8]
    depth: BitDepth
    image: Any
    warnings: tuple[str, ...] = ()


def split_slice(path: Path) -> tuple[Path, int | None]:
    """The file and the number of a slice in it: "scan.nii.gz/12" is slice 12 of a stack, from 0 on.

    Example:
        >>> split_slice(Path("ct/scan.nii.gz/12"))[1], split_slice(Path("ct/12"))[1]
        (12, None)
    """
    inside = is_nifti_name(path.parent) and path.name.isdecimal()
    return (path.parent, int(path.name)) if inside else (path, None)


def is_nifti_name(path: Path) -> bool:
    """Whether a file's name ends as that of a NIfTI file."""
    return path.name.lower().endswith((".nii", ".nii.gz"))


def one_slice(slices: NDArray[Any], number: int | None) -> NDArray[Any]:
    """(H, W) of (N, H, W). Raises BadImageError for a wrong number, or none where there are several."""
    count = len(slices)
    if number is None and count > 1:
        raise BadImageError(
            f"it is a stack of {count} slices, and one image is wanted: name one as FILE/0 to "
            f"FILE/{count - 1}"
        )
    if number is not None and number >= count:
        raise BadImageError(f"it has {count} slices, from 0 to {count - 1}, and none of number {number}")
    return np.asarray(slices[number or 0])


def is_nifti(data: bytes) -> bool:
    """Whether bytes, gzipped or not, begin as a NIfTI file of one part does."""
    return _order(_head(data)) is not None


def read_nifti(data: bytes, max_pixels: int, bit_depth: int | None = None) -> NiftiStack:
    """Decode a file and reduce its values to 8 bits, in the same way for all slices.

    Black and white are in this order: cal_min and cal_max of the header; 0 and the white of the depth of
    unsigned values without a scale, as of a PNG; the smallest and the largest value of the file, with a
    warning, since values such as Hounsfield units need a window that the file does not state. What is no
    number becomes black.

    Args:
        data: the file's bytes.
        max_pixels: largest height times width of a slice.
        bit_depth: how many bits of 16-bit unsigned values count.

    Raises:
        BadImageError: it is damaged, too large, in colour, or neither a slice nor a stack of them. The
            message leaves out the file's name: the caller knows it.
        MissingExtraError: nibabel is not installed.
    """
    image, values = _open(data, max_pixels)
    slope, intercept = image.dataobj.slope, image.dataobj.inter
    low, high = float(image.header["cal_min"]), float(image.header["cal_max"])
    stored = BitDepth(8 * values.dtype.itemsize, "file")
    if not high > low and (slope, intercept) == (1, 0):
        if values.dtype == np.uint8:
            return NiftiStack(np.ascontiguousarray(values), stored, image)
        if values.dtype == np.uint16:
            depth = decide_depth(values, None, bit_depth)
            notes = () if depth.warning is None else (depth.warning,)
            return NiftiStack(scale_to_uint8(values, depth.bits), depth, image, notes)
    warnings = _lost(values)
    if not high > low:
        low, high = _ends(values)
        low, high = sorted((slope * low + intercept, slope * high + intercept))
        warnings += (
            f"the file states no window (cal_min and cal_max of its header): its smallest value, {low:g}, is "
            f"black, its largest, {high:g}, white",
        )
    pixels = np.empty(values.shape, np.uint8)
    for number, plane in enumerate(values):
        gray = (plane.astype(np.float64) * slope + intercept - low) * (255 / max(high - low, 1e-12))
        pixels[number] = np.rint(np.clip(np.nan_to_num(gray, nan=0.0), 0, 255))
    return NiftiStack(pixels, stored, image, warnings)


def nifti_values(data: bytes, max_pixels: int) -> NDArray[Any]:
    """(N, H, W): the values of a mask, integers where they are some. Raises as `read_nifti`."""
    image, values = _open(data, max_pixels)
    slope, intercept = image.dataobj.slope, image.dataobj.inter
    if (slope, intercept) == (1, 0):
        return values
    scaled = np.asarray(values * slope + intercept)
    whole = np.rint(scaled)
    return whole.astype(np.int32) if np.allclose(scaled, whole, rtol=0, atol=1e-3) else scaled


def nifti_slices(data: bytes) -> int:
    """How many slices a file has, as its header says. Raises BadImageError for other shapes."""
    return prod(_header(_head(data)).sizes[2:])


def nifti_spacing_hw(data: bytes) -> tuple[float, float] | None:
    """(height, width) of a pixel in mm; None where the header does not say. Raises as `nifti_slices`."""
    header = _header(_head(data))
    width, height = map(abs, header.sides)
    good = header.unit in _MM and all(isfinite(side) and side > 0 for side in (width, height))
    return (height * _MM[header.unit], width * _MM[header.unit]) if good else None


def nifti_affine(data: bytes) -> NDArray[np.float64]:
    """(4, 4): where its voxels lie, in the unit of its header.

    Raises:
        BadImageError: its header is damaged.
        MissingExtraError: nibabel is not installed.
    """
    head, nibabel = _head(data), _nibabel()
    kind = nibabel.Nifti1Header if _is_first(head) else nibabel.Nifti2Header
    with _quiet():
        try:
            return np.asarray(kind.from_fileobj(BytesIO(head)).get_best_affine(), np.float64)
        except Exception:  # noqa: BLE001 - damaged bytes can make nibabel raise anything
            raise BadImageError(_DAMAGED_HEADER) from None


def labels_as_nifti(masks: NDArray[np.uint8], image: Any) -> bytes:
    """Masks as a gzipped file in the space of the image that they are of.

    Only the geometry of its header is taken over, and no text, which may name a patient.

    Args:
        masks: (N, H, W) class ids.
        image: of the `NiftiStack`.
    """
    header = type(image.header)()
    for name in _GEOMETRY:
        header[name] = image.header[name]
    values = masks.transpose(2, 1, 0).reshape(image.shape)
    labels = type(image)(values, image.affine, header, dtype=np.uint8)
    return gzip.compress(labels.to_bytes(), mtime=0)


def _open(data: bytes, max_pixels: int) -> tuple[Any, NDArray[Any]]:
    """nibabel's image, and its stored values (N, H, W)."""
    nibabel = _nibabel()
    kind = nibabel.Nifti1Image if _is_first(_head(data)) else nibabel.Nifti2Image
    plain = _inflated(data, _checked_size(_head(data), len(data), max_pixels))
    with _quiet():
        try:
            image = kind.from_bytes(plain)
            values = np.asarray(image.dataobj.get_unscaled())
        except Exception:  # noqa: BLE001 - damaged bytes can make nibabel raise anything
            raise BadImageError("the NIfTI file is damaged: convert it again") from None
    if not (np.isfinite(image.affine).all() and np.linalg.det(image.affine)):
        raise BadImageError(_DAMAGED_HEADER)
    if values.dtype.kind not in "iuf":
        raise BadImageError("its values are colours or complex numbers, and one number per pixel is wanted")
    slices = values.reshape(*values.shape[:2], -1).transpose(2, 1, 0)
    return image, slices.astype(slices.dtype.newbyteorder("="), copy=False)


def _nibabel() -> Any:
    try:
        return importlib.import_module("nibabel")
    except ImportError as error:
        raise MissingExtraError("nibabel, which reads NIfTI images,", "nifti") from error


def _is_first(head: bytes) -> bool:
    """Whether it is NIfTI-1, not NIfTI-2."""
    return _order(head) in ("<1", ">1")


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
        raise BadImageError(_DAMAGED_HEADER)
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


def _head(data: bytes) -> bytes:
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


def _lost(values: NDArray[Any]) -> tuple[str, ...]:
    """A warning where values are no numbers. Raises BadImageError where none is one."""
    if values.dtype.kind != "f":
        return ()
    count = values.size - sum(int(np.isfinite(plane).sum()) for plane in values)
    if count == values.size:
        raise BadImageError("none of its values is a number: convert it again")
    return (
        (f"{count} values are no numbers (NaN or infinite), and are shown black or white",) if count else ()
    )


def _ends(values: NDArray[Any]) -> tuple[float, float]:
    """The smallest and the largest number of all slices; 0 twice without any."""
    ends = [(plane.min(), plane.max()) for each in values if (plane := each[np.isfinite(each)]).size]
    return (float(min(low for low, _ in ends)), float(max(high for _, high in ends))) if ends else (0.0, 0.0)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep what nibabel logs of unusual headers to itself."""
    log = logging.getLogger("nibabel.global")
    enabled = not log.disabled
    log.disabled = True
    try:
        yield
    finally:
        log.disabled = not enabled
