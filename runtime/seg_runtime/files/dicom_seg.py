"""Writes masks as DICOM Segmentation objects through highdicom, which is an extra."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from importlib.metadata import version
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seg_runtime.errors import BadImageError, MissingExtraError
from seg_runtime.files.dicom import quiet
from seg_runtime.files.dicom_limits import CountedFile, plain_data_set
from seg_runtime.files.image_header import HEAD_BYTES, image_kind

__all__ = ["check_highdicom", "dicom_seg"]

_NEEDED = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID")
_MAY_BE_EMPTY = (
    *("PatientID", "PatientName", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "StudyID"),
    *("AccessionNumber", "ReferringPhysicianName"),
)
_IN_SPACE = (
    *("FrameOfReferenceUID", "ImageOrientationPatient", "ImagePositionPatient", "PixelSpacing"),
    "SliceThickness",
)
_VOLUMES = ("1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.4", "1.2.840.10008.5.1.4.1.1.128")
"""CT, MR and PET, whose images lie in space."""


def check_highdicom() -> None:
    """Raises MissingExtraError where it is not installed."""
    try:
        importlib.import_module("highdicom")
    except ImportError as error:
        raise MissingExtraError("highdicom, which writes DICOM SEG,", "dicom-seg") from error


def dicom_seg(data: bytes, mask: NDArray[np.uint8], names: Sequence[str], model: str, number: int) -> bytes:
    """The mask of one DICOM image, with a segment for each class, that refers to the image.

    Patient and study are those of the image. Segments have the names of the classes; what they are is coded
    as "tissue", since a model does not say.

    Args:
        data: the image's file.
        mask: (H, W) class ids, 0 for what is in no segment.
        names: of the classes from 1 on.
        model: its name, and
        number: its version, as the algorithm that made them.

    Raises:
        BadImageError: it is no DICOM image, or lacks what a segmentation refers to.
        MissingExtraError: highdicom or pydicom is not installed.
    """
    check_highdicom()
    if image_kind(data[:HEAD_BYTES]) != "dicom":
        raise BadImageError("it is no DICOM image, which a DICOM SEG must refer to: leave out --dicom-seg")
    with quiet():
        source = _source(data)
        try:
            if missing := _missing(source):
                raise BadImageError(f"a DICOM SEG cannot refer to it: it has no usable {', '.join(missing)}")
            for name in _MAY_BE_EMPTY:
                if name not in source:
                    setattr(source, name, "")
            segmentation = _segmentation(source, mask, names, model, number)
            file = BytesIO()
            segmentation.save_as(file)
        except BadImageError:
            raise
        except Exception:  # noqa: BLE001 - messages of highdicom and pydicom quote the values of elements
            raise BadImageError(
                "a DICOM SEG cannot refer to it: an element of its patient, study or geometry is not as the "
                "standard wants it"
            ) from None
    return file.getvalue()


def _missing(source: Any) -> list[str]:
    """Elements that a segmentation needs and the image lacks, or has with values that mean nothing."""
    needed = [name for name in _NEEDED if not source.get(name)]
    if source.get("ImageOrientationPatient") or source.get("SOPClassUID") in _VOLUMES:
        needed += [name for name in _IN_SPACE if not _is_usable(source, name)]
    return needed


def _is_usable(source: Any, name: str) -> bool:
    value = source.get(name)
    if name == "ImageOrientationPatient":
        across = np.cross(value[:3], value[3:]) if value is not None and len(value) == 6 else np.zeros(3)
        return bool(np.isclose(np.linalg.norm(across), 1, atol=1e-2))
    if name == "PixelSpacing":
        return value is not None and len(value) == 2 and all(0 < float(side) < np.inf for side in value)
    return value not in (None, "") and (name != "ImagePositionPatient" or len(value) == 3)


def _source(data: bytes) -> Any:
    import pydicom

    try:
        return pydicom.dcmread(CountedFile(plain_data_set(data)), stop_before_pixels=True, force=True)
    except BadImageError:
        raise
    except Exception:  # noqa: BLE001 - likewise
        raise BadImageError("it is damaged or holds no image") from None


def _segmentation(source: Any, mask: NDArray[np.uint8], names: Sequence[str], model: str, number: int) -> Any:
    import highdicom
    from pydicom.sr.codedict import codes
    from pydicom.uid import generate_uid

    algorithm = highdicom.AlgorithmIdentificationSequence(
        name=model, version=str(number), family=codes.DCM.ArtificialIntelligence
    )
    segments = [
        highdicom.seg.SegmentDescription(
            segment_number=place,
            segment_label=name,
            segmented_property_category=codes.SCT.Tissue,
            segmented_property_type=codes.SCT.Tissue,
            algorithm_type="AUTOMATIC",
            algorithm_identification=algorithm,
        )
        for place, name in enumerate(names, start=1)
    ]
    segmentation = highdicom.seg.Segmentation(
        source_images=[source],
        pixel_array=mask,
        segmentation_type="BINARY",
        segment_descriptions=segments,
        series_instance_uid=generate_uid(),
        series_number=1,
        sop_instance_uid=generate_uid(),
        instance_number=1,
        manufacturer="edgeseg",
        manufacturer_model_name=model,
        software_versions=version("edgeseg"),
        device_serial_number="0",
        omit_empty_frames=False,
        content_label="SEGMENTATION",
    )
    shared = segmentation.SharedFunctionalGroupsSequence[0]
    measures = shared.get("PixelMeasuresSequence")
    # highdicom writes the spacing of an image without thickness, as of an X-ray, and refuses to read it.
    if measures and "SliceThickness" not in measures[0]:
        del shared.PixelMeasuresSequence
    return segmentation
