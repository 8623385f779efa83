"""Overlays: what is tinted, what is left alone and that contours show on any background."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from seg_runtime.errors import BadInputError
from seg_runtime.files.overlay import COLORS, distinct_colors, draw_overlay


def square(size: int = 100) -> NDArray[np.uint8]:
    mask = np.zeros((size, size), np.uint8)
    mask[size // 4 : 3 * size // 4, size // 4 : 3 * size // 4] = 1
    return mask


@pytest.mark.parametrize("shape", [(100, 100), (100, 100, 3)])
def test_only_the_mask_and_its_contour_are_painted(shape: tuple[int, ...]) -> None:
    image = np.full(shape, 100, np.uint8)
    before = image.copy()
    drawn = draw_overlay(image, square(), alpha=0.4)
    assert drawn.shape == (100, 100, 3)
    assert drawn.dtype == np.uint8
    assert (drawn[:20] == 100).all()
    tint = np.rint(0.6 * 100 + 0.4 * np.array(COLORS[0]))
    assert np.abs(drawn[50, 50] - tint).max() <= 1
    assert np.array_equal(image, before)


@pytest.mark.parametrize("background", [0, 60, 128, 200, 255])
def test_contours_stand_out_from_any_background(background: int) -> None:
    drawn = draw_overlay(np.full((100, 100), background, np.uint8), square())
    luminance = drawn[50].astype(float).mean(axis=-1)
    edge = luminance[20:30]
    # A light and a dark line next to each other, whatever lies behind them.
    assert edge.max() - edge.min() > 100


def test_holes_have_contours_and_stay_clear() -> None:
    mask = square()
    mask[45:56, 45:56] = 0
    drawn = draw_overlay(np.full((100, 100), 100, np.uint8), mask)
    assert (drawn[50, 50] == 100).all()
    assert np.ptp(drawn[50, 40:50].astype(float).mean(axis=-1)) > 80


def test_each_class_has_its_colour_and_they_repeat() -> None:
    mask = np.repeat(np.arange(12, dtype=np.uint8), 20)[None].repeat(100, axis=0)
    drawn = draw_overlay(np.zeros((100, 240), np.uint8), mask, alpha=1.0)
    for class_id in range(1, 12):
        expected = COLORS[(class_id - 1) % len(COLORS)]
        assert drawn[50, 20 * class_id + 10].tolist() == list(expected)
    own = draw_overlay(np.zeros((100, 240), np.uint8), mask, colors=[(1, 2, 3)], alpha=1.0)
    assert own[50, 30].tolist() == own[50, 130].tolist() == [1, 2, 3]


def test_an_empty_mask_leaves_the_image() -> None:
    image = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    assert np.array_equal(draw_overlay(image, np.zeros((40, 40), np.uint8)), image)


def test_a_mask_of_another_size_is_refused() -> None:
    with pytest.raises(BadInputError, match=r"mask of \(10, 10\) pixels does not fit an image of \(20, 10\)"):
        draw_overlay(np.zeros((20, 10), np.uint8), np.zeros((10, 10), np.uint8))


def random_blobs(seed: int, count: int, side: int = 200) -> list[NDArray[np.bool_]]:
    """Discs that lie apart, touch and overlap."""
    generator = np.random.default_rng(seed)
    rows, columns = np.ogrid[:side, :side]
    places, radii = generator.integers(0, side, (count, 2)), generator.integers(8, 24, count)
    return [
        (rows - y) ** 2 + (columns - x) ** 2 <= radius**2
        for (x, y), radius in zip(places, radii, strict=True)
    ]


@pytest.mark.parametrize("seed", range(8))
def test_objects_that_touch_in_the_picture_differ_in_colour(seed: int) -> None:
    masks = random_blobs(seed, 24)
    colors = distinct_colors(((mask, (0, 0)) for mask in masks), (200, 200))
    shown = np.full((200, 200), -1)
    for number, mask in enumerate(masks):
        shown[mask] = number
    for ours, others in ((shown[1:], shown[:-1]), (shown[:, 1:], shown[:, :-1])):
        for left, right in {*zip(ours.ravel().tolist(), others.ravel().tolist(), strict=True)}:
            if left != right and min(left, right) >= 0:
                assert colors[left] != colors[right]


def test_crops_get_the_colours_of_whole_masks() -> None:
    masks = random_blobs(3, 12)
    crops = []
    for mask in masks:
        rows, columns = np.nonzero(mask)
        top, left = int(rows.min()), int(columns.min())
        crops.append((mask[top : rows.max() + 1, left : columns.max() + 1], (left, top)))
    whole = distinct_colors(((mask, (0, 0)) for mask in masks), (200, 200))
    assert distinct_colors(crops, (200, 200)) == whole
    assert distinct_colors([], (200, 200)) == []
    assert len(distinct_colors([(np.zeros((0, 0), bool), (5, 5))] * 3, (200, 200))) == 3


def test_few_objects_far_apart_have_colours_of_their_own() -> None:
    masks = [np.zeros((200, 200), bool) for _ in COLORS]
    for number, mask in enumerate(masks):
        mask[number * 25 : number * 25 + 5, 50:60] = True
    colors = distinct_colors(((mask, (0, 0)) for mask in masks), (200, 200))
    assert colors == list(COLORS)
