"""Morphology and connected components, against scipy.ndimage."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from scipy import ndimage

from seg_runtime.crf import CrfSpec
from seg_runtime.errors import BadInputError
from seg_runtime.postprocess import PostProcess, apply_postprocess


def _apply(mask, **steps):
    probabilities = np.zeros((1, *mask.shape), np.float32)
    return apply_postprocess(PostProcess(**steps), probabilities, mask, np.zeros(mask.shape, np.uint8))


def _blobs(seed, shape=(70, 90)):
    noise = cv2.GaussianBlur(np.random.default_rng(seed).standard_normal(shape), (0, 0), 2)
    return (noise > 0.02).astype(np.uint8)


def _disc(radius):
    y, x = np.ogrid[-radius : radius + 1, -radius : radius + 1]
    return x * x + y * y <= radius * radius


def test_no_steps_return_an_equal_copy():
    mask = _blobs(0)

    cleaned = _apply(mask)

    np.testing.assert_array_equal(cleaned, mask)
    assert not np.shares_memory(cleaned, mask)


@pytest.mark.parametrize("radius", [1, 2, 5])
def test_closing_equals_scipy_on_an_unbounded_plane(radius):
    mask = _blobs(1)
    padded = np.pad(mask, 2 * radius)
    expected = ndimage.binary_closing(padded, _disc(radius))[
        2 * radius : -2 * radius, 2 * radius : -2 * radius
    ]

    np.testing.assert_array_equal(_apply(mask, closing_radius_px=radius), expected)


@pytest.mark.parametrize("radius", [1, 2, 5])
def test_opening_equals_scipy_and_keeps_what_the_image_border_cuts(radius):
    mask = _blobs(2)
    eroded = ndimage.binary_erosion(mask, _disc(radius), border_value=1)
    expected = ndimage.binary_dilation(eroded, _disc(radius))

    np.testing.assert_array_equal(_apply(mask, opening_radius_px=radius), expected)


def test_closing_does_not_fill_the_strip_beside_the_image_border():
    mask = np.zeros((40, 40), np.uint8)
    mask[10:30, 3:20] = 1

    np.testing.assert_array_equal(_apply(mask, closing_radius_px=5), mask)


def test_small_regions_are_removed_by_their_area_with_diagonal_neighbours_joined():
    mask = np.zeros((20, 20), np.uint8)
    mask[2:5, 2:5] = 1
    mask[5, 5] = 1
    mask[15, 15:18] = 1
    expected = mask.copy()
    expected[15] = 0

    np.testing.assert_array_equal(_apply(mask, min_area_px=10), expected)
    assert not _apply(mask, min_area_px=11).any()


@pytest.mark.parametrize("count", [1, 2, 5])
def test_largest_regions_equal_those_of_scipy(count):
    mask = _blobs(3)
    labels, _ = ndimage.label(mask, np.ones((3, 3)))
    areas = np.bincount(labels.ravel())[1:]
    expected = np.isin(labels, 1 + np.argsort(-areas, kind="stable")[:count])

    np.testing.assert_array_equal(_apply(mask, keep_largest=count), expected)


def test_keeping_more_regions_than_there_are_keeps_all():
    mask = _blobs(4)

    np.testing.assert_array_equal(_apply(mask, keep_largest=10_000), mask)


def test_classes_are_cleaned_by_themselves_and_closing_never_takes_from_another_class():
    mask = np.zeros((40, 60), np.uint8)
    mask[5:35, 5:28] = 1
    mask[18:21, 14:17] = 0  # a hole in class 1, filled
    mask[10, 20] = 2  # a speck of class 2 within class 1, removed and not given to class 1
    mask[5:35, 28:55] = 2

    cleaned = _apply(mask, closing_radius_px=3, min_area_px=4)

    expected = mask.copy()
    expected[18:21, 14:17] = 1
    expected[10, 20] = 0
    np.testing.assert_array_equal(cleaned, expected)


def test_an_empty_mask_stays_empty():
    steps = {"closing_radius_px": 2, "opening_radius_px": 2, "min_area_px": 5, "keep_largest": 1}

    assert not _apply(np.zeros((10, 12), np.uint8), **steps).any()


def test_a_one_pixel_image_passes_through_every_step():
    mask = np.ones((1, 1), np.uint8)
    steps = {"closing_radius_px": 3, "opening_radius_px": 3, "min_area_px": 1, "keep_largest": 1}

    np.testing.assert_array_equal(_apply(mask, **steps), mask)


def test_the_crf_decides_before_morphology():
    truth = cv2.circle(np.zeros((96, 96), np.uint8), (48, 48), 28, 1, -1)
    image = np.where(truth > 0, 180, 60).astype(np.uint8)
    noise = np.random.default_rng(5).normal(0, 0.25, truth.shape)
    probabilities = np.clip(0.25 + 0.5 * truth + noise, 0, 1).astype(np.float32)[None]
    mask = (probabilities[0] >= 0.5).astype(np.uint8)

    cleaned = apply_postprocess(PostProcess(crf=CrfSpec(), keep_largest=1), probabilities, mask, image)

    assert np.count_nonzero(mask != truth) > 500
    assert np.count_nonzero(cleaned != truth) < 10


def test_the_crf_of_several_classes_returns_class_ids():
    truth = np.repeat(np.array([0, 1, 2], np.uint8), 20)[None].repeat(30, axis=0)
    image = (truth * 100).astype(np.uint8)
    probabilities = np.stack([np.where(truth == class_id, 0.6, 0.2) for class_id in range(3)])
    probabilities = probabilities.astype(np.float32)
    noisy = np.random.default_rng(6).integers(0, 3, truth.shape).astype(np.uint8)

    cleaned = apply_postprocess(PostProcess(crf=CrfSpec()), probabilities, noisy, image)

    np.testing.assert_array_equal(cleaned, truth)


@pytest.mark.parametrize(
    "step", [{"closing_radius_px": -1}, {"opening_radius_px": -2}, {"min_area_px": -1}, {"keep_largest": 0}]
)
def test_postprocess_refuses_bad_settings(step):
    with pytest.raises(BadInputError, match=next(iter(step))):
        PostProcess(**step)


@pytest.mark.parametrize(
    "mask", [np.zeros((8, 8), np.int64), np.zeros((1, 8, 8), np.uint8), np.zeros((8, 9), np.uint8)]
)
def test_postprocess_refuses_masks_that_do_not_fit(mask):
    probabilities, image = np.zeros((1, 8, 8), np.float32), np.zeros((8, 8), np.uint8)

    with pytest.raises(BadInputError, match="uint8 mask"):
        apply_postprocess(PostProcess(), probabilities, mask, image)
