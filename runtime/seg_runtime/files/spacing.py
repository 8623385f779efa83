"""How large a pixel of an image file is, where the file says so."""

from __future__ import annotations

from pathlib import Path

from seg_runtime.errors import BadImageError
from seg_runtime.files.dicom import dicom_spacing_hw
from seg_runtime.files.image_header import HEAD_BYTES, image_kind
from seg_runtime.files.images import read_bytes
from seg_runtime.files.nifti import split_slice
from seg_runtime.files.nifti_header import is_nifti, nifti_spacing_hw

__all__ = ["read_spacing_hw"]


def read_spacing_hw(path: str | Path) -> tuple[float, float] | None:
    """(height, width) of a pixel in mm: of DICOM and NIfTI; None of what says nothing.

    The resolution of PNG, JPEG and TIFF is that of a print or a screen, and not read.

    Raises:
        BadImageError: the file cannot be read.
        MissingExtraError: a DICOM file, and pydicom is not installed.
    """
    path = Path(path)
    try:
        data = read_bytes(split_slice(path)[0])
        if is_nifti(data):
            return nifti_spacing_hw(data)
        return dicom_spacing_hw(data) if image_kind(data[:HEAD_BYTES]) == "dicom" else None
    except BadImageError as error:
        raise BadImageError(f"cannot read image '{path}': {error}") from error
