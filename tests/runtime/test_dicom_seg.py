"""`seg-run segment --dicom-seg`: what is read back is the mask, and refers to the image."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import cv2
import highdicom
import numpy as np
import pydicom
import pytest
from marked_dicom import MARKER, marked_dicom
from numpy.typing import NDArray
from small_dicom import save_dicom
from typer.testing import CliRunner

from seg_runtime.cli.run import app
from seg_runtime.errors import BadImageError, MissingExtraError
from seg_runtime.files.dicom_seg import dicom_seg
from seg_runtime.files.images import read_image, write_png


def picture() -> NDArray[np.uint8]:
    image = np.full((80, 72), 30, np.uint8)
    cv2.circle(image, (40, 30), 15, 220, -1)
    return image


def radiograph(path: Path) -> pydicom.Dataset:
    save_dicom(path, picture(), ("PixelSpacing", [0.2, 0.2]))
    dataset = pydicom.dcmread(path)
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = (pydicom.uid.generate_uid() for _ in range(2))
    dataset.PatientID, dataset.PatientName = "17", "Miller^Mary"
    dataset.PatientBirthDate = dataset.PatientSex = dataset.StudyDate = dataset.StudyTime = ""
    dataset.AccessionNumber = dataset.StudyID = dataset.ReferringPhysicianName = ""
    dataset.save_as(path)
    return dataset


def test_the_mask_is_read_back_with_its_reference(tiny_repo: Path, tmp_path: Path) -> None:
    source, out = radiograph(tmp_path / "chest.dcm"), tmp_path / "out"
    command = ["segment", str(tmp_path / "chest.dcm"), "--repo", str(tiny_repo), "--model", "unet_tiny"]
    result = CliRunner().invoke(app, [*command, "-o", str(out), "--dicom-seg", "--json"])
    assert result.exit_code == 0, result.output
    row = json.loads(result.stdout.splitlines()[0])
    assert row["dicom_seg"] == str(out / "chest_seg.dcm")
    seg = highdicom.seg.segread(row["dicom_seg"])
    pixels = seg.get_pixels_by_source_instance([source.SOPInstanceUID], combine_segments=True)
    assert np.array_equal(pixels[0] > 0, read_image(row["mask"], 1) > 0)
    (series,) = seg.ReferencedSeriesSequence
    assert series.SeriesInstanceUID == source.SeriesInstanceUID
    assert series.ReferencedInstanceSequence[0].ReferencedSOPInstanceUID == source.SOPInstanceUID
    assert (seg.StudyInstanceUID, seg.PatientID) == (source.StudyInstanceUID, "17")
    assert [segment.SegmentLabel for segment in seg.SegmentSequence] == list(row["area_px"])


def test_every_class_but_the_background_is_a_segment(tmp_path: Path) -> None:
    source = radiograph(tmp_path / "a.dcm")
    mask = np.zeros((80, 72), np.uint8)
    mask[10:20, 5:9], mask[40:60, 30:70] = 1, 2
    for labels in (mask, np.where(mask == 2, 2, 0).astype(np.uint8), np.zeros_like(mask)):
        data = dicom_seg((tmp_path / "a.dcm").read_bytes(), labels, ["heart", "lung"], "organs", 3)
        (tmp_path / "seg.dcm").write_bytes(data)
        seg = highdicom.seg.segread(tmp_path / "seg.dcm")
        found = seg.get_pixels_by_source_instance([source.SOPInstanceUID], combine_segments=True)
        assert np.array_equal(found[0], labels)
        assert [segment.SegmentLabel for segment in seg.SegmentSequence] == ["heart", "lung"]


def test_a_cross_section_keeps_its_place_in_space(tmp_path: Path) -> None:
    source = radiograph(tmp_path / "a.dcm")
    source.SOPClassUID = source.file_meta.MediaStorageSOPClassUID = pydicom.uid.CTImageStorage
    source.FrameOfReferenceUID, source.SliceThickness = pydicom.uid.generate_uid(), 2.5
    source.ImagePositionPatient, source.ImageOrientationPatient = [1, 2, 3], [1, 0, 0, 0, 1, 0]
    source.Modality = "CT"
    source.save_as(tmp_path / "a.dcm")
    mask = (picture() > 200).astype(np.uint8)
    (tmp_path / "seg.dcm").write_bytes(dicom_seg((tmp_path / "a.dcm").read_bytes(), mask, ["disc"], "m", 1))
    seg = highdicom.seg.segread(tmp_path / "seg.dcm")
    assert seg.FrameOfReferenceUID == source.FrameOfReferenceUID
    volume = seg.get_volume(combine_segments=True)
    assert np.array_equal(volume.array[0] > 0, mask > 0)
    assert volume.pixel_spacing == (0.2, 0.2) and volume.position == (1, 2, 3)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PixelSpacing", [0, 0]),
        ("PixelSpacing", [-0.5, 0.7]),
        ("PixelSpacing", None),
        ("ImageOrientationPatient", [0, 0, 0, 0, 0, 0]),
        ("ImageOrientationPatient", None),
        ("ImagePositionPatient", None),
        ("SliceThickness", None),
        ("FrameOfReferenceUID", None),
    ],
)
def test_a_cross_section_without_a_place_in_space_is_left_out_and_the_element_is_named(
    tmp_path: Path, name: str, value: object
) -> None:
    source = radiograph(tmp_path / "a.dcm")
    source.SOPClassUID = source.file_meta.MediaStorageSOPClassUID = pydicom.uid.CTImageStorage
    source.FrameOfReferenceUID, source.SliceThickness = pydicom.uid.generate_uid(), 2.5
    source.ImagePositionPatient, source.ImageOrientationPatient = [1, 2, 3], [1, 0, 0, 0, 1, 0]
    if value is None:
        delattr(source, name)
    else:
        setattr(source, name, value)
    source.save_as(tmp_path / "a.dcm")
    with pytest.raises(BadImageError, match=f"it has no usable {name}$"):
        dicom_seg((tmp_path / "a.dcm").read_bytes(), picture() // 200, ["disc"], "m", 1)


def test_elements_that_may_be_empty_may_be_absent(tmp_path: Path) -> None:
    source = radiograph(tmp_path / "a.dcm")
    for name in ("PatientID", "PatientName", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime"):
        delattr(source, name)
    for name in ("AccessionNumber", "StudyID", "ReferringPhysicianName"):
        delattr(source, name)
    source.save_as(tmp_path / "a.dcm")
    mask = (picture() > 200).astype(np.uint8)
    (tmp_path / "seg.dcm").write_bytes(dicom_seg((tmp_path / "a.dcm").read_bytes(), mask, ["disc"], "m", 1))
    seg = highdicom.seg.segread(tmp_path / "seg.dcm")
    assert np.array_equal(seg.get_pixels_by_source_instance([source.SOPInstanceUID])[0, ..., 0] > 0, mask > 0)


def test_images_that_are_no_dicom_are_left_out(tiny_repo: Path, tmp_path: Path) -> None:
    radiograph(tmp_path / "a.dcm")
    write_png(tmp_path / "b.png", picture())
    images = [str(tmp_path / name) for name in ("a.dcm", "b.png")]
    command = ["segment", *images, "--repo", str(tiny_repo), "--model", "unet_tiny", "--dicom-seg"]
    result = CliRunner().invoke(app, [*command, "-o", str(tmp_path / "out")])
    assert isinstance(result.exception, BadImageError) and "1 of 2 images" in str(result.exception)
    assert {path.name for path in (tmp_path / "out").glob("b_*")} == set()
    assert (tmp_path / "out" / "a_seg.dcm").is_file()


def test_an_image_that_nothing_can_refer_to_is_one_line_without_its_texts(tmp_path: Path) -> None:
    save_dicom(tmp_path / "a.dcm", picture())
    with pytest.raises(BadImageError, match="it has no usable StudyInstanceUID, SeriesInstanceUID"):
        dicom_seg((tmp_path / "a.dcm").read_bytes(), picture() // 200, ["disc"], "m", 1)
    marked_dicom(tmp_path / "b.dcm", picture())
    with pytest.raises(BadImageError) as raised:
        dicom_seg((tmp_path / "b.dcm").read_bytes(), picture() // 200, ["disc"], "m", 1)
    assert MARKER not in str(raised.value) and raised.value.__cause__ is None


def test_a_spacing_that_is_no_number_is_one_line(tmp_path: Path) -> None:
    source = radiograph(tmp_path / "a.dcm")
    source.SOPClassUID = source.file_meta.MediaStorageSOPClassUID = pydicom.uid.CTImageStorage
    source.save_as(tmp_path / "a.dcm")
    damaged = (tmp_path / "a.dcm").read_bytes().replace(b"0.2\\0.2", b"a.b\\a.b")
    with pytest.raises(BadImageError, match="an element of its patient, study or geometry") as raised:
        dicom_seg(damaged, picture() // 200, ["disc"], "m", 1)
    assert "a.b" not in str(raised.value)


def test_a_missing_highdicom_names_the_extra(
    tiny_repo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "highdicom", None)
    radiograph(tmp_path / "a.dcm")
    command = ["segment", str(tmp_path / "a.dcm"), "--repo", str(tiny_repo), "--model", "unet_tiny"]
    result = CliRunner().invoke(app, [*command, "-o", str(tmp_path / "out"), "--dicom-seg"])
    assert isinstance(result.exception, MissingExtraError) and not (tmp_path / "out").exists()
    assert "pip install 'edgeseg[dicom-seg]'" in str(result.exception)
    assert CliRunner().invoke(app, [*command, "-o", str(tmp_path / "out")]).exit_code == 0
