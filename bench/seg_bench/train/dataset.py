"""Samples held in memory at the model's size, as batches of normalised tensors."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from seg_bench.data.check import check_truths
from seg_bench.data.samples import Sample, Truth
from seg_bench.train.augment import Pair, Transform, augment, derived_seed
from seg_export.checkpoints.checkpoint import Preprocessing
from seg_runtime.errors import BadImageError
from seg_runtime.preprocess import apply_clahe, resize_image
from seg_runtime.spec import ClaheSpec

__all__ = ["Pairs", "SegmentationDataset", "load_pairs"]

_IGNORED = 255
_HALF = 127
"""Resized masks have interpolated edges, which are cut at the middle."""


@dataclass(frozen=True)
class Pairs:
    """Images, (H, W) uint8 after resizing and CLAHE, with their masks and names.

    Masks are (H, W) uint8: 0 background, 1 foreground, 255 for pixels that do not count.
    """

    names: tuple[str, ...]
    images: tuple[NDArray[np.uint8], ...]
    masks: tuple[NDArray[np.uint8], ...]


def load_pairs(samples: Iterable[Sample], size_hw: tuple[int, int], clahe: ClaheSpec | None) -> Pairs:
    """Read samples, squash them to `size_hw` as clients do, and equalise their contrast.

    Raises:
        BadImageError: a file cannot be read, or a mask has another size than its image.
        BadInputError: all masks are empty, or they are written in two ways.
    """
    samples = tuple(samples)
    names, images, masks = [], [], []
    for sample in samples:
        image, truth = sample.load_image(), sample.load_truth()
        mask = truth.mask
        if image.shape != mask.shape:
            raise BadImageError(
                f"mask of {sample.name} is {mask.shape[1]}x{mask.shape[0]}, its image "
                f"{image.shape[1]}x{image.shape[0]}: both must have one size"
            )
        names.append(sample.name)
        images.append(apply_clahe(resize_image(image, size_hw), clahe))
        masks.append(_resized(truth, size_hw))
    check_truths(samples)
    return Pairs(tuple(names), tuple(images), tuple(masks))


def _resized(truth: Truth, size_hw: tuple[int, int]) -> NDArray[np.uint8]:
    """As `Pairs.masks`; a pixel does not count where any part of it does not."""
    mask, ignored = (
        resize_image(each.astype(np.uint8) * np.uint8(255), size_hw) for each in (truth.mask, truth.ignored)
    )
    return np.where(ignored > 0, np.uint8(_IGNORED), (mask > _HALF).astype(np.uint8))


class SegmentationDataset(Dataset[Pair]):
    """Pairs as tensors: image (1, H, W) float32 normalised, mask (1, H, W) float32 of 0 and 1, -1 for
    pixels that do not count.

    Args:
        transform: augmentation, or None for the images as they are.
        seed: with the epoch and the index it decides the augmentation.
    """

    def __init__(
        self, pairs: Pairs, preprocessing: Preprocessing, transform: Transform | None = None, seed: int = 0
    ) -> None:
        self.pairs = pairs
        self.preprocessing = preprocessing
        self.transform = transform
        self.seed = seed
        self.epoch = 0

    def __len__(self) -> int:
        return len(self.pairs.names)

    def __getitem__(self, index: int) -> Pair:
        image, mask = self.pairs.images[index], self.pairs.masks[index]
        if self.transform is None:
            pixels, truth = (
                torch.from_numpy(image)[None].float() / 255.0,
                torch.from_numpy(mask)[None].float(),
            )
        else:
            seed = derived_seed(self.seed, self.epoch, index)
            pixels, truth = augment(self.transform, image, mask, seed)
        truth = truth.masked_fill(truth == _IGNORED, -1.0)
        return (pixels - self.preprocessing.mean[0]) / self.preprocessing.std[0], truth
