"""Reads and writes NIfTI, a slice or a stack of slices, through nibabel, which is an extra.

A slice is the plane of the file's first two axes, as it is stored: columns go along the first axis, rows
along the second, slices along the third, and nothing is flipped.
"""

from __future__ import annotations

import gzip
import importlib
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seg_runtime.errors import BadImageError, MissingExtraError
from seg_runtime.files.bit_depth import BitDepth, decide_depth, scale_to_uint8
from seg_runtime.files.nifti_header import DAMAGED_HEADER, first_bytes, inflate_nifti, is_nifti1

__all__ = [
    "NiftiStack",
    "is_nifti_name",
    "labels_as_nifti",
    "nifti_affine",
    "nifti_values",
    "one_slice",
    "read_nifti",
    "split_slice",
]

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


def nifti_affine(data: bytes) -> NDArray[np.float64]:
    """(4, 4): where its voxels lie, in the unit of its header.

    Raises:
        BadImageError: its header is damaged.
        MissingExtraError: nibabel is not installed.
    """
    head, nibabel = first_bytes(data), _nibabel()
    kind = nibabel.Nifti1Header if is_nifti1(head) else nibabel.Nifti2Header
    with _quiet():
        try:
            return np.asarray(kind.from_fileobj(BytesIO(head)).get_best_affine(), np.float64)
        except Exception:  # noqa: BLE001 - damaged bytes can make nibabel raise anything
            raise BadImageError(DAMAGED_HEADER) from None


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
    kind = nibabel.Nifti1Image if is_nifti1(first_bytes(data)) else nibabel.Nifti2Image
    plain = inflate_nifti(data, max_pixels)
    with _quiet():
        try:
            image = kind.from_bytes(plain)
            values = np.asarray(image.dataobj.get_unscaled())
        except Exception:  # noqa: BLE001 - damaged bytes can make nibabel raise anything
            raise BadImageError("the NIfTI file is damaged: convert it again") from None
    if not (np.isfinite(image.affine).all() and np.linalg.det(image.affine)):
        raise BadImageError(DAMAGED_HEADER)
    if values.dtype.kind not in "iuf":
        raise BadImageError("its values are colours or complex numbers, and one number per pixel is wanted")
    slices = values.reshape(*values.shape[:2], -1).transpose(2, 1, 0)
    return image, slices.astype(slices.dtype.newbyteorder("="), copy=False)


def _nibabel() -> Any:
    try:
        return importlib.import_module("nibabel")
    except ImportError as error:
        raise MissingExtraError("nibabel, which reads NIfTI images,", "nifti") from error


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
