"""Objects in the frame of the image: sizes, boxes and masks as torchvision has them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from fake_detector import ROWS, FakeSession, two_objects
from pycocotools import mask as coco_mask
from torchvision.models.detection.roi_heads import paste_masks_in_image
from torchvision.models.detection.transform import GeneralizedRCNNTransform, resize_boxes

from seg_runtime.errors import BadInputError
from seg_runtime.instances import InstanceSegmenter, resized_hw
from seg_runtime.paste import paste_crops, to_masks


def test_sizes_are_torchvisions() -> None:
    """Shorter side 800, longer one at most 1333, for images wider than high and the other way round."""
    transform = GeneralizedRCNNTransform(800, 1333, [0.0] * 3, [1.0] * 3)
    generator = np.random.default_rng(0)
    for _ in range(60):
        height, width = (int(side) for side in generator.integers(40, 900, 2))
        image, _ = transform.resize(torch.zeros(1, height, width), None)
        canvas = (800, 1333) if width >= height else (1333, 800)
        assert resized_hw((height, width), canvas) == tuple(image.shape[1:])
        assert resized_hw((height, width), (1333, 1333), 800) == tuple(image.shape[1:])


def test_boxes_return_to_the_image_as_torchvisions() -> None:
    session = two_objects()
    image = np.zeros((301, 477, 3), np.uint8)
    result = InstanceSegmenter(session, "cells").segment(image)
    size_hw = [int(side) for side in session.requests[0]["valid_hw"][0]]
    expected = resize_boxes(torch.from_numpy(session.outputs["boxes"][:2]), size_hw, [301, 477]).numpy()
    np.testing.assert_array_equal(result.boxes_xyxy, expected)
    assert result.class_names == ("green", "red")
    assert (result.found, result.truncated) == (2, False)


def test_the_image_lies_at_the_top_left_and_the_rest_is_zero() -> None:
    session = two_objects()
    InstanceSegmenter(session, "cells").segment(np.full((100, 50, 3), 200, np.uint8))
    (request,) = session.requests
    assert request["valid_hw"].tolist() == [[96, 48]]
    canvas = request["image"][0]
    assert (canvas[:96, :48] == 200).all() and not canvas[:, 48:].any()


@pytest.mark.parametrize("size_hw", [(97, 131), (40, 300)])
def test_masks_are_pasted_as_torchvision_pastes_them(size_hw: tuple[int, int]) -> None:
    generator = np.random.default_rng(0)
    count = 60
    probabilities = generator.random((count, 28, 28), dtype=np.float32)
    sides = np.exp(generator.uniform(-2, 5, (count, 2)))
    # Over the edges, but never wholly outside: torchvision cannot paste that.
    corners = np.maximum(generator.uniform(-5, [size_hw[1] - 1, size_hw[0] - 1], (count, 2)), -sides / 2)
    boxes = np.concatenate((corners, corners + sides), axis=1).astype(np.float32)
    boxes[0] = [0, 0, size_hw[1], size_hw[0]]
    pasted = paste_masks_in_image(torch.from_numpy(probabilities)[:, None], torch.from_numpy(boxes), size_hw)[
        :, 0
    ].numpy()
    masks = to_masks(paste_crops(probabilities, boxes, size_hw), size_hw)
    different = masks != (pasted >= 0.5)
    assert masks.any(axis=(1, 2)).sum() > count // 2
    assert not (different & (np.abs(pasted - 0.5) > 1e-5)).any()


def test_rle_polygons_and_coco_agree_with_the_masks() -> None:
    result = InstanceSegmenter(two_objects(), "cells").segment(np.zeros((192, 256, 3), np.uint8))
    masks = result.masks()
    for mask, rle, polygons, annotation in zip(
        masks, result.rle(), result.polygons(), result.coco(7, 3), strict=True
    ):
        np.testing.assert_array_equal(coco_mask.decode(rle), mask)
        merged = coco_mask.merge(coco_mask.frPyObjects(polygons, *mask.shape))
        overlap = coco_mask.decode(merged).astype(bool) & mask
        assert overlap.sum() > 0.9 * mask.sum()
        assert annotation["area"] == mask.sum() and annotation["image_id"] == 7
    assert [item["id"] for item in result.coco(7, 3)] == [3, 4]


def test_filters_by_score_and_class() -> None:
    image = np.zeros((100, 100, 3), np.uint8)
    assert len(InstanceSegmenter(two_objects(), "cells", score_threshold=0.5).segment(image)) == 1
    red = InstanceSegmenter(two_objects(), "cells", classes=["red"]).segment(image)
    assert red.class_names == ("red",) and red.found == 2
    with pytest.raises(BadInputError, match="has no class 'gren': did you mean 'green'"):
        InstanceSegmenter(two_objects(), "cells", classes=["gren"])


def test_nothing_found_and_more_than_fits() -> None:
    image = np.zeros((100, 120, 3), np.uint8)
    nothing = InstanceSegmenter(FakeSession(), "cells").segment(image)
    assert nothing.masks().shape == (0, 100, 120)
    assert nothing.boxes_xyxy.shape == (0, 4)
    assert (nothing.rle(), nothing.polygons(), nothing.coco()) == ([], [], [])
    full = two_objects()
    full.outputs["count"] = np.array([ROWS + 3], np.int32)
    result = InstanceSegmenter(full, "cells").segment(image)
    assert result.truncated and result.found == ROWS + 3


def test_batches_are_run_together() -> None:
    session = two_objects()
    images = [np.zeros((100, side, 3), np.uint8) for side in (60, 100, 140)]
    results = list(InstanceSegmenter(session, "cells").stream(images, batch_size=2))
    assert [len(request["image"]) for request in session.requests] == [2, 1]
    assert [result.size_hw for result in results] == [(100, 60), (100, 100), (100, 140)]
    with pytest.raises(BadInputError, match="batches of 1 to 2, not 3"):
        InstanceSegmenter(session, "cells").stream(images, batch_size=3).__next__()


@pytest.mark.parametrize("shape", [(31, 100, 3), (40, 801, 3)])
def test_images_that_are_too_small_or_too_long_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(BadInputError, match=f"an image of {shape[1]}x{shape[0]} pixels: sides must be"):
        InstanceSegmenter(two_objects(), "cells").segment(np.zeros(shape, np.uint8))


def test_other_models_and_settings_are_refused() -> None:
    with pytest.raises(BadInputError, match="for the task 'semantic', not for instances"):
        InstanceSegmenter(FakeSession("semantic"), "cells")
    with pytest.raises(BadInputError, match=r"score threshold 1\.5: expected 0 to 1"):
        InstanceSegmenter(two_objects(), "cells", score_threshold=1.5)
    with pytest.raises(BadInputError, match="at least 32 pixels"):
        InstanceSegmenter(two_objects(), "cells", shortest_side=8)
