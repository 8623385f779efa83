"""Augmentation on torchvision's v2 transforms: the article's for chest X-rays, and a strong one.

The article's is conservative: X-rays are never upside down, so there is no vertical flip and no rotation
beyond 15 degrees. A network that only ever saw such images breaks on others: noise, another exposure, white
for black, one lung alone, a picture that lies on its side. The strong one has all of them. The random
choices of a sample depend on (seed, epoch, index) alone: neither the number of workers nor a resumed run
changes them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torchvision import tv_tensors
from torchvision.transforms import InterpolationMode, v2

from seg_bench.corruptions import jpeg

__all__ = [
    "AUGMENTATIONS",
    "IGNORED_PIXEL",
    "AugmentSettings",
    "Pair",
    "RandomGamma",
    "Transform",
    "as_image",
    "as_planes",
    "augment",
    "build_augmentation",
    "derived_seed",
]

Pair = tuple[torch.Tensor, torch.Tensor]
Transform = Callable[..., Pair]

IGNORED_PIXEL = 255
"""Of a uint8 mask: the pixel does not count."""


@dataclass(frozen=True)
class AugmentSettings:
    """Strengths of the augmentation; the defaults are the article's, with gamma added.

    Attributes:
        crop_scale: smallest and largest area of the random crop, as a fraction of the image.
        rotate_degrees: largest rotation either way.
        shift: largest shift, as a fraction of the size.
        scale: smallest and largest zoom of the affine transform.
        affine_probability: share of samples that are shifted, zoomed and rotated.
        noise_probability: share of samples that get either noise or blur.
        noise: smallest and largest deviation of Gaussian noise, on the 0..1 scale.
        brightness: largest relative change.
        contrast: largest relative change.
        gamma: smallest and largest exponent, for other exposures and scanners.
        offset: largest value that is added or taken away, on the 0..1 scale.
        intensity_probability: share of samples whose brightness and contrast (and gamma, and offset) change.
        invert_probability: share of samples in which white is black.
        jpeg_quality: lowest and highest quality of JPEG compression.
        jpeg_probability: share of samples that are compressed.
        turn_probability: share of samples that are turned by 90, 180 or 270 degrees.
        part_probability: share of samples that are a part of the image, from a third of it on and stretched,
            instead of the crop of `crop_scale`.
        validate: choose the best epoch by the validation images as they are and as this augmentation changes
            them, each once and every time alike, instead of as they are alone.
    """

    crop_scale: tuple[float, float] = (0.8, 1.0)
    rotate_degrees: float = 15.0
    shift: float = 0.1
    scale: tuple[float, float] = (0.9, 1.1)
    affine_probability: float = 0.7
    noise_probability: float = 0.3
    brightness: float = 0.2
    contrast: float = 0.2
    gamma: tuple[float, float] = (0.6, 1.6)
    intensity_probability: float = 0.5
    noise: tuple[float, float] = (0.03, 0.03)
    offset: float = 0.0
    invert_probability: float = 0.0
    jpeg_quality: tuple[int, int] = (10, 95)
    jpeg_probability: float = 0.0
    turn_probability: float = 0.0
    part_probability: float = 0.0
    validate: bool = False


AUGMENTATIONS = {
    "article": AugmentSettings(),
    "strong": AugmentSettings(
        rotate_degrees=20.0,
        scale=(0.8, 1.15),
        noise_probability=0.6,
        contrast=0.5,
        gamma=(0.35, 2.8),
        noise=(0.0, 0.12),
        offset=0.35,
        invert_probability=0.15,
        jpeg_probability=0.3,
        turn_probability=0.15,
        part_probability=0.3,
        validate=True,
    ),
}
"""By name."""

_PART_SCALE, _PART_RATIO = (0.35, 1.0), (0.45, 2.2)
"""Area of a part, and its width over its height: a half of the image, either way, is among them."""


class RandomGamma(nn.Module):
    """Raise the image's pixels, on the 0..1 scale, to a random exponent, uniform in its logarithm."""

    def __init__(self, gamma: tuple[float, float]) -> None:
        super().__init__()
        self.log_gamma = math.log(gamma[0]), math.log(gamma[1])

    def forward(self, image: torch.Tensor, mask: torch.Tensor) -> Pair:
        exponent = math.exp(_uniform(*self.log_gamma))
        return v2.functional.adjust_gamma(image, gamma=exponent), mask


class RandomOffset(nn.Module):
    """Add one random value to all pixels, on the 0..1 scale."""

    def __init__(self, most: float) -> None:
        super().__init__()
        self.most = most

    def forward(self, image: torch.Tensor, mask: torch.Tensor) -> Pair:
        changed = (image + _uniform(-self.most, self.most)).clamp(0.0, 1.0)
        return tv_tensors.wrap(changed, like=image), mask


class RandomNoise(nn.Module):
    """Add Gaussian noise of a random deviation, on the 0..1 scale."""

    def __init__(self, deviation: tuple[float, float]) -> None:
        super().__init__()
        self.deviation = deviation

    def forward(self, image: torch.Tensor, mask: torch.Tensor) -> Pair:
        sigma = _uniform(*self.deviation)
        return v2.functional.gaussian_noise(image, sigma=sigma) if sigma else image, mask


