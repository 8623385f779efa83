"""What images suffer on their way to a model: other brightness, noise, blur, JPEG compression.

Brightness, noise, blur and JPEG are of the kinds of ImageNet-C (Hendrycks and Dietterich 2019, "Benchmarking
Neural Network Robustness to Common Corruptions and Perturbations"), from a strength that hardly shows to its
severity 3 of 5, noise to 0.1, in steps so fine that a network which breaks in between is seen. Gamma stands
for other exposures and detectors, and images are shown white for black, as those are whose photometric
interpretation is wrong. Strengths are in units of the image as it is stored: a blur of one pixel is less in a
larger image.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

__all__ = ["CORRUPTIONS", "blur", "brightness", "corrupt", "gamma", "invert", "jpeg", "noise"]

Image = NDArray[np.uint8]


def brightness(image: Image, change: float) -> Image:
    """Add to the value V of HSV; hue and saturation stay.

    Args:
        image: (H, W) gray or (H, W, 3) RGB, uint8.
        change: between -1 (black) and 1 (full value).

    Returns:
        uint8 of the same shape.
    """
    if image.ndim == 2:
        return _to_uint8(image + 255.0 * change)
    value = image.max(axis=2, keepdims=True).astype(np.float64)
    wanted = np.clip(value + 255.0 * change, 0, 255)
    # A black pixel has no hue: it becomes gray.
    return _to_uint8(np.where(value > 0, image * wanted / np.maximum(value, 1), wanted))


def noise(image: Image, deviation: float, seed: int) -> Image:
    """Add Gaussian noise, on RGB to each channel its own.

    Args:
        image: (H, W) gray or (H, W, 3) RGB, uint8.
        deviation: standard deviation on the 0..1 scale.
        seed: one seed gives one noise, whatever its deviation.

    Returns:
        uint8 of the same shape.
    """
    added = np.random.default_rng(seed).standard_normal(image.shape)
    return _to_uint8(image + 255.0 * deviation * added)


def blur(image: Image, sigma: float) -> Image:
    """Blur with a Gaussian that is cut at four deviations; pixels at the border go on beyond it.

    Args:
        image: (H, W) gray or (H, W, 3) RGB, uint8.
        sigma: its standard deviation in pixels.

    Returns:
        uint8 of the same shape.
    """
    import cv2

    side = 2 * int(4 * sigma + 0.5) + 1
    blurred = cv2.GaussianBlur(image, (side, side), sigma, borderType=cv2.BORDER_REPLICATE)
    return np.asarray(blurred, dtype=np.uint8)


def jpeg(image: Image, quality: int) -> Image:
    """Compress and read again; colour at half the resolution, as JPEG files mostly have it.

    Args:
        image: (H, W) gray or (H, W, 3) RGB, uint8.
        quality: 1 to 100, libjpeg's.

    Returns:
        uint8 of the same shape.
    """
    import cv2

    gray = image.ndim == 2
    stored = image if gray else cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    _, encoded = cv2.imencode(".jpg", stored, [cv2.IMWRITE_JPEG_QUALITY, quality])
    decoded = cv2.imdecode(encoded, cv2.IMREAD_GRAYSCALE if gray else cv2.IMREAD_COLOR)
    return np.asarray(decoded if gray else cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB), dtype=np.uint8)


def gamma(image: Image, exponent: float) -> Image:
    """Raise the values to an exponent, on the 0..1 scale: above 1 is darker.

    Args:
        image: (H, W) gray or (H, W, 3) RGB, uint8.
        exponent: above 0.

    Returns:
        uint8 of the same shape.
    """
    return _to_uint8(255.0 * (image / 255.0) ** exponent)


def invert(image: Image) -> Image:
    """White for black.

    Args:
        image: (H, W) gray or (H, W, 3) RGB, uint8.

    Returns:
        uint8 of the same shape.
    """
    return np.asarray(255 - image, dtype=np.uint8)


def _unseeded(change: Callable[..., Image], strength: float) -> Callable[[Image, int], Image]:
    return lambda image, seed: change(image, strength)


def _noise_of(deviation: float) -> Callable[[Image, int], Image]:
    return lambda image, seed: noise(image, deviation, seed)


_STRENGTHS: tuple[tuple[str, Callable[..., Image], Sequence[float]], ...] = (
    ("brightness", brightness, (0.1, 0.2, 0.3, -0.1, -0.2, -0.3)),
    ("gamma", gamma, (0.4, 0.6, 1.6, 2.5)),
    ("blur", blur, (1, 2, 3)),
    ("jpeg", jpeg, (25, 20, 15)),
)

CORRUPTIONS: Mapping[str, Callable[[Image, int], Image]] = MappingProxyType(
    {
        **{
            f"{kind} {strength:{'+' if kind == 'brightness' else ''}g}": _unseeded(change, strength)
            for kind, change, strengths in _STRENGTHS
            for strength in strengths
        },
        **{f"noise {deviation:g}": _noise_of(deviation) for deviation in (0.02, 0.04, 0.06, 0.08, 0.1)},
        "inverted": lambda image, seed: invert(image),
    }
)
"""By the name of its condition: what makes it of an image and a seed."""


def corrupt(image: Image, condition: str, name: str) -> Image:
    """An image under a condition; one name gives one result, on every machine.

    Args:
        image: (H, W) gray or (H, W, 3) RGB, uint8.
        condition: a key of `CORRUPTIONS`.
        name: the image's, from which the noise is seeded.

    Returns:
        uint8 of the same shape.
    """
    return CORRUPTIONS[condition](image, zlib.crc32(name.encode()))


def _to_uint8(values: NDArray[np.float64]) -> Image:
    return np.asarray(np.clip(np.rint(values), 0, 255), dtype=np.uint8)
