"""The DICOM files that pydicom is tested with, of many makers and syntaxes, against pydicom's own pixels."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pydicom.data
import pytest
from numpy.typing import NDArray

from seg_runtime.errors import BadImageError
from seg_runtime.files.images import load_image

FOLDER = Path(pydicom.data.__file__).parent / "test_files"
SMALLEST = 8
TITLES = ("6154", "17136")
"""Of the many slices of a DICOM directory, one of each photometric interpretation."""


def _single_images() -> dict[str, Path]:
    """Files of one frame that pydicom decodes."""
    found = {}
    for path in sorted(FOLDER.rglob("*")):
        if path.is_file() and (path.suffix == ".dcm" or path.name in TITLES):
            try:
                dataset = pydicom.dcmread(path)
                shape = dataset.pixel_array.shape
            except Exception:  # noqa: BLE001 - damaged on purpose, or without pixels
                continue
            if dataset.get("NumberOfFrames", 1) == 1 and min(shape[:2]) >= SMALLEST:
                found[path.name] = path
    return found


IMAGES = _single_images()


def test_the_corpus_is_there() -> None:
    assert len(IMAGES) > 45
    assert {"CT_small.dcm", "MR_small_RLE.dcm", "JPEG2000.dcm", "examples_palette.dcm"} <= set(IMAGES)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", IMAGES)
def test_pixels_are_those_that_pydicom_finds(name: str) -> None:
    dataset = pydicom.dcmread(IMAGES[name])
    pixels = load_image(IMAGES[name], 3).pixels
    if dataset.PhotometricInterpretation == "PALETTE COLOR":
        colors = pydicom.pixels.apply_color_lut(dataset.pixel_array, dataset)
        np.testing.assert_allclose(pixels, colors / (257 if colors.dtype == np.uint16 else 1), atol=1)
    elif dataset.SamplesPerPixel == 3:
        colors = dataset.pixel_array * (255 / (2**dataset.BitsStored - 1))
        np.testing.assert_allclose(pixels, colors, atol=1)
    else:
        assert (pixels == pixels[..., :1]).all()
        _assert_ordered_as(dataset.pixel_array, pixels[..., 0], dataset.PhotometricInterpretation)


def _assert_ordered_as(values: NDArray[Any], shown: NDArray[np.uint8], photometric: str) -> None:
    """A larger stored value is never darker, or never brighter where black and white are exchanged."""
    order = np.argsort(values.ravel(), kind="stable")
    steps = np.diff(shown.ravel()[order].astype(int))
    assert (steps <= 0).all() if photometric == "MONOCHROME1" else (steps >= 0).all()


@pytest.mark.filterwarnings("ignore")
def test_every_other_file_is_refused_in_one_line() -> None:
    refused = 0
    for path in sorted(FOLDER.rglob("*")):
        if path.is_file() and path.name not in IMAGES:
            try:
                load_image(path, 3)
            except BadImageError as error:
                refused += 1
                assert "\n" not in str(error) and not re.search(r"Error|Exception|0x", str(error))
    assert refused > 30