class RandomJpeg(nn.Module):
    """Compress an image of values in 0..1 at a random quality; it becomes uint8."""

    def __init__(self, quality: tuple[int, int]) -> None:
        super().__init__()
        self.quality = quality

    def forward(self, image: torch.Tensor, mask: torch.Tensor) -> Pair:
        low, high = self.quality
        quality = int(torch.randint(low, high + 1, ()))
        compressed = jpeg(as_image(image.clamp(0.0, 1.0)), quality)
        return tv_tensors.wrap(as_planes(compressed), like=image), mask


class RandomTurn(nn.Module):
    """Turn by 90, 180 or 270 degrees."""

    def forward(self, image: torch.Tensor, mask: torch.Tensor) -> Pair:
        times = int(torch.randint(1, 4, ()))
        turned, truth = (
            tv_tensors.wrap(torch.rot90(each, times, (-2, -1)), like=each) for each in (image, mask)
        )
        return turned, truth


def build_augmentation(
    size_hw: tuple[int, int], settings: AugmentSettings | None = None, *, outside: int | list[int] = 0
) -> Transform:
    """Compose the transforms for a pair of `tv_tensors.Image` (C, H, W) uint8 and `tv_tensors.Mask`.

    Args:
        size_hw: (height, width) in pixels.
        settings: strengths.
        outside: of a mask, for pixels that come from outside the image when it is turned or shifted; one
            value, or one for each plane.
    """
    chosen = settings or AugmentSettings()
    affine = v2.RandomAffine(
        degrees=chosen.rotate_degrees,
        translate=(chosen.shift, chosen.shift),
        scale=chosen.scale,
        interpolation=InterpolationMode.BILINEAR,
        fill={tv_tensors.Mask: outside, "others": 0},
    )
    to_float = v2.ToDtype({tv_tensors.Image: torch.float32, "others": None}, scale=True)
    noise_or_blur = v2.RandomChoice(
        [
            v2.Compose([to_float, RandomNoise(chosen.noise)]),
            v2.GaussianBlur(kernel_size=3, sigma=(0.3, 1.0)),
            v2.GaussianBlur(kernel_size=5, sigma=(0.5, 1.5)),
        ]
    )
    cropped = v2.RandomResizedCrop(size_hw, scale=chosen.crop_scale, antialias=True)
    part = v2.RandomResizedCrop(size_hw, scale=_PART_SCALE, ratio=_PART_RATIO, antialias=True)
    composed: Transform = v2.Compose(
        [
            v2.RandomApply([RandomTurn()], chosen.turn_probability),  # The crop brings it to the size again.
            v2.RandomChoice([cropped, part], p=[1 - chosen.part_probability, chosen.part_probability]),
            v2.RandomHorizontalFlip(0.5),
            v2.RandomApply([affine], chosen.affine_probability),
            v2.RandomInvert(chosen.invert_probability),
            v2.RandomApply(
                [v2.ColorJitter(chosen.brightness, chosen.contrast)], chosen.intensity_probability
            ),
            v2.RandomApply([RandomGamma(chosen.gamma)], chosen.intensity_probability),
            v2.RandomApply([to_float, RandomOffset(chosen.offset)], chosen.intensity_probability),
            v2.RandomApply([noise_or_blur], chosen.noise_probability),
            v2.RandomApply([to_float, RandomJpeg(chosen.jpeg_quality)], chosen.jpeg_probability),
            to_float,
        ]
    )
    return composed


def augment(
    transform: Transform,
    image: NDArray[np.uint8],
    mask: NDArray[np.uint8],
    seed: int,
) -> Pair:
    """Transform one pair with its own random numbers, leaving the global generator untouched.

    Args:
        image: (H, W) or (H, W, 3) uint8.
        mask: (H, W) or (P, H, W) uint8, of which no values are mixed.

    Returns:
        The image, (C, H, W) float32 in 0..1, and its mask, (1, H, W) or (P, H, W) float32 of the mask's
        values.
    """
    planes = torch.from_numpy(mask if mask.ndim == 3 else mask[None])
    pair = tv_tensors.Image(as_planes(image)), tv_tensors.Mask(planes)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        changed, truth = transform(*pair)
    return changed.as_subclass(torch.Tensor).clamp(0.0, 1.0), truth.as_subclass(torch.Tensor).float()


def _uniform(low: float, high: float) -> float:
    return float(torch.empty(()).uniform_(low, high))


def as_image(planes: torch.Tensor) -> NDArray[np.uint8]:
    """(H, W) or (H, W, 3) uint8 of planes, (C, H, W) float32 in 0..1."""
    image = (255.0 * planes).round().to(torch.uint8).permute(1, 2, 0).contiguous().numpy()
    return image[..., 0] if image.shape[2] == 1 else image


def as_planes(image: NDArray[np.uint8]) -> torch.Tensor:
    """(C, H, W) uint8 of an image (H, W) or (H, W, C)."""
    return torch.from_numpy(image)[None] if image.ndim == 2 else torch.from_numpy(image).permute(2, 0, 1)


def derived_seed(*parts: int) -> int:
    """A 63-bit seed from several numbers, for example (seed, epoch, index)."""
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0] >> np.uint64(1))
