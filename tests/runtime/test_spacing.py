"""How large pixels are, from the files that say so."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import pytest
from marked_dicom import marked_dicom
from small_dicom import save_dicom

from seg_runtime.errors import BadImageError
from seg_runtime.files.images import write_png
from seg_runtime.files.spacing import read_spacing_hw

PIXELS = np.zeros((16, 12), np.uint8)


def test_rows_come_first_in_a_spacing_of_dicom(tmp_path: Path) -> None:
    for name in ("PixelSpacing", "ImagerPixelSpacing"):
        save_dicom(tmp_path / "a.dcm", PIXELS, (name, [0.25, 0.5]))
        assert read_spacing_hw(tmp_path / "a.dcm") == (0.25, 0.5)


def test_what_was_calibrated_to_the_patient_wins_over_the_detector(tmp_path: Path) -> None:
    path = tmp_path / "a.dcm"
    save_dicom(path, PIXELS, ("ImagerPixelSpacing", [0.2, 0.2]))
    dataset = pydicom.dcmread(path)
    dataset.PixelSpacing = [0.18, 0.18]
    dataset.save_as(path)
    assert read_spacing_hw(path) == (0.18, 0.18)


@pytest.mark.parametrize("spacing", [None, ("PixelSpacing", [0, 0]), ("PixelSpacing", [0.5])])
def test_a_file_without_a_spacing_has_none(tmp_path: Path, spacing: tuple[str, list[float]] | None) -> None:
    save_dicom(tmp_path / "a.dcm", PIXELS, spacing)
    assert read_spacing_hw(tmp_path / "a.dcm") is None
    write_png(tmp_path / "a.png", PIXELS)
    assert read_spacing_hw(tmp_path / "a.png") is None


def test_a_spacing_that_is_no_number_is_not_quoted(tmp_path: Path) -> None:
    # Every text of the file, the spacings too, is a word.
    assert read_spacing_hw(marked_dicom(tmp_path / "a.dcm", PIXELS)) is None


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadImageError, match=r"cannot read image '.*gone.dcm': there is no such file"):
        read_spacing_hw(tmp_path / "gone.dcm")
