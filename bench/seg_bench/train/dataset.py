"""Samples held in memory at the model's size, as batches of normalised tensors."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from seg_bench.data.check import check_truths
from seg_bench.data.classes import ClassSample
from seg_bench.data.confidence import read_confidence
from seg_bench.data.samples import Sample
from seg_bench.train.augment import IGNORED_PIXEL, Pair, Transform, as_image, as_planes, augment, derived_seed
from seg_export.checkpoints.checkpoint import Preprocessing
from seg_runtime.errors import BadImageError, BadInputError
from seg_runtime.files.images import read_image
from seg_runtime.files.masks import IGNORED
from seg_runtime.preprocess import apply_clahe, resize_image

__all__ = ["Pairs", "SegmentationDataset", "augmented", "load_pairs"]

_HALF = 127
"""Resized masks have interpolated edges, which are cut at the middle."""


@dataclass(frozen=True)
class Pairs:
    """Images, (H, W) or (H, W, 3) uint8 after resizing, with their masks and names.

    Masks are (H, W) uint8: the class of each pixel, 0 background and 1 foreground where there is one class,
    and 255 for pixels that do not count. Confidences are (H, W) uint8, how much each pixel counts, 255
    wholly; there are none where all do.
    """

    names: tuple[str, ...]
    images: tuple[NDArray[np.uint8], ...]
    masks: tuple[NDArray[np.uint8], ...]
    confidences: tuple[NDArray[np.uint8], ...] = ()

    @cached_property
    def class_pixels(self) -> NDArray[np.int64]:
        """(images, 256) pixels of each class in each image; those of 255 do not count."""
        return np.stack([np.bincount(mask.ravel(), minlength=256) for mask in self.masks])

    def planes(self, index: int) -> NDArray[np.uint8]:
        """(1, H, W), the mask, or (2, H, W) with its confidence."""
        return np.stack([self.masks[index], *self.confidences[index : index + 1]])


def load_pairs(
    samples: Iterable[Sample | ClassSample],
    size_hw: tuple[int, int],
    channels: int = 1,
    classes: int = 1,
    confidence: Mapping[str, Path] | None = None,
) -> Pairs:
    """Read samples, and squash them to `size_hw` as clients do.

    Args:
        samples: images with masks or maps of classes.
        size_hw: (height, width) in pixels.
        channels: 1 reads gray images, of colours their luminance; 3 reads RGB.
        classes: how many there are, with the background; 1 for masks of foreground.
        confidence: maps of confidence by the names of images; one without counts wholly. Pixels with 0 are
            ignored in the mask too.

    Raises:
        BadImageError: a file cannot be read, or a mask or map has another size than its image.
        BadInputError: all masks are empty or have nothing that counts, they are written in two ways, or one
            has a class beyond `classes`, or confidence leaves no foreground.
    """
    samples, maps = tuple(samples), confidence or {}
    names, images, masks, confidences = [], [], [], []
    for sample in samples:
        image = read_image(sample.image_path, channels, gray=True)
        labels, certain = _labels(sample, classes)
        if image.shape[:2] != labels.shape:
            raise BadImageError(
                f"mask of {sample.name} is {labels.shape[1]}x{labels.shape[0]}, its image "
                f"{image.shape[1]}x{image.shape[0]}: both must have one size"
            )
        names.append(sample.name)
        images.append(resize_image(image, size_hw))
        masks.append(_resized(labels, size_hw))
        if sample.name in maps:
            certain = read_confidence(maps[sample.name], labels.shape)
        if certain is not None:
            certain = resize_image(certain, size_hw)
            masks[-1] = np.where(certain > 0, masks[-1], np.uint8(IGNORED_PIXEL))
        confidences.append(certain)
    check_truths(samples)
    wholly = np.full(size_hw, 255, np.uint8)
    is_weighted = bool(maps) or any(each is not None for each in confidences)
    weights = tuple(wholly if each is None else each for each in confidences) if is_weighted else ()
    if is_weighted and not any(((mask > 0) & (mask < IGNORED_PIXEL)).any() for mask in masks):
        raise BadInputError(
            f"no pixel that counts is foreground in any of {len(masks)} images: look at the maps of "
            "confidence or the annotators' weights"
        )
    return Pairs(tuple(names), tuple(images), tuple(masks), weights)


def _labels(sample: Sample | ClassSample, classes: int) -> tuple[NDArray[np.int32], NDArray[np.uint8] | None]:
    """The class of each pixel and `IGNORED`, and how far annotators agree: (H, W) int32 and uint8."""
    if classes == 1:
        truth = sample.load_truth()
        return np.where(truth.ignored, IGNORED, truth.mask).astype(np.int32), truth.confidence
    (found,) = sample.label_maps()
    if (highest := int(found.labels.max())) >= classes:
        raise BadInputError(
            f"the ground truth of '{sample.name}' has class {highest}, and there are names for 0 to "
            f"{classes - 1}: name all classes, or mark what shall not count with 255"
        )
    if (found.labels == IGNORED).all():
        raise BadInputError(f"no pixel of '{sample.name}' counts: leave the image out of the split")
    return found.labels, None


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


def augmented(pairs: Pairs, transform: Transform, seed: int) -> Pairs:
    """The pairs as `SegmentationDataset` changes them in epoch 0: kept, where that is every time alike."""
    changed = [_changed(pairs, index, transform, (seed, 0)) for index in range(len(pairs.names))]
    images, planes = zip(*changed, strict=True)
    confidences = tuple(each[1] for each in planes) if pairs.confidences else ()
    return Pairs(pairs.names, images, tuple(each[0] for each in planes), confidences)


def _changed(
    pairs: Pairs, index: int, transform: Transform, seeds: tuple[int, ...]
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """An image and its planes after a transform whose random numbers the seeds and the index decide."""
    seed = derived_seed(*seeds, index)
    image, planes = augment(transform, pairs.images[index], pairs.planes(index), seed)
    return as_image(image), planes.to(torch.uint8).numpy()


class SegmentationDataset(Dataset[Pair]):
    """Pairs as tensors: image (C, H, W) float32 normalised, truth (1, H, W) float32 of classes, -1 for
    pixels that do not count; where pixels have a confidence it is (2, H, W), with that in 0..1.

    Contrast is equalised after the augmentation, as clients do it whatever an image went through before.
    An item is asked for by its index, or by (epoch, index).

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
        self._mean, self._std = (
            torch.tensor(values, dtype=torch.float32)[:, None, None]
            for values in (preprocessing.mean, preprocessing.std)
        )

    def __len__(self) -> int:
        return len(self.pairs.names)

    def __getitem__(self, which: int | tuple[int, int]) -> Pair:
        epoch, index = which if isinstance(which, tuple) else (0, which)
        if self.transform is None:
            image, planes = self.pairs.images[index], self.pairs.planes(index)
        else:
            image, planes = _changed(self.pairs, index, self.transform, (self.seed, epoch))
        equalised = apply_clahe(image, self.preprocessing.clahe)
        pixels = as_planes(equalised).float() / 255.0
        truth = torch.from_numpy(planes).float()
        truth[0].masked_fill_(truth[0] == IGNORED_PIXEL, -1.0)
        truth[1:] /= 255.0
        return (pixels - self._mean) / self._std, truth
