"""The article's conservative augmentation for chest X-rays, on torchvision's v2 transforms.

X-rays are never upside down, so there is no vertical flip and no rotation beyond 15 degrees. The
random choices of a sample depend on (seed, epoch, index) alone: neither the number of workers nor a
resumed run changes them.
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

__all__ = [
    "IGNORED_PIXEL",
    "AugmentSettings",
    "Pair",
    "RandomGamma",
    "Transform",
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
        brightness: largest relative change.
        contrast: largest relative change.
        gamma: smallest and largest exponent, for other exposures and scanners.
        intensity_probability: share of samples whose brightness and contrast (and gamma) change.
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


class RandomGamma(nn.Module):
    """Raise the image's pixels, on the 0..1 scale, to a random exponent, uniform in its logarithm."""

    def __init__(self, gamma: tuple[float, float]) -> None:
        super().__init__()
        self.log_gamma = math.log(gamma[0]), math.log(gamma[1])

    def forward(self, image: torch.Tensor, mask: torch.Tensor) -> Pair:
        exponent = float(torch.empty(()).uniform_(*self.log_gamma).exp())
        return v2.functional.adjust_gamma(image, gamma=exponent), mask


def build_augmentation(
    size_hw: tuple[int, int], settings: AugmentSettings | None = None, *, outside: int = 0
) -> Transform:
    """Compose the transforms for a pair of `tv_tensors.Image` (C, H, W) uint8 and `tv_tensors.Mask`.

    Args:
        size_hw: (height, width) in pixels.
        settings: strengths.
        outside: of a mask, for pixels that come from outside the image when it is turned or shifted.
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
            v2.Compose([to_float, v2.GaussianNoise(sigma=0.03)]),
            v2.GaussianBlur(kernel_size=3, sigma=(0.3, 1.0)),
            v2.GaussianBlur(kernel_size=5, sigma=(0.5, 1.5)),
        ]
    )
    composed: Transform = v2.Compose(
        [
            v2.RandomResizedCrop(size_hw, scale=chosen.crop_scale, antialias=True),
            v2.RandomHorizontalFlip(0.5),
            v2.RandomApply([affine], chosen.affine_probability),
            v2.RandomApply(
                [v2.ColorJitter(chosen.brightness, chosen.contrast)], chosen.intensity_probability
            ),
            v2.RandomApply([RandomGamma(chosen.gamma)], chosen.intensity_probability),
            v2.RandomApply([noise_or_blur], chosen.noise_probability),
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
        mask: (H, W) uint8, of which no values are mixed.

    Returns:
        The image, (C, H, W) float32 in 0..1, and its mask, (1, H, W) float32 of the mask's values.
    """
    pair = tv_tensors.Image(as_planes(image)), tv_tensors.Mask(torch.from_numpy(mask)[None])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        changed, truth = transform(*pair)
    return changed.as_subclass(torch.Tensor).clamp(0.0, 1.0), truth.as_subclass(torch.Tensor).float()


def as_planes(image: NDArray[np.uint8]) -> torch.Tensor:
    """(C, H, W) uint8 of an image (H, W) or (H, W, C)."""
    return torch.from_numpy(image)[None] if image.ndim == 2 else torch.from_numpy(image).permute(2, 0, 1)


def derived_seed(*parts: int) -> int:
    """A 63-bit seed from several numbers, for example (seed, epoch, index)."""
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0] >> np.uint64(1))
