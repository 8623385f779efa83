"""DICOM files whose every text says `MARKER`: what of them comes out somewhere, is seen."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom import config
from pydicom.datadict import DicomDictionary
from pydicom.dataelem import DataElement

__all__ = ["DAMAGED", "MARKER", "damaged_dicom", "marked_dicom"]

MARKER = "MARKER7349"

_TEXT = ("AE", "AS", "CS", "DA", "DS", "DT", "IS", "LO", "LT", "PN", "SH", "ST", "TM", "UC", "UI", "UR", "UT")

DAMAGED = {
    "window": "WindowCenter",
    "frames": "NumberOfFrames",
    "photometric": "PhotometricInterpretation",
    "slope": "RescaleSlope",
    "character set": "SpecificCharacterSet",
    "transfer syntax": "TransferSyntaxUID",
    "cut off in the pixels": "",
    "cut off in the header": "",
}
"""Ways in which a file is damaged, and the element that says `MARKER` where it must not."""


def marked_dicom(path: Path, pixels: NDArray[np.uint8]) -> Path:
    """Write a gray image with every text element of the dictionary outside its pixel description."""
    _write(_dataset(pixels), path)
    return path


def damaged_dicom(path: Path, pixels: NDArray[np.uint8], how: str) -> Path:
    """Write one that is damaged in one of the ways of `DAMAGED`."""
    dataset, keyword = _dataset(pixels), DAMAGED[how]
    if keyword == "TransferSyntaxUID":
        _write(dataset, path)
        data, syntax = path.read_bytes(), pydicom.uid.ExplicitVRLittleEndian.encode()
        path.write_bytes(data.replace(syntax, MARKER.encode().ljust(len(syntax), b".")[: len(syntax)], 1))
        return path
    if keyword:
        tag = pydicom.tag.Tag(keyword)
        dataset[tag] = _element(tag, DicomDictionary[tag][0])
    _write(dataset, path)
    if how.startswith("cut off"):
        data = path.read_bytes()
        name = data.index(MARKER.encode()) + 4
        path.write_bytes(data[: -pixels.size // 2] if "pixels" in how else data[:name])
    return path


def _dataset(pixels: NDArray[np.uint8]) -> Any:
    dataset = pydicom.Dataset()
    for tag, (kind, _, _, retired, _) in DicomDictionary.items():
        if kind in _TEXT and not retired and 0x0008 <= tag >> 16 < 0x7FE0 and tag >> 16 != 0x0028:
            dataset[tag] = _element(tag, kind)
    del dataset[pydicom.tag.Tag("SpecificCharacterSet")]
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = pydicom.uid.SecondaryCaptureImageStorage
    dataset.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
    dataset.Rows, dataset.Columns = pixels.shape
    dataset.SamplesPerPixel, dataset.PixelRepresentation = 1, 0
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.BitsAllocated = dataset.BitsStored = 8
    dataset.HighBit = 7
    dataset.RescaleSlope, dataset.RescaleIntercept = 1, 0
    dataset.WindowCenter, dataset.WindowWidth = 128, 256
    dataset.PixelData = pixels.tobytes()
    return dataset


def _element(tag: int, kind: str) -> Any:
    value = pydicom.valuerep.PersonName(MARKER) if kind == "PN" else MARKER
    return DataElement(tag, kind, value, already_converted=True)


def _write(dataset: Any, path: Path) -> None:
    mode = config.settings.writing_validation_mode
    config.settings.writing_validation_mode = config.IGNORE
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            dataset.save_as(path, enforce_file_format=True)
    finally:
        config.settings.writing_validation_mode = mode
