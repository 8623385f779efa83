"""Images with objects: both layouts, crops to train on, and refusals."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import ndimage

from seg_bench.data.class_truths import ClassMap
from seg_bench.data.classes import ClassSample
from seg_bench.data.find import find_samples, shipped_split
from seg_bench.data.nuclei import InstanceSample, load_nuclei
from seg_bench.data.nuclei_classes import NUCLEI_CLASSES, nuclei_classes
from seg_bench.data.splits import nuclei_split
from seg_bench.data.training import TrainingData
from seg_bench.train.detection_dataset import CropSettings, DetectionDataset, Objects, load_objects
from seg_runtime.errors import BadImageError, BadInputError


def write(path: Path, pixels: NDArray[np.generic]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), pixels)


def test_official_layout_gives_the_objects_of_the_merged_one(nuclei_folder: Path, tmp_path: Path) -> None:
    merged = load_nuclei(nuclei_folder)[:2]
    for sample in merged:
        folder = tmp_path / (sample.name + "0" * 52)
        write(folder / "images" / f"{folder.name}.png", cv2.imread(str(sample.image_path)))
        labels = sample.load_labels()
        for number in np.unique(labels)[1:]:
            write(folder / "masks" / f"{number:04}.png", (labels == number).astype(np.uint8) * 255)
    official = load_nuclei(tmp_path)
    assert [sample.name for sample in official] == [sample.name for sample in merged]
    for theirs, ours in zip(official, merged, strict=True):
        np.testing.assert_array_equal(theirs.load_image(), ours.load_image())
        np.testing.assert_array_equal(theirs.load_mask(), ours.load_mask())
        first, second = theirs.load_labels(), ours.load_labels()
        # Ids may differ, which pixels belong together may not.
        pairs = {(int(a), int(b)) for a, b in zip(first.ravel(), second.ravel(), strict=True)}
        assert len(pairs) == len(np.unique(first)) == len(np.unique(second))


def test_a_folder_says_by_itself_whether_it_has_objects(nuclei_folder: Path, xray_folder: Path) -> None:
    nuclei, xrays = find_samples(nuclei_folder), find_samples(xray_folder)
    assert isinstance(nuclei[0], InstanceSample) and not isinstance(xrays[0], InstanceSample)
    assert shipped_split(nuclei).data_set == "nuclei"
    assert shipped_split(xrays).data_set == "montgomery"


def test_test_images_are_of_the_splits_test_part(nuclei_folder: Path) -> None:
    assert {sample.name for sample in load_nuclei(nuclei_folder)} <= set(nuclei_split().test)
    assert (len(nuclei_split().train), len(nuclei_split().val), len(nuclei_split().test)) == (155, 22, 45)


def test_folders_that_cannot_be_used_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="holds no images with objects"):
        load_nuclei(tmp_path)
    write(tmp_path / "images" / "a.png", np.zeros((8, 8, 3), np.uint8))
    (tmp_path / "labels").mkdir()
    with pytest.raises(BadInputError, match="has no map of ids"):
        load_nuclei(tmp_path)
    (tmp_path / "labels" / "a.png").write_bytes(b"")
    (sample,) = load_nuclei(tmp_path)
    with pytest.raises(BadImageError, match="the file is empty"):
        sample.load_labels()
    write(tmp_path / "labels" / "a.png", np.ones((9, 8), np.uint16))
    with pytest.raises(BadImageError, match="both must have one size"):
        load_objects([sample], (64, 64))
    write(tmp_path / "official" / "x" / "masks" / "1.png", np.zeros((8, 8), np.uint8))
    with pytest.raises(BadInputError, match="holds 0 images and 1 masks"):
        load_nuclei(tmp_path / "official")


def test_crops_are_the_same_for_a_seed_and_an_epoch_and_their_boxes_enclose_their_masks(
    nuclei_folder: Path,
) -> None:
    objects = load_objects(load_nuclei(nuclei_folder)[:3], (128, 128))
    assert all(max(image.shape[:2]) == 128 for image in objects.images)
    data = DetectionDataset(objects, (128, 128), CropSettings(size=64, cut_probability=0), seed=5)
    image, target = data[1]
    again, _ = data[1]
    assert torch.equal(image, again) and image.shape == (3, 64, 64) and 0 <= image.min() < image.max() <= 1
    assert not torch.equal(image, data[1, 1][0])
    assert len(target["boxes"]) > 0
    for box, mask in zip(target["boxes"], target["masks"], strict=True):
        rows, columns = torch.nonzero(mask, as_tuple=True)
        assert box.tolist() == [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    assert (target["masks"].sum(dim=0) <= 1).all()


def test_a_crop_without_objects_has_an_empty_target() -> None:
    objects = Objects((np.zeros((64, 64, 3), np.uint8),), (np.zeros((64, 64), np.int32),))
    _, target = DetectionDataset(objects, (64, 64), CropSettings(size=64, cut_probability=0))[0]
    assert target["boxes"].shape == (0, 4) and target["masks"].shape == (0, 64, 64)


def test_some_crops_end_early_and_their_objects_with_them(nuclei_folder: Path) -> None:
    objects = load_objects(load_nuclei(nuclei_folder)[:1], (128, 128))
    data = DetectionDataset(objects, (128, 128), CropSettings(size=64, cut_probability=0.5, shortest=0.5))
    sizes = set()
    for epoch in range(20):
        image, target = data[epoch, 0]
        assert image.shape[1:] == target["masks"].shape[1:]
        assert (target["boxes"] <= torch.tensor([*image.shape[:0:-1], *image.shape[:0:-1]])).all()
        sizes.add(tuple(image.shape[1:]))
    sides = {side for size in sizes for side in size}
    assert len(sizes) > 5 and max(sides) == 64 and 32 <= min(sides) < 45


def test_border_is_what_lies_within_two_rows_and_columns_of_anything_else(nuclei_folder: Path) -> None:
    for sample in load_nuclei(nuclei_folder):
        labels = sample.load_labels()
        wanted = np.zeros(labels.shape, np.uint8)
        for number in np.unique(labels)[1:]:
            nucleus = labels == number
            away = ndimage.distance_transform_cdt(nucleus, metric="chessboard")
            wanted[nucleus] = np.where(away[nucleus] <= 2, 2, 1)
        assert {*np.unique(wanted)} == {0, 1, 2}
        np.testing.assert_array_equal(nuclei_classes(labels), wanted)
        # Ids that float32 does not tell apart.
        np.testing.assert_array_equal(nuclei_classes(np.where(labels, labels + 2**24, 0)), wanted)


def test_a_nucleus_at_the_edge_of_the_image_has_no_border_there() -> None:
    wanted = np.ones((8, 8), np.uint8)
    wanted[:, 4:] = 2
    wanted[:, 6:] = 0
    np.testing.assert_array_equal(nuclei_classes((wanted > 0).astype(np.int32)), wanted)


def test_nuclei_that_touch_are_apart_without_their_borders(nuclei_folder: Path) -> None:
    joined = 0
    for sample in load_nuclei(nuclei_folder):
        labels = sample.load_labels()
        joined += sum(count > 1 for count in nuclei_of_regions(labels > 0, labels))
        assert set(nuclei_of_regions(nuclei_classes(labels) == 1, labels)) == {1}
    assert joined > 20


def nuclei_of_regions(mask: NDArray[np.bool_], labels: NDArray[np.int32]) -> list[int]:
    """Of how many nuclei each connected region is, corners connect too."""
    regions, count = ndimage.label(mask, np.ones((3, 3)))
    return [len(np.unique(labels[regions == number])) for number in range(1, count + 1)]


def test_nuclei_with_classes_have_the_split_of_the_nuclei() -> None:
    split = nuclei_split()
    names = sorted([*split.train, *split.val, *split.test])
    samples = tuple(ClassSample(name, Path(name), ClassMap(Path(name))) for name in [*names, "another"])
    assert TrainingData("x", samples, NUCLEI_CLASSES).split(seed=3) == split
    assert TrainingData("x", samples[1:], NUCLEI_CLASSES).split(seed=3).data_set == "x"
