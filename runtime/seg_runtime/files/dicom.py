"""Reads single-frame DICOM images through pydicom, which is an extra.

What identifies a patient (names, ids, dates) is neither parsed nor quoted: of a file's elements only those
that describe the pixels are read, and pydicom's own messages are left out.
"""

from __future__ import annotations

import importlib
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seg_runtime.errors import BadImageError, MissingExtraError

__all__ = ["read_dicom"]


def read_dicom(data: bytes, max_pixels: int) -> NDArray[np.uint8]:
    """Decode a DICOM file as a viewer would show it.

    The modality and VOI lookup tables (or the window) of the file are applied and MONOCHROME1,
    where low values are bright, is inverted. Values that are not 8-bit already are then stretched
    from the smallest to the largest value of the image onto 0 to 255.

    Args:
        data: the file's bytes.
        max_pixels: largest height times width to decode.

    Returns:
        (H, W) uint8 for a gray image, (H, W, 3) RGB uint8 for a colour one.

    Raises:
        BadImageError: not one decodable frame, or more pixels than allowed. The message leaves
            out the file's name: the caller knows it.
        MissingExtraError: pydicom is not installed.
    """
    try:
        import pydicom
    except ImportError as error:
        raise MissingExtraError("pydicom, which reads DICOM images,", "dicom") from error
    with _quiet():
        try:
            dataset = pydicom.dcmread(BytesIO(data), specific_tags=_image_tags())
            frames = int(getattr(dataset, "NumberOfFrames", None) or 1)
            pixels = int(dataset.Rows) * int(dataset.Columns)
        except Exception:  # noqa: BLE001 - damaged bytes can make pydicom raise anything
            # Neither its message nor itself as a cause: pydicom quotes the values of elements.
            raise BadImageError("it is damaged or holds no image") from None
        if frames != 1:
            raise BadImageError(f"it has {frames} frames and one is wanted: export single frames from it")
        if pixels > max_pixels:
            raise BadImageError(f"it has {pixels} pixels; the limit is {max_pixels}: scale it down first")
        try:
            return _display(dataset)
        except Exception:  # noqa: BLE001 - likewise
            raise BadImageError(_undecodable(dataset)) from None


@cache
def _image_tags() -> list[int]:
    """Elements of the groups "image presentation" and "pixel data"; no others are kept in memory."""
    known = importlib.import_module("pydicom.datadict").DicomDictionary
    return [tag for tag in known if tag >> 16 in (0x0028, 0x7FE0)]


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep pydicom's warnings and log, which quote the values of elements, to itself."""
    log = logging.getLogger("pydicom")
    enabled = not log.disabled
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        log.disabled = True
        try:
            yield
        finally:
            log.disabled = not enabled


def _undecodable(dataset: Any) -> str:
    """Why pixels cannot be decoded, as far as DICOM's own words for it say."""
    from pydicom.uid import UID

    syntax = UID(str(getattr(dataset.file_meta, "TransferSyntaxUID", "")))
    # Names are those of the standard; what it does not know could be anything.
    known = syntax.type == "Transfer Syntax"
    if known and not syntax.is_compressed:
        return "its pixels are cut off, or not what its header says: copy or export it again"
    stored = syntax.name if known else "an unknown transfer syntax"
    return f"its pixels cannot be decoded ({stored}): export it uncompressed, or as PNG"


def _display(dataset: Any) -> NDArray[np.uint8]:
    from pydicom.pixels.processing import apply_color_lut, apply_modality_lut, apply_voi_lut
    from pydicom.pixels.utils import pixel_array

    photometric = str(dataset.PhotometricInterpretation)
    values = pixel_array(dataset)
    if photometric == "PALETTE COLOR":
        return _stretch(apply_color_lut(values, dataset))
    if not photometric.startswith("MONOCHROME"):
        return _stretch(values)
    shown = apply_voi_lut(apply_modality_lut(values, dataset), dataset)
    gray = _stretch(shown)
    return np.invert(gray) if photometric == "MONOCHROME1" else gray


def _stretch(values: NDArray[Any]) -> NDArray[np.uint8]:
    if values.dtype == np.uint8:
        return np.ascontiguousarray(values)
    low, high = float(values.min()), float(values.max())
    scaled = (values.astype(np.float32) - low) * (255.0 / max(high - low, 1e-6))
    return np.asarray(np.rint(scaled), dtype=np.uint8)
