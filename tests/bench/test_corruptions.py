"""Corrupted images, against matplotlib's HSV, scipy's Gaussian filter and Pillow's JPEG."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from matplotlib.colors import hsv_to_rgb, rgb_to_hsv
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage
from torchvision.transforms.functional import adjust_gamma

from seg_bench.corruptions import CORRUPTIONS, blur, brightness, corrupt, gamma, invert, jpeg, noise


@pytest.fixture(scope="module")
def rgb() -> NDArray[np.uint8]:
    """Smooth colours with some texture, 60x45, black and white pixels among them."""
    generator = np.random.default_rng(0)
    coarse = generator.uniform(0, 255, (6, 5, 3))
    smooth = ndimage.zoom(coarse, (10, 9, 1), order=1) + generator.normal(0, 3, (60, 45, 3))
    image = np.clip(smooth, 0, 255).astype(np.uint8)
    image[0, :3], image[1, :3] = 0, 255
    return image


@pytest.fixture(scope="module")
def gray(rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.ascontiguousarray(rgb[:, :, 1])


@pytest.mark.parametrize("change", [0.1, 0.3, -0.1, -0.3])
def test_brightness_changes_the_value_of_hsv_and_nothing_else(
    rgb: NDArray[np.uint8], gray: NDArray[np.uint8], change: float
) -> None:
    hsv = rgb_to_hsv(rgb / 255.0)
    hsv[..., 2] = np.clip(hsv[..., 2] + change, 0, 1)
    assert np.abs(brightness(rgb, change) - 255 * hsv_to_rgb(hsv)).max() <= 0.5 + 1e-6
    wanted = np.clip(gray / 255 + change, 0, 1)
    assert np.abs(brightness(gray, change) - 255 * wanted).max() <= 0.5 + 1e-6
    as_rgb = brightness(np.repeat(gray[:, :, None], 3, axis=2), change)
    np.testing.assert_array_equal(as_rgb[:, :, 0], brightness(gray, change))


@pytest.mark.parametrize("exponent", [0.4, 2.5])
def test_gamma_is_that_of_torchvision(rgb: NDArray[np.uint8], exponent: float) -> None:
    wanted = adjust_gamma(torch.from_numpy(rgb).permute(2, 0, 1) / 255, exponent).permute(1, 2, 0).numpy()
    assert np.abs(gamma(rgb, exponent) - 255 * wanted).max() <= 0.5 + 1e-3
    np.testing.assert_array_equal(invert(invert(rgb)), rgb)
    assert invert(rgb)[0, 0, 0] == 255 - rgb[0, 0, 0]


@pytest.mark.parametrize("sigma", [1.0, 3.0])
def test_blur_is_scipys_gaussian_filter_up_to_rounding(
    rgb: NDArray[np.uint8], gray: NDArray[np.uint8], sigma: float
) -> None:
    for image, sigmas in ((gray, (sigma, sigma)), (rgb, (sigma, sigma, 0))):
        wanted = ndimage.gaussian_filter(image.astype(np.float64), sigmas, mode="nearest", truncate=4)
        assert np.abs(blur(image, sigma) - wanted).max() < 1.5


@pytest.mark.parametrize("quality", [25, 15])
def test_jpeg_is_pillows(rgb: NDArray[np.uint8], gray: NDArray[np.uint8], quality: int) -> None:
    for image in (gray, rgb):
        file = io.BytesIO()
        Image.fromarray(image).save(file, "JPEG", quality=quality)
        wanted = np.asarray(Image.open(file)).astype(int)
        ours = jpeg(image, quality)
        # Decoders differ in how they round and how they scale colour up, not in what was kept.
        assert np.abs(ours - wanted).mean() < 1
        assert np.abs(ours - wanted).mean() < 0.5 * np.abs(image - wanted).mean()


@pytest.mark.parametrize("deviation", [0.02, 0.08])
def test_noise_has_the_deviation_that_was_asked_for_and_each_channel_its_own(deviation: float) -> None:
    noisy = noise(np.full((200, 200, 3), 127, np.uint8), deviation, seed=1) / 255.0 - 127 / 255
    assert noisy.std() == pytest.approx(deviation, rel=0.02)
    assert abs(noisy.mean()) < 0.003
    correlations = np.corrcoef(noisy.reshape(-1, 3).T)
    assert np.abs(correlations - np.eye(3)).max() < 0.05


def test_noise_of_a_seed_is_the_same_at_every_strength() -> None:
    image = np.full((50, 50), 127, np.uint8)
    weak, strong = (noise(image, deviation, seed=3) / 1.0 - 127 for deviation in (0.05, 0.1))
    assert np.abs(strong - 2 * weak).max() <= 1.5


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_every_condition_gives_another_image_of_the_same_form_and_always_the_same(
    rgb: NDArray[np.uint8], gray: NDArray[np.uint8], name: str
) -> None:
    for image in (rgb, gray):
        before = image.copy()
        corrupted = corrupt(image, name, "xray_1")
        assert (corrupted.dtype, corrupted.shape) == (np.uint8, image.shape)
        assert not np.array_equal(corrupted, image)
        np.testing.assert_array_equal(corrupted, corrupt(image, name, "xray_1"))
        np.testing.assert_array_equal(image, before)
        other = corrupt(image, name, "xray_2")
        assert np.array_equal(other, corrupted) != name.startswith("noise")


@pytest.mark.parametrize("name", [name for name in CORRUPTIONS if name != "inverted"])
@pytest.mark.parametrize("level", [0, 255])
def test_black_and_white_never_wrap_around(name: str, level: int) -> None:
    flat = corrupt(np.full((32, 32), level, np.uint8), name, "flat").astype(int)
    assert abs(flat.mean() - level) < 0.31 * 255
    assert np.abs(flat - level).max() < 255
