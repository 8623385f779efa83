"""Samples held in memory at the model's size, as batches of normalised tensors."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from seg_bench.data.check import check_truths
from seg_bench.data.classes import ClassSample
from seg_bench.data.samples import Sample
from seg_bench.train.augment import IGNORED_PIXEL, Pair, Transform, as_image, as_planes, augment, derived_seed
from seg_export.checkpoints.checkpoint import Preprocessing
from seg_runtime.errors import BadImageError, BadInputError
from seg_runtime.files.images import read_image
from seg_runtime.files.masks import IGNORED
from seg_runtime.preprocess import apply_clahe, resize_image

__all__ = ["Pairs", "SegmentationDataset", "load_pairs"]

_HALF = 127
"""Resized masks have interpolated edges, which are cut at the middle."""


@dataclass(frozen=True)
class Pairs:
    """Images, (H, W) or (H, W, 3) uint8 after resizing, with their masks and names.

    Masks are (H, W) uint8: the class of each pixel, 0 background and 1 foreground where there is one class,
    and 255 for pixels that do not count.
    """

    names: tuple[str, ...]
    images: tuple[NDArray[np.uint8], ...]
    masks: tuple[NDArray[np.uint8], ...]

    @cached_property
    def class_pixels(self) -> NDArray[np.int64]:
        """(images, 256) pixels of each class in each image; those of 255 do not count."""
        return np.stack([np.bincount(mask.ravel(), minlength=256) for mask in self.masks])


def load_pairs(
    samples: Iterable[Sample | ClassSample],
    size_hw: tuple[int, int],
    channels: int = 1,
    classes: int = 1,
) -> Pairs:
    """Read samples, and squash them to `size_hw` as clients do.

    Args:
        samples: images with masks or maps of classes.
        size_hw: (height, width) in pixels.
        channels: 1 reads gray images, of colours their luminance; 3 reads RGB.
        classes: how many there are, with the background; 1 for masks of foreground.

    Raises:
        BadImageError: a file cannot be read, or a mask has another size than its image.
        BadInputError: all masks are empty or have nothing that counts, they are written in two ways, or one
            has a class beyond `classes`.
    """
    samples = tuple(samples)
    names, images, masks = [], [], []
    for sample in samples:
        image, labels = read_image(sample.image_path, channels, gray=True), _labels(sample, classes)
        if image.shape[:2] != labels.shape:
            raise BadImageError(
                f"mask of {sample.name} is {labels.shape[1]}x{labels.shape[0]}, its image "
                f"{image.shape[1]}x{image.shape[0]}: both must have one size"
            )
        names.append(sample.name)
        images.append(resize_image(image, size_hw))
        masks.append(_resized(labels, size_hw))
    check_truths(samples)
    return Pairs(tuple(names), tuple(images), tuple(masks))


def _labels(sample: Sample | ClassSample, classes: int) -> NDArray[np.int32]:
    """(H, W) int32, the class of each pixel and `IGNORED`."""
    if classes == 1:
        truth = sample.load_truth()
        return np.where(truth.ignored, IGNORED, truth.mask).astype(np.int32)
    (found,) = sample.label_maps()
    if (highest := int(found.labels.max())) >= classes:
        raise BadInputError(
            f"the ground truth of '{sample.name}' has class {highest}, and there are names for 0 to "
            f"{classes - 1}: name all classes, or mark what shall not count with 255"
        )
    if (found.labels == IGNORED).all():
        raise BadInputError(f"no pixel of '{sample.name}' counts: leave the image out of the split")
    return found.labels


def _resized(labels: NDArray[np.int32], size_hw: tuple[int, int]) -> NDArray[np.uint8]:
    """As `Pairs.masks`: the class that covers most of a pixel, which does not count where any part does not.

    Of two classes it is the one that covers half of it, as clients cut masks.
    """
    ignored = resize_image(np.where(labels == IGNORED, 255, 0).astype(np.uint8), size_hw)
    largest, covered = np.zeros(size_hw, np.uint8), np.full(size_hw, _HALF, np.uint8)
    present = [int(label) for label in np.unique(labels) if label > 0]
    if len(present) > 1:  # A pixel may be of three classes, and half of none.
        present, covered = [0, *present], np.zeros(size_hw, np.uint8)
    for label in present:
        share = resize_image(np.where(labels == label, 255, 0).astype(np.uint8), size_hw)
        largest = np.where(share > covered, np.uint8(label), largest)
        covered = np.maximum(covered, share)
    return np.where(ignored > 0, np.uint8(IGNORED_PIXEL), largest)


class SegmentationDataset(Dataset[Pair]):
    """Pairs as tensors: image (C, H, W) float32 normalised, mask (1, H, W) float32 of classes, -1 for
    pixels that do not count.

    Contrast is equalised after the augmentation, as clients do it whatever an image went through before.

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
        self._mean, self._std = (
            torch.tensor(values, dtype=torch.float32)[:, None, None]
            for values in (preprocessing.mean, preprocessing.std)
        )

    def __len__(self) -> int:
        return len(self.pairs.names)

    def __getitem__(self, index: int) -> Pair:
        image, mask = self.pairs.images[index], self.pairs.masks[index]
        truth = torch.from_numpy(mask)[None].float()
        if self.transform is not None:
            seed = derived_seed(self.seed, self.epoch, index)
            changed, truth = augment(self.transform, image, mask, seed)
            image = as_image(changed)
        equalised = apply_clahe(image, self.preprocessing.clahe)
        pixels = as_planes(equalised).float() / 255.0
        truth = truth.masked_fill(truth == IGNORED_PIXEL, -1.0)
        return (pixels - self._mean) / self._std, truth
