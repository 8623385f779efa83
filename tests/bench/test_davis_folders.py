"""Folders in DAVIS' layout are found, read and measured."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from clips import judo_folder
from numpy.typing import NDArray
from PIL import Image

from seg_bench.data.davis import load_davis, read_labels
from seg_bench.tracking import measure_results
from seg_runtime.errors import BadImageError, BadInputError
from seg_runtime.video import PngMasks, open_video

SIZE_HW = (48, 64)


def labels(step: int) -> NDArray[np.uint8]:
    values = np.zeros(SIZE_HW, np.uint8)
    values[5:20, 5 + step : 25 + step] = 1
    values[25:40, 30 - step : 50 - step] = 2
    return values


def save_labels(path: Path, values: NDArray[np.uint8]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(values)
    image.putpalette(bytes(range(256)) * 3)
    image.save(path)


def save_sequence(images: Path, masks: Path, count: int = 5) -> None:
    images.mkdir(parents=True, exist_ok=True)
    for index in range(count):
        Image.new("RGB", SIZE_HW[::-1]).save(images / f"{index:05d}.jpg")
        save_labels(masks / f"{index:05d}.png", labels(index))


@pytest.fixture
def davis(tmp_path: Path) -> Path:
    for name in ("camel", "bear"):
        save_sequence(tmp_path / "JPEGImages" / "480p" / name, tmp_path / "Annotations" / "480p" / name)
    (tmp_path / "ImageSets" / "2017").mkdir(parents=True)
    (tmp_path / "ImageSets" / "2017" / "val.txt").write_text("camel\n", encoding="utf-8")
    return tmp_path


def test_sequences_are_found_by_all_by_name_and_by_split(davis: Path) -> None:
    assert [sequence.name for sequence in load_davis(davis)] == ["bear", "camel"]
    assert [sequence.name for sequence in load_davis(davis, ["camel"])] == ["camel"]
    (camel,) = load_davis(davis, split="2017/val")
    assert (camel.name, camel.size_hw(), camel.object_ids()) == ("camel", SIZE_HW, (1, 2))
    np.testing.assert_array_equal(camel.annotation(3), labels(3))
    with open_video(camel.folder) as source:
        assert source.frame_count == len(camel.frames) == len(camel.annotations) == 5


def test_a_layout_without_the_resolution_is_read_too(tmp_path: Path) -> None:
    save_sequence(tmp_path / "JPEGImages" / "a", tmp_path / "Annotations" / "a")
    assert [sequence.name for sequence in load_davis(tmp_path)] == ["a"]


def test_results_are_measured_as_our_own_writer_writes_them(davis: Path, tmp_path: Path) -> None:
    sequences = load_davis(davis)
    for sequence in sequences:
        with PngMasks(tmp_path / "results" / sequence.name, SIZE_HW) as masks:
            for index in range(5):
                truth = labels(index)
                late = index == 2 and sequence.name == "bear"
                shown = {number: np.where(truth == number, 4.0, -4.0).astype(np.float32) for number in (1, 2)}
                masks.write(index, {1: shown[1]} if late else shown)
    scores = measure_results(sequences, tmp_path / "results")
    assert scores.objects == {
        "bear_1": (1, 1),
        "bear_2": (2 / 3, 2 / 3),
        "camel_1": (1, 1),
        "camel_2": (1, 1),
    }
    assert scores.j_and_f == pytest.approx(11 / 12)
    (tmp_path / "results" / "bear" / "00003.png").unlink()
    with pytest.raises(BadInputError, match="'bear' has no result for frame 3"):
        measure_results(sequences, tmp_path / "results")


def test_the_flat_layout_may_have_few_annotations(tmp_path: Path) -> None:
    (sequence,) = load_davis(judo_folder(tmp_path))
    assert (sequence.name, len(sequence.frames)) == ("judo", 16)
    assert sorted(sequence.annotations) == [0, 5, 8, 13]
    assert sequence.object_ids() == (1, 2, 3, 4)
    # The file of frame 5 is a pixel narrower than the frames.
    assert sequence.annotation(5).shape == sequence.size_hw() == (480, 854)
    with pytest.raises(BadInputError, match="frame 1 of 'judo' has no annotation"):
        sequence.annotation(1)


def test_gray_masks_of_0_and_255_hold_one_object(tmp_path: Path) -> None:
    Image.fromarray((labels(0) == 1).astype(np.uint8) * np.uint8(255)).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_labels(tmp_path / "a.png"), labels(0) == 1)
    save_labels(tmp_path / "b.png", np.where(labels(0) == 1, 255, 0).astype(np.uint8))
    assert set(np.unique(read_labels(tmp_path / "b.png"))) == {0, 255}


def test_what_is_wrong_with_a_folder_is_one_line(davis: Path, tmp_path: Path) -> None:
    for call, message in (
        (lambda: load_davis(tmp_path / "none"), "holds no videos"),
        (lambda: load_davis(davis, ["dog"]), "has no sequence dog"),
        (lambda: load_davis(davis, split="2017/train"), "cannot read the split"),
    ):
        with pytest.raises(BadInputError, match=message):
            call()
    masks = davis / "Annotations" / "480p" / "bear"
    save_labels(masks / "00001.png", np.zeros((20, 20), np.uint8))
    Image.fromarray(np.dstack([labels(0), labels(0) + 1, labels(0)])).save(masks / "00002.png")
    (masks / "00003.png").write_bytes(b"no image")
    (bear,) = load_davis(davis, ["bear"])
    for index, message in ((1, "20x20 pixels and its frame 64x48"), (2, "in colour"), (3, "is no PNG")):
        with pytest.raises(BadImageError, match=message):
            bear.annotation(index)
    save_labels(masks / "00009.png", labels(0))
    with pytest.raises(BadInputError, match="belongs to no frame"):
        load_davis(davis, ["bear"])
