"""Reads single-frame DICOM images through pydicom, which is an extra.

What identifies a patient (names, ids, dates) is neither parsed nor quoted: of a file's elements only those
that describe the pixels are read, and pydicom's own messages are left out.
"""

from __future__ import annotations

import importlib
import logging
import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seg_runtime.errors import BadImageError, MissingExtraError
from seg_runtime.files.bit_depth import BitDepth, decide_depth, scale_to_uint8
from seg_runtime.files.dicom_limits import CountedFile, check_pixel_data, plain_data_set

__all__ = ["dicom_spacing_hw", "quiet", "read_dicom"]

_SPACINGS = ("PixelSpacing", "ImagerPixelSpacing")


def read_dicom(
    data: bytes, max_pixels: int, bit_depth: int | None = None
) -> tuple[NDArray[np.uint8], BitDepth]:
    """Decode a DICOM file, or a bare data set, as a viewer would show it.

    The modality and VOI lookup tables (or the window) of the file are applied and MONOCHROME1,
    where low values are bright, is inverted. What is black and white is in this order: the ends of
    the window; 0 and 2**BitsStored - 1 of unsigned values without a modality transform, as of a PNG of
    that depth; the smallest and the largest value of the image. Pixels of PixelPaddingValue and its range
    are no part of the image: they decide nothing and become black.

    Args:
        data: the file's bytes.
        max_pixels: largest height times width to decode.
        bit_depth: how many bits of unsigned values count, whatever BitsStored says.

    Returns:
        (H, W) uint8 for a gray image, (H, W, 3) RGB uint8 for a colour one; and the depth, a guess where
        BitsStored says 16 and the values say less.

    Raises:
        BadImageError: not one decodable frame, or more pixels than allowed. The message leaves
            out the file's name: the caller knows it.
        MissingExtraError: pydicom is not installed.
    """
    pydicom = _pydicom()
    with quiet():
        try:
            # Bare data sets need force; what they are was looked at before.
            file = CountedFile(plain_data_set(data))
            dataset = pydicom.dcmread(file, force=True, specific_tags=_image_tags())
            _set_syntax(dataset)
            frames = int(getattr(dataset, "NumberOfFrames", None) or 1)
            pixels = int(dataset.Rows) * int(dataset.Columns)
        except BadImageError:
            raise
        except Exception:  # noqa: BLE001 - damaged bytes can make pydicom raise anything
            # Neither its message nor itself as a cause: pydicom quotes the values of elements.
            raise BadImageError("it is damaged or holds no image") from None
        if frames != 1:
            raise BadImageError(f"it has {frames} frames and one is wanted: export single frames from it")
        if pixels > max_pixels:
            raise BadImageError(f"it has {pixels} pixels; the limit is {max_pixels}: scale it down first")
        try:
            check_pixel_data(dataset, len(data))
            return _display(dataset, bit_depth)
        except BadImageError:
            raise
        except Exception:  # noqa: BLE001 - likewise
            raise BadImageError(_undecodable(dataset)) from None


def dicom_spacing_hw(data: bytes) -> tuple[float, float] | None:
    """(height, width) of a pixel in mm; None where a DICOM file does not say.

    PixelSpacing, else ImagerPixelSpacing. Where an X-ray has both and they differ, the first was calibrated
    to the patient; the second is that of the detector, on which all is a little larger (PS3.3, 10.7.1.3).

    Raises:
        BadImageError: it is damaged.
        MissingExtraError: pydicom is not installed.
    """
    pydicom = _pydicom()
    with quiet():
        try:
            file = CountedFile(plain_data_set(data))
            dataset = pydicom.dcmread(
                file, stop_before_pixels=True, force=True, specific_tags=list(_SPACINGS)
            )
            stated = [dataset.get(name) for name in _SPACINGS]
        except BadImageError:
            raise
        except Exception:  # noqa: BLE001 - as in `read_dicom`
            raise BadImageError("it is damaged") from None
        return next((found for value in stated if (found := _lengths(value))), None)


def _lengths(value: Any) -> tuple[float, float] | None:
    """Two positive lengths, or None for anything else."""
    try:
        height_mm, width_mm = map(float, value)
    except (TypeError, ValueError):
        return None
    good = all(math.isfinite(side) and side > 0 for side in (height_mm, width_mm))
    return (height_mm, width_mm) if good else None


def _pydicom() -> Any:
    try:
        return importlib.import_module("pydicom")
    except ImportError as error:
        raise MissingExtraError("pydicom, which reads DICOM images,", "dicom") from error


@cache
def _image_tags() -> list[int]:
    """Elements of the groups "image presentation" and "pixel data"; no others are kept in memory."""
    known = importlib.import_module("pydicom.datadict").DicomDictionary
    return [tag for tag in known if tag >> 16 in (0x0028, 0x7FE0)]


