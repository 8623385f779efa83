"""Resizing to SAM's frame and masks back from it, against segment_anything."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from segment_anything.modeling import Sam
from segment_anything.utils.transforms import ResizeLongestSide as Original
from torch import nn

from seg_runtime.errors import BadImageError
from seg_runtime.sam.masks import MaskFrame
from seg_runtime.sam.transforms import ResizeLongestSide

SIZES_HW = [(512, 512), (1200, 1800), (333, 91), (1024, 1024), (1024, 700), (2048, 1536), (60, 2500), (7, 9)]


def original_postprocess(low_res: np.ndarray, frame: MaskFrame) -> np.ndarray:
    encoder = nn.Module()
    encoder.img_size = frame.model_side
    sam = Sam(encoder, nn.Module(), nn.Module())
    tensor = torch.from_numpy(low_res)[None, None]
    return sam.postprocess_masks(tensor, frame.input_size_hw, frame.original_size_hw)[0, 0].numpy()


@pytest.mark.parametrize("size_hw", SIZES_HW)
def test_images_are_resized_to_the_same_bytes(size_hw: tuple[int, int]) -> None:
    image = np.random.default_rng(0).integers(0, 256, (*size_hw, 3), dtype=np.uint8)
    np.testing.assert_array_equal(
        ResizeLongestSide(1024).apply_image(image), Original(1024).apply_image(image)
    )


@pytest.mark.parametrize("size_hw", SIZES_HW)
def test_coordinates_and_boxes_are_scaled_to_the_same_numbers(size_hw: tuple[int, int]) -> None:
    height, width = size_hw
    points = np.random.default_rng(0).random((3, 5, 2)) * [width, height]
    boxes = points[:, :2].reshape(-1, 4)
    ours, theirs = ResizeLongestSide(1024), Original(1024)
    np.testing.assert_array_equal(ours.apply_coords(points, size_hw), theirs.apply_coords(points, size_hw))
    np.testing.assert_array_equal(ours.apply_boxes(boxes, size_hw), theirs.apply_boxes(boxes, size_hw))


def test_an_image_without_a_short_side_is_refused() -> None:
    with pytest.raises(BadImageError, match=r"5000x1 pixels .* loses its short side: crop it"):
        ResizeLongestSide(1024).apply_image(np.zeros((1, 5000, 3), np.uint8))


@pytest.mark.parametrize("size_hw", SIZES_HW)
def test_masks_are_upscaled_as_the_original_does(size_hw: tuple[int, int]) -> None:
    low_res = np.random.default_rng(0).normal(0, 5, (256, 256)).astype(np.float32)
    input_hw = ResizeLongestSide.get_preprocess_shape(*size_hw, 1024)
    frame = MaskFrame(1024, input_hw, size_hw)
    wanted = original_postprocess(low_res, frame)
    got = frame.upscale(low_res)
    assert got.shape == wanted.shape == size_hw
    # Rounding of the sampling positions, times differences of up to 40 between neighbours.
    np.testing.assert_allclose(got, wanted, atol=5e-3)
    assert np.mean((got > 0) != (wanted > 0)) < 1e-5
    np.testing.assert_array_equal(frame.logits(low_res[None, None])[0, 0], got)
    np.testing.assert_array_equal(frame.masks(low_res[None], 0.0)[0], got > 0)


@pytest.mark.parametrize("size_hw", SIZES_HW)
@pytest.mark.parametrize("level", [-1.0, 0.0, 6.5])
def test_what_is_above_a_level_is_all_inside_the_upscaled_part(
    size_hw: tuple[int, int], level: float
) -> None:
    frame = MaskFrame(1024, ResizeLongestSide.get_preprocess_shape(*size_hw, 1024), size_hw)
    rows, columns = (-(-length // 4) for length in frame.input_size_hw)
    random = np.random.default_rng(0)
    for place in range(6):
        low_res = np.full((256, 256), -8, np.float32)
        y, x = random.integers(0, rows), random.integers(0, columns)
        low_res[y : y + 1 + place, x : x + 1 + 2 * place] = 7
        whole = frame.upscale(low_res)
        part, (left, top) = frame.upscale_above(low_res, level)
        rest = whole.copy()
        rest[top : top + part.shape[0], left : left + part.shape[1]] = -8
        assert not (rest > level).any()
        here = whole[top : top + part.shape[0], left : left + part.shape[1]]
        np.testing.assert_allclose(part, here, atol=1e-4)
        assert part.size < 0.3 * whole.size or whole.size < 100_000
    nothing, _ = frame.upscale_above(np.full((256, 256), -8, np.float32), level)
    assert nothing.size == 0
