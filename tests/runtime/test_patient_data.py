"""Reading a DICOM file says nothing of the patient: no message, warning, log or cause quotes an element."""

from __future__ import annotations

import logging
import traceback
import warnings
from pathlib import Path

import numpy as np
import pytest
from marked_dicom import DAMAGED, MARKER, damaged_dicom, marked_dicom

from seg_runtime.errors import BadImageError
from seg_runtime.files.images import read_image

PIXELS = np.arange(32 * 32, dtype=np.uint16).reshape(32, 32).astype(np.uint8)


def test_dicom_is_read_without_a_word(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = marked_dicom(tmp_path / "a.dcm", PIXELS)
    assert path.read_bytes().count(MARKER.encode()) > 1000
    caplog.clear()  # Writing the file, too, made pydicom speak.
    with caplog.at_level(logging.DEBUG), warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        assert read_image(path, 1).shape == (32, 32)
    assert caplog.text == "" and heard == []
    assert not logging.getLogger("pydicom").disabled


@pytest.mark.parametrize("how", DAMAGED)
def test_damaged_dicom_is_refused_or_read_without_quoting_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, how: str
) -> None:
    path = damaged_dicom(tmp_path / "a.dcm", PIXELS, how)
    said = ""
    caplog.clear()  # Writing the file, too, made pydicom speak.
    with caplog.at_level(logging.DEBUG), warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        try:
            read_image(path, 1)
        except BadImageError as error:
            said = "".join(traceback.format_exception(error))
    assert MARKER not in said and MARKER not in caplog.text and heard == []
    assert bool(said) == (how != "character set")
