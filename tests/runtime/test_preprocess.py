"""Resizing and contrast equalisation into the model's input, and probabilities back out."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from seg_runtime.errors import BadInputError
from seg_runtime.preprocess import apply_clahe, probabilities_to_frame, resize_image, resize_mask, to_batch
from seg_runtime.spec import ClaheSpec


def noise(*shape: int) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def test_shrinking_averages_and_growing_interpolates() -> None:
    image = noise(64, 96)
    halved = image.reshape(32, 2, 48, 2).astype(np.float64).mean(axis=(1, 3))
    assert np.abs(resize_image(image, (32, 48)) - halved).max() <= 0.5
    grown = cv2.resize(image, (100, 200), interpolation=cv2.INTER_LINEAR)
    assert np.array_equal(resize_image(image, (200, 100)), grown)
    assert resize_image(image, (64, 96)) is image


def test_colour_images_are_resized_channel_by_channel() -> None:
    image = noise(50, 70, 3)
    resized = resize_image(image, (32, 32))
    for channel in range(3):
        alone = resize_image(np.ascontiguousarray(image[..., channel]), (32, 32))
        assert np.abs(resized[..., channel].astype(int) - alone).max() <= 1


def test_resized_masks_hold_only_ids_that_were_there() -> None:
    mask = (noise(100, 77) % 3 * 40).astype(np.uint8)
    resized = resize_mask(mask, (64, 33))
    assert resized.shape == (64, 33)
    assert set(np.unique(resized)) == {0, 40, 80}


def test_clahe_of_a_gray_image_is_opencvs_with_rows_and_columns_in_place() -> None:
    image = (noise(64, 64) // 4).astype(np.uint8)
    expected = cv2.createCLAHE(clipLimit=3.0, tileGridSize=(8, 2)).apply(image)
    assert np.array_equal(apply_clahe(image, ClaheSpec(3.0, tile_grid_hw=(2, 8))), expected)
    assert apply_clahe(image, None) is image


def test_clahe_of_a_colour_image_widens_lightness_and_keeps_hue() -> None:
    ramp = np.linspace(90, 120, 64, dtype=np.uint8)[None].repeat(64, axis=0)
    image = np.ascontiguousarray(np.stack([ramp, ramp, ramp], axis=-1))
    equalised = apply_clahe(image, ClaheSpec())
    assert np.ptp(equalised[..., 0].astype(int)) > np.ptp(image[..., 0].astype(int))
    assert np.abs(equalised[..., 0].astype(int) - equalised[..., 2]).max() <= 2


def test_a_batch_stacks_images_of_different_sizes() -> None:
    images = [noise(20, 30), noise(64, 48), noise(100, 10)]
    batch = to_batch(images, (48, 40), 1, ClaheSpec())
    assert batch.shape == (3, 48, 40, 1)
    assert batch.dtype == np.uint8
    assert batch.flags.c_contiguous
    for slot, image in zip(batch, images, strict=True):
        assert np.array_equal(slot[..., 0], apply_clahe(resize_image(image, (48, 40)), ClaheSpec()))


def test_colour_batches_keep_their_channels_last() -> None:
    image = noise(32, 32, 3)
    assert np.array_equal(to_batch([image], (32, 32), 3)[0], image)


@pytest.mark.parametrize(
    ("image", "channels"),
    [
        (noise(16, 16, 3), 1),
        (noise(16, 16), 3),
        (noise(16, 16, 4), 3),
        (noise(16, 16).astype(np.float32), 1),
        (noise(16, 0), 1),
    ],
)
def test_images_that_do_not_fit_the_model_are_refused(image: NDArray[np.uint8], channels: int) -> None:
    with pytest.raises(BadInputError, match=r"wants an image of shape \(H, W.*uint8; it was given \(16, "):
        to_batch([image], (32, 32), channels)


def test_an_empty_batch_is_refused() -> None:
    with pytest.raises(BadInputError, match="at least one image"):
        to_batch([], (32, 32), 1)


def test_probabilities_return_to_the_frame_of_the_image() -> None:
    probabilities = np.random.default_rng(0).random((2, 32, 32), dtype=np.float32)
    framed = probabilities_to_frame(probabilities, (50, 91))
    assert framed.shape == (2, 50, 91)
    for plane, original in zip(framed, probabilities, strict=True):
        assert np.array_equal(plane, cv2.resize(original, (91, 50), interpolation=cv2.INTER_LINEAR))
    assert framed.min() >= 0.0
    assert framed.max() <= 1.0


def test_probabilities_of_the_right_size_are_copied_unchanged() -> None:
    probabilities = np.random.default_rng(0).random((1, 32, 32), dtype=np.float32)
    framed = probabilities_to_frame(probabilities, (32, 32))
    assert np.array_equal(framed, probabilities)
    assert not np.shares_memory(framed, probabilities)
