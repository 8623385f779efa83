"""Reads single-frame DICOM images through pydicom, which is an extra."""

from __future__ import annotations

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
        from pydicom.errors import InvalidDicomError
    except ImportError as error:
        raise MissingExtraError("pydicom, which reads DICOM images,", "dicom") from error
    try:
        dataset = pydicom.dcmread(BytesIO(data))
        frames = int(getattr(dataset, "NumberOfFrames", None) or 1)
        pixels = int(dataset.Rows) * int(dataset.Columns)
    except (InvalidDicomError, AttributeError, EOFError, OSError, TypeError, ValueError) as error:
        raise BadImageError("it is damaged or holds no image") from error
    if frames != 1:
        raise BadImageError(f"it has {frames} frames and one is wanted: export single frames from it")
    if pixels > max_pixels:
        raise BadImageError(f"it has {pixels} pixels; the limit is {max_pixels}: scale it down first")
    try:
        return _display(dataset)
    except (AttributeError, KeyError, NotImplementedError, RuntimeError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise BadImageError(f"its pixels cannot be decoded ({reason})") from error


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
