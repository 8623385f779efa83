"""The parts of the automatic mask generator against segment_anything, torchvision and pycocotools."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from segment_anything.utils import amg as original
from torchvision.ops import batched_nms

from seg_runtime.errors import BadInputError
from seg_runtime.sam.amg import generate_crop_boxes, make_point_grids, remove_small_regions
from seg_runtime.sam.boxes import is_near_crop_edge, mask_to_box, nms
from seg_runtime.sam.rle import coco_rle, decode_counts, encode_counts, rle_to_mask, uncompressed_rle


def blobs(seed: int, size_hw: tuple[int, int] = (90, 120)) -> NDArray[np.bool_]:
    """Smooth seeded noise above its mean: several regions with holes, touching the borders."""
    noise = np.random.default_rng(seed).standard_normal(size_hw)
    return np.asarray(cv2.GaussianBlur(noise, (0, 0), 1 + seed % 4) > 0)


def masks() -> list[NDArray[np.bool_]]:
    one_pixel = np.zeros((7, 5), np.bool_)
    one_pixel[3, 2] = True
    return [
        np.zeros((6, 9), np.bool_),
        np.ones((6, 9), np.bool_),
        one_pixel,
        np.ones((1, 1), np.bool_),
        *(blobs(seed) for seed in range(8)),
    ]


@pytest.mark.parametrize("mask", masks())
def test_run_lengths_equal_the_originals_and_come_back_as_the_mask(mask: NDArray[np.bool_]) -> None:
    wanted = original.mask_to_rle_pytorch(torch.from_numpy(mask[None]))[0]
    counts = encode_counts(mask)
    assert uncompressed_rle(counts, mask.shape) == wanted
    np.testing.assert_array_equal(decode_counts(counts, mask.shape), mask)
    np.testing.assert_array_equal(rle_to_mask(wanted), mask)
    json.dumps(uncompressed_rle(counts, mask.shape))


@pytest.mark.parametrize("part", [(17, 80, 5, 60), (0, 80, 0, 90), (17, 120, 0, 90), (40, 41, 89, 90)])
def test_run_lengths_of_a_part_equal_those_of_the_whole_mask(part: tuple[int, int, int, int]) -> None:
    x0, x1, y0, y1 = part
    for seed in range(6):
        whole = np.zeros((90, 120), np.bool_)
        whole[y0:y1, x0:x1] = blobs(seed)[y0:y1, x0:x1]
        wanted = original.mask_to_rle_pytorch(torch.from_numpy(whole[None]))[0]
        counts = encode_counts(whole[y0:y1, x0:x1], (x0, y0), whole.shape)
        assert uncompressed_rle(counts, whole.shape) == wanted
    assert encode_counts(np.empty((0, 0), np.bool_), (0, 0), (6, 9)).tolist() == [54]


def test_box_of_a_part_is_that_of_the_mask() -> None:
    mask = blobs(0).view(np.uint8)
    x0, y0, x1, y1 = mask_to_box(mask[10:60, 20:70])
    assert mask_to_box(mask[10:60, 20:70], (20, 10)) == (x0 + 20, y0 + 10, x1 + 20, y1 + 10)
    assert mask_to_box(np.zeros((3, 3), np.uint8), (20, 10)) == (0, 0, 0, 0)
    assert mask_to_box(np.zeros((0, 0), np.uint8), (20, 10)) == (0, 0, 0, 0)


COCO_STRINGS = [
    ([54], "f1"),
    ([0, 54], "0f1"),
    ([17, 1, 17], "a01a0"),
    ([0, 1], "01"),
    ([5, 40, 3, 1000, 31, 32, 2, 100000, 7], "5X13Pn0l0hQOSOPdQ35"),
]


@pytest.mark.parametrize(("counts", "text"), COCO_STRINGS)
def test_coco_strings_are_those_that_pycocotools_wrote(counts: list[int], text: str) -> None:
    total = sum(counts)
    assert coco_rle(np.array(counts), (total, 1)) == {"size": [total, 1], "counts": text}


@pytest.mark.parametrize("mask", masks())
def test_coco_strings_come_back_as_the_mask(mask: NDArray[np.bool_]) -> None:
    encoded = json.loads(json.dumps(coco_rle(encode_counts(mask), mask.shape)))
    np.testing.assert_array_equal(rle_to_mask(encoded), mask)
    np.testing.assert_array_equal(rle_to_mask({**encoded, "counts": encoded["counts"].encode()}), mask)


@pytest.mark.parametrize("mask", masks())
def test_coco_strings_equal_those_of_an_installed_pycocotools(mask: NDArray[np.bool_]) -> None:
    coco = pytest.importorskip("pycocotools.mask")
    wanted = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
    assert coco_rle(encode_counts(mask), mask.shape)["counts"] == wanted["counts"].decode()


@pytest.mark.parametrize("rle", [{}, {"size": [2, 2], "counts": [3]}, {"size": [2, 2], "counts": "P"}])
def test_what_is_no_run_length_encoding_is_refused(rle: dict[str, object]) -> None:
    with pytest.raises(BadInputError, match="not a run-length encoded mask"):
        rle_to_mask(rle)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("threshold", [0.3, 0.7])
def test_suppression_keeps_the_boxes_that_torchvision_keeps(seed: int, threshold: float) -> None:
    random = np.random.default_rng(seed)
    corners = random.integers(0, 60, (400, 2))
    boxes = np.concatenate([corners, corners + random.integers(0, 40, (400, 2))], axis=1)
    scores = random.random(400).astype(np.float32)
    kept = batched_nms(torch.from_numpy(boxes).float(), torch.from_numpy(scores), torch.zeros(400), threshold)
    np.testing.assert_array_equal(nms(boxes, scores, threshold), kept.numpy())


def test_suppression_with_equal_scores_keeps_what_torchvision_keeps() -> None:
    boxes = np.array([[0, 0, 10, 10], [0, 0, 10, 11], [20, 20, 30, 30], [0, 0, 0, 0], [0, 0, 0, 0]])
    scores = np.ones(5, np.float32)
    kept = batched_nms(torch.from_numpy(boxes).float(), torch.from_numpy(scores), torch.zeros(5), 0.5)
    assert sorted(nms(boxes, scores, 0.5).tolist()) == sorted(kept.tolist())
    assert nms(np.empty((0, 4)), np.empty(0, np.float32), 0.5).tolist() == []


@pytest.mark.parametrize("mask", masks())
def test_box_of_a_mask_equals_the_originals(mask: NDArray[np.bool_]) -> None:
    wanted = original.batched_mask_to_box(torch.from_numpy(mask[None]))[0].tolist()
    assert list(mask_to_box(mask.view(np.uint8))) == wanted


def test_edges_of_crops_are_seen_as_the_original_sees_them() -> None:
    random = np.random.default_rng(0)
    crop, size_hw = (100, 0, 400, 250), (250, 700)
    boxes = np.sort(random.integers(0, 300, (300, 2, 2)), axis=1).reshape(-1, 4)
    wanted = original.is_box_near_crop_edge(torch.from_numpy(boxes), list(crop), [0, 0, 700, 250])
    got = [is_near_crop_edge(tuple(box), crop, size_hw) for box in boxes.tolist()]
    assert got == wanted.tolist()
    assert 0 < sum(got) < 300


@pytest.mark.parametrize("size_hw", [(512, 512), (1200, 1800), (333, 91)])
def test_crops_and_grids_equal_the_originals(size_hw: tuple[int, int]) -> None:
    boxes, layers = original.generate_crop_boxes(size_hw, 2, 512 / 1500)
    assert generate_crop_boxes(size_hw, 2, 512 / 1500) == [
        (tuple(box), layer) for box, layer in zip(boxes, layers, strict=True)
    ]
    for ours, theirs in zip(
        make_point_grids(32, 2, 2), original.build_all_layer_point_grids(32, 2, 2), strict=True
    ):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("mode", ["holes", "islands"])
@pytest.mark.parametrize("area", [1, 20, 150, 10**6])
def test_small_regions_are_removed_as_the_original_removes_them(mode: str, area: int) -> None:
    for seed in range(6):
        mask = blobs(seed)
        wanted, wanted_changed = original.remove_small_regions(mask, area, mode)
        got, changed = remove_small_regions(mask, area, "holes" if mode == "holes" else "islands")
        assert changed == wanted_changed
        np.testing.assert_array_equal(got, wanted)
