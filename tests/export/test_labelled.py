"""Labelled images: which masks are read, and as what."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from brightness import BrightnessSession, brightness_spec
from PIL import Image
from tiny_graph import SIDE, publish, semantic_graph, semantic_spec

from seg_export.verification import labelled as labelled_module
from seg_export.verification.labelled import labelled_dice, labelled_images
from seg_runtime.errors import BadInputError
from seg_runtime.video.masks import davis_palette

BRIGHT = np.tile(np.linspace(0, 255, SIDE).astype(np.uint8), (SIDE, 1))
TRUTH = (BRIGHT >= 128).astype(np.uint8)
"""What `semantic_graph` finds: pixels above the middle."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """`repo` with `tiny`, of one class, `images/a.png` and an empty `masks`."""
    publish(tmp_path / "repo", semantic_spec(), semantic_graph())
    for name in ("images", "masks"):
        (tmp_path / name).mkdir()
    cv2.imwrite(str(tmp_path / "images" / "a.png"), BRIGHT)
    return tmp_path


def indexed(path: Path, labels: np.ndarray, bits: int = 8) -> None:
    """As Pascal VOC's masks: a palette whose colours a viewer shows."""
    image = Image.fromarray(labels, "L")
    image.putpalette(davis_palette())
    image.save(path, bits=bits)


def dice(folder: Path) -> float | None:
    labelled = labelled_images(folder / "images", folder / "masks", channels=1, classes=1)
    return labelled_dice(folder / "repo", "tiny", labelled).dice["lung"]


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_indexed_masks_are_read_by_their_indices(folder: Path, bits: int) -> None:
    indexed(folder / "masks" / "a.png", TRUTH, bits)
    assert dice(folder) == 1.0


def test_white_in_an_indexed_mask_is_void_next_to_labels_and_foreground_alone(folder: Path) -> None:
    void = TRUTH.copy()
    void[:4] = 255
    indexed(folder / "masks" / "a.png", void)
    assert dice(folder) == 1.0
    indexed(folder / "masks" / "a.png", TRUTH * 255)
    assert dice(folder) == 1.0
    # A gray mask has no void: what is not 0 is foreground.
    cv2.imwrite(str(folder / "masks" / "a.png"), void)
    found = dice(folder)
    assert found is not None and found < 1


def test_indices_that_are_no_classes_are_refused(folder: Path) -> None:
    indexed(folder / "masks" / "a.png", TRUTH * 20)
    with pytest.raises(BadInputError, match="has the value 20: expected class ids, 0 to 19"):
        labelled_images(folder / "images", folder / "masks", channels=1, classes=20)


def test_jpeg_and_colour_masks_are_refused_whatever_they_are_called(folder: Path) -> None:
    mask = folder / "masks" / "a.png"
    mask.write_bytes(cv2.imencode(".jpg", TRUTH * 255)[1].tobytes())
    with pytest.raises(BadInputError, match=r"a\.png' is a JPEG, which changes values"):
        dice(folder)
    cv2.imwrite(str(mask), np.dstack([TRUTH * 255, TRUTH, TRUTH]))
    with pytest.raises(BadInputError, match="is in colour: save the number of each pixel's class as a gray"):
        dice(folder)


def test_images_of_five_bands_have_masks_too(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = replace(brightness_spec((SIDE, SIDE), channels=5), class_names=("lung",))
    monkeypatch.setattr(labelled_module, "connect", lambda repo: BrightnessSession(spec))
    (folder / "images" / "a.png").unlink()
    np.save(folder / "images" / "a.npy", np.repeat(BRIGHT[..., None], 5, axis=2))
    cv2.imwrite(str(folder / "masks" / "a.png"), TRUTH * 255)
    labelled = labelled_images(folder / "images", folder / "masks", channels=5, classes=1)
    assert labelled_dice(folder / "repo", "brightness", labelled).dice == {"lung": 1.0}
