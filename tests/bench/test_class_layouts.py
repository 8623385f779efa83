"""Ground truth of several classes: one meaning in every layout, and one line for what cannot be used."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from class_data import NAMES, Layout, labels, write_classes

from seg_bench.data.classes import ClassSample, class_names
from seg_bench.data.find import find_samples, sample_from_json, sample_to_json
from seg_bench.data.training import training_data
from seg_runtime.errors import BadImageError, BadInputError
from seg_runtime.files.images import write_png


@pytest.mark.parametrize("layout", ["map", "palette", "folders", "coco"])
def test_every_layout_gives_the_same_classes_and_names(tmp_path: Path, layout: Layout) -> None:
    root = write_classes(tmp_path / "data", layout, count=4)
    names = ("background", "bar", "disc") if layout == "folders" else NAMES
    assert class_names(root) == names
    for number, sample in enumerate(find_samples(root)):
        assert isinstance(sample, ClassSample) and sample.name == f"scene_{number}"
        wanted = np.array([names.index(name) for name in NAMES])[labels(number)]
        np.testing.assert_array_equal(sample.load_classes(), wanted)
        assert sample_from_json(json.loads(json.dumps(sample_to_json(sample)))) == sample


def test_polygons_are_filled_as_opencv_fills_them_and_small_areas_lie_on_top(tmp_path: Path) -> None:
    root = write_classes(tmp_path / "data", "coco", count=1)
    document = json.loads((root / "annotations.json").read_text())
    large, small = [4, 4, 40, 4, 40, 40, 4, 40], [10, 10, 20, 10, 20, 20, 10, 20]
    document["annotations"] = [
        {"image_id": 100, "category_id": category, "segmentation": [polygon]}
        for category, polygon in ((9, small), (7, large))
    ]
    (root / "annotations.json").write_text(json.dumps(document))
    (sample,) = find_samples(root)
    wanted = np.zeros((48, 48), np.uint8)
    cv2.fillPoly(wanted, [np.array(large).reshape(-1, 2)], 1)
    cv2.fillPoly(wanted, [np.array(small).reshape(-1, 2)], 2)
    assert isinstance(sample, ClassSample)
    assert np.mean(sample.load_classes() != wanted) < 0.06  # the last row and column of a polygon


def test_order_of_classes_txt_numbers_the_folders(tmp_path: Path) -> None:
    root = write_classes(tmp_path / "data", "folders", count=1)
    (root / "classes.txt").write_text("background\ndisc\nbar\n")
    (sample,) = find_samples(root)
    assert isinstance(sample, ClassSample)
    np.testing.assert_array_equal(sample.load_classes(), labels(0))
    (root / "classes.txt").write_text("background\ndisc\n")
    with pytest.raises(BadInputError, match=r"bar' is no class of classes\.txt, which has background, disc"):
        find_samples(root)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "names no class"),
        ("background\ndisc\ndisc\n", "has 'disc' twice"),
        ("background\n", "has one class, background"),
    ],
)
def test_names_that_cannot_be_used(tmp_path: Path, text: str, message: str) -> None:
    root = write_classes(tmp_path / "data", count=1)
    (root / "classes.txt").write_text(text)
    with pytest.raises(BadInputError, match=message):
        training_data(root)


def test_maps_without_names_ask_for_them(tmp_path: Path) -> None:
    root = write_classes(tmp_path / "data", "palette", count=1, named=False)
    with pytest.raises(BadInputError, match=r"have numbers and no names: write classes\.txt.*--class-names"):
        training_data(root)
    assert training_data(root, NAMES).class_names == NAMES
    (root / "classes.txt").write_text("background\nwheel\nrod\n")
    with pytest.raises(
        BadInputError, match=r"--class-names are background, disc, bar, and .* names background"
    ):
        training_data(root, NAMES)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": []}, r"'scene_0\.png' is missing or wrong"),
        ({"categories": 3}, "not in COCO's format"),
        ({"categories": [{"id": 1, "name": "disc"}, {"id": 2, "name": "disc"}]}, "has 'disc' twice"),
        ({"categories": [{"id": 9, "name": "bar"}]}, "7 is missing or wrong"),
        ({"annotations": [{"image_id": 100, "category_id": 7}]}, "'segmentation' is missing or wrong"),
        ({"annotations": ["x"]}, "is missing or wrong"),
    ],
)
def test_annotations_that_cannot_be_used(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    root = write_classes(tmp_path / "data", "coco", count=1)
    path = root / "annotations.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(BadInputError, match=message):
        training_data(root)


@pytest.mark.parametrize("shape", ["x", 3, {"size": [9, 9], "counts": [81]}, [[1, 2]], None])
def test_a_damaged_segmentation_is_one_line(tmp_path: Path, shape: Any) -> None:
    root = write_classes(tmp_path / "data", "coco", count=1)
    document = json.loads((root / "annotations.json").read_text())
    document["annotations"][0]["segmentation"] = shape
    (root / "annotations.json").write_text(json.dumps(document))
    (sample,) = find_samples(root)
    with pytest.raises(BadImageError, match="export it again"):
        sample.load_mask()


def test_images_of_any_format_find_their_masks_by_name(tmp_path: Path) -> None:
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
    mask = np.where(labels(0) > 0, 255, 0).astype(np.uint8)
    cv2.imwrite(str(tmp_path / "images" / "a.jpg"), mask)
    write_png(tmp_path / "masks" / "a.png", mask)
    (sample,) = find_samples(tmp_path)
    assert sample.name == "a" and sample.load_mask().any()
    cv2.imwrite(str(tmp_path / "images" / "a.tif"), mask)
    with pytest.raises(BadInputError, match=r"a\.jpg' and 'a\.tif' have one name"):
        find_samples(tmp_path)