@contextmanager
def quiet() -> Iterator[None]:
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


def _set_syntax(dataset: Any) -> None:
    """Give a data set without file meta information the syntax that it was found to have."""
    from pydicom import uid

    if "TransferSyntaxUID" in dataset.file_meta:
        return
    implicit, little = dataset.original_encoding
    explicit = uid.ExplicitVRLittleEndian if little else uid.ExplicitVRBigEndian
    dataset.file_meta.TransferSyntaxUID = uid.ImplicitVRLittleEndian if implicit else explicit


def _display(dataset: Any, bit_depth: int | None) -> tuple[NDArray[np.uint8], BitDepth]:
    from pydicom.pixels.processing import apply_color_lut
    from pydicom.pixels.utils import pixel_array

    photometric = str(dataset.PhotometricInterpretation)
    stored = BitDepth(int(dataset.BitsStored), "file")
    values = pixel_array(dataset)
    if photometric == "PALETTE COLOR":
        colors = apply_color_lut(values, dataset)
        return (scale_to_uint8(colors, 16) if colors.dtype == np.uint16 else _stretch(colors)), stored
    if not photometric.startswith("MONOCHROME"):
        return _by_depth(values, values, stored, bit_depth) or (_stretch(values), stored)
    padding = _padding(values, dataset)
    gray, depth = _gray(values, values[~padding], dataset, bit_depth)
    gray = np.invert(gray) if photometric == "MONOCHROME1" else gray
    gray[padding] = 0
    return gray, depth


def _gray(
    values: NDArray[Any], image: NDArray[Any], dataset: Any, bit_depth: int | None
) -> tuple[NDArray[np.uint8], BitDepth]:
    """(H, W) uint8 of all stored values; `image` are those that decide about black and white."""
    from pydicom.pixels.processing import apply_modality_lut, apply_voi_lut, apply_windowing

    stored = BitDepth(int(dataset.BitsStored), "file")
    identity = dataset.get("RescaleSlope", 1) == 1 and dataset.get("RescaleIntercept", 0) == 0
    plain = identity and "ModalityLUTSequence" not in dataset
    if "VOILUTSequence" in dataset:
        shown, within = (
            apply_voi_lut(apply_modality_lut(each, dataset), dataset) for each in (values, image)
        )
        return _stretch(shown, within), stored
    if "WindowCenter" in dataset and "WindowWidth" in dataset:
        ends = apply_windowing(np.array([-1e12, 1e12]), dataset)
        return _stretch(apply_windowing(apply_modality_lut(values, dataset), dataset), ends), stored
    if plain and (by_depth := _by_depth(values, image, stored, bit_depth)):
        return by_depth
    return _stretch(*(apply_modality_lut(each, dataset) for each in (values, image))), stored


def _by_depth(
    values: NDArray[Any], image: NDArray[Any], stored: BitDepth, bit_depth: int | None
) -> tuple[NDArray[np.uint8], BitDepth] | None:
    """None for values that are signed, or of more than 16 bits."""
    if values.dtype == np.uint8:
        return scale_to_uint8(values, stored.bits), stored
    if values.dtype != np.uint16:
        return None
    depth = decide_depth(image, stored.bits if stored.bits < 16 else None, bit_depth)
    return scale_to_uint8(values, depth.bits), depth


def _padding(values: NDArray[Any], dataset: Any) -> NDArray[np.bool_]:
    """Where stored values are PixelPaddingValue, or between it and PixelPaddingRangeLimit; inclusive."""
    first = dataset.get("PixelPaddingValue")
    if first is None or values.dtype.kind not in "iu":
        return np.zeros(values.shape, np.bool_)
    last = dataset.get("PixelPaddingRangeLimit")
    # Some writers store the padding of signed values as unsigned, and the reverse.
    ends = [int(np.int64(end).astype(values.dtype)) for end in (first, first if last is None else last)]
    padding = np.asarray((values >= min(ends)) & (values <= max(ends)))
    return np.zeros_like(padding) if padding.all() else padding


def _stretch(values: NDArray[Any], within: NDArray[Any] | None = None) -> NDArray[np.uint8]:
    """Map the smallest to the largest value of `within`, or of `values`, onto 0 to 255; uint8 stays."""
    if values.dtype == np.uint8:
        return np.array(values, order="C")
    within = values if within is None else within
    low, high = float(within.min()), float(within.max())
    scaled = (values.astype(np.float32) - low) * (255.0 / max(high - low, 1e-6))
    return np.asarray(np.rint(np.clip(scaled, 0, 255)), dtype=np.uint8)
