"""Gray DICOM images with a pixel spacing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset, uid
from pydicom.dataset import FileMetaDataset

__all__ = ["save_dicom"]


def save_dicom(path: Path, pixels: NDArray[np.uint8], spacing: tuple[str, list[float]] | None = None) -> None:
    """Write a radiograph; `spacing` is an element and its value."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID = (
        uid.DigitalXRayImageStorageForPresentation
    )
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID = uid.generate_uid()
    dataset.Rows, dataset.Columns = pixels.shape
    dataset.SamplesPerPixel, dataset.PixelRepresentation = 1, 0
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.BitsAllocated = dataset.BitsStored = 8
    dataset.HighBit = 7
    dataset.PixelData = pixels.tobytes()
    if spacing is not None:
        setattr(dataset, *spacing)
    dataset.save_as(path, enforce_file_format=True)
