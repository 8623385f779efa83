"""A small DICOM file, and ones that lie."""

from __future__ import annotations

import struct
import warnings
from io import BytesIO
from random import Random
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset, dcmread
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    JPEGBaseline8Bit,
    SecondaryCaptureImageStorage,
)

from microbench.damage import Damage

__all__ = ["DICOM_LIES", "encapsulated", "explicit"]

_SYNTAXES = (
    "1.2.840.10008.1.2", "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.5", "1.2.840.10008.1.2.4.50",
    "1.2.840.10008.1.2.4.70", "1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.201",
    "1.2.3",
)  # fmt: skip
_VALUES: dict[str, tuple[Any, ...]] = {
    "Rows": (0, 1, 81, 16384, 65535),
    "Columns": (0, 1, 97, 16384, 65535),
    "BitsAllocated": (0, 1, 12, 16, 32, 64, 65535),
    "BitsStored": (0, 1, 9, 16, 65535),
    "HighBit": (0, 6, 65535),
    "SamplesPerPixel": (0, 2, 3, 4, 65535),
    "PixelRepresentation": (1, 2, 65535),
    "PlanarConfiguration": (1, 7),
    "PhotometricInterpretation": ("MONOCHROME1", "PALETTE COLOR", "RGB", "YBR_FULL_422", "NONSENSE", ""),
    "NumberOfFrames": ("0", "-1", "2", "1000000000"),
    "PixelData": (b"", b"ab", bytes(80 * 96 // 2), bytes(4 * 80 * 96)),
    "RescaleSlope": ("0", "1e308", "-1"),
    "RescaleIntercept": ("1e308", "-1e308"),
    "WindowWidth": ("0", "-5", "1e308"),
    "PixelPaddingValue": (0, 65535),
}


def explicit(pixels: NDArray[np.uint8]) -> bytes:
    """A gray image as it is.

    Args:
        pixels: (H, W).
    """
    return _written(_dataset(pixels))


def encapsulated(pixels: NDArray[np.uint8]) -> bytes:
    """The same as a JPEG inside of it."""
    dataset = _dataset(pixels)
    dataset.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
    dataset.PixelData = encapsulate([bytes(cv2.imencode(".jpg", pixels)[1])])
    dataset["PixelData"].VR = "OB"
    return _written(dataset)


def _dataset(pixels: NDArray[np.uint8]) -> Dataset:
    dataset, meta = Dataset(), FileMetaDataset()
    meta.TransferSyntaxUID, dataset.file_meta = ExplicitVRLittleEndian, meta
    dataset.SOPClassUID = meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    dataset.SOPInstanceUID = meta.MediaStorageSOPInstanceUID = UID("1.2.3")
    dataset.Rows, dataset.Columns = pixels.shape
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.PixelRepresentation, dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 0, 8, 8, 7
    dataset.PixelData = pixels.tobytes()
    return dataset


def _written(dataset: Dataset) -> bytes:
    file = BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # It warns of every lie.
        dataset.save_as(file, enforce_file_format=True)
    return file.getvalue()


def _field(data: bytes, rng: Random) -> bytes:
    """An element that describes the pixels, or the pixels themselves."""
    dataset, name = dcmread(BytesIO(data)), rng.choice(sorted(_VALUES))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if name == "WindowWidth":
            dataset.WindowCenter = "40"
        setattr(dataset, name, rng.choice(_VALUES[name]))
        if dataset[name].VR == "US or SS":
            dataset[name].VR = "US"
    if name == "PixelData":
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return _written(dataset)


def _missing(data: bytes, rng: Random) -> bytes:
    dataset = dcmread(BytesIO(data))
    names = [name for name in _VALUES if name in dataset]
    delattr(dataset, rng.choice(names))
    return _written(dataset)


def _syntax(data: bytes, rng: Random) -> bytes:
    """The pixels are said to be stored in another way."""
    old = dcmread(BytesIO(data)).file_meta.TransferSyntaxUID
    new = rng.choice(_SYNTAXES).encode()[: len(old)]
    return data.replace(old.encode(), new + b"\0" * (len(old) - len(new)), 1)


def _length(data: bytes, rng: Random) -> bytes:
    """The element of the pixels is said to be longer or shorter than it is."""
    at = data.rfind(b"\xe0\x7f\x10\x00") + 8
    return data[:at] + struct.pack("<I", rng.choice((0, 7, 2**31 - 1, 2**32 - 2, 2**32 - 1))) + data[at + 4 :]


def _deflated(data: bytes, rng: Random) -> bytes:
    """A deflated data set that is large when unpacked."""
    dataset = dcmread(BytesIO(data))
    dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    dataset.PixelData = bytes(dataset.Rows * dataset.Columns)
    dataset.add_new(0x00280010 if rng.random() < 0.5 else 0x7FE10010, "OB", bytes(2**26))
    return _written(dataset)


DICOM_LIES: tuple[Damage, ...] = (_field, _field, _missing, _syntax, _length, _field, _deflated)
