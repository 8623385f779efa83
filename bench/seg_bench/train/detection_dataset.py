"""Images with their objects, held in memory at the model's size, as torchvision's detectors take them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset
from torchvision import tv_tensors
from torchvision.ops import masks_to_boxes
from torchvision.transforms import v2

from seg_bench.data.check import check_truths
from seg_bench.data.nuclei import InstanceSample
from seg_bench.train.augment import derived_seed
from seg_runtime.errors import BadImageError
from seg_runtime.instances import resized_hw

__all__ = ["CropSettings", "DetectionDataset", "Objects", "Target", "load_objects"]

Target = dict[str, torch.Tensor]

_SMALLEST_SIDE = 2
"""Objects of which a crop shows less than this many pixels either way are left out of it."""


@dataclass(frozen=True)
class CropSettings:
    """Crops that a detector is trained on, and their augmentation. Microscopy has no up and no left.

    Attributes:
        size: side in pixels of the square crops.
        zoom: smallest and largest magnification of a crop of a square image.
        brightness, contrast, saturation: largest relative change.
        invert_probability: share of crops whose pixels are inverted, for stains with bright backgrounds.
        cut_probability: share of crops that end early at the right, and at the bottom. torchvision pads them
            to the size of their batch, as images are padded that do not fill the deployed model's input.
        shortest: least part of a side that a cut leaves.
    """

    size: int = 256
    zoom: tuple[float, float] = (0.7, 1.4)
    brightness: float = 0.3
    contrast: float = 0.3
    saturation: float = 0.3
    invert_probability: float = 0.1
    cut_probability: float = 0.5
    shortest: float = 0.5


@dataclass(frozen=True)
class Objects:
    """Images, (H, W, 3) uint8 scaled to fit the model's input, with maps of ids, (H, W) int32."""

    images: tuple[NDArray[np.uint8], ...]
    labels: tuple[NDArray[np.int32], ...]


def load_objects(samples: Iterable[InstanceSample], size_hw: tuple[int, int]) -> Objects:
    """Read samples and scale them to fit `size_hw` as the client does.

    Raises:
        BadImageError: a file cannot be read, or a map has another size than its image.
        BadInputError: no image has an object.
    """
    import cv2

    samples = tuple(samples)
    images, maps = [], []
    for sample in samples:
        image, labels = sample.load_image(), sample.load_labels()
        if image.shape[:2] != labels.shape:
            raise BadImageError(
                f"the objects of {sample.name} are on {labels.shape[1]}x{labels.shape[0]} pixels, its image "
                f"has {image.shape[1]}x{image.shape[0]}: both must have one size"
            )
        height, width = resized_hw((image.shape[0], image.shape[1]), size_hw)
        images.append(np.asarray(cv2.resize(image, (width, height)), dtype=np.uint8))
        scaled = cv2.resize(labels, (width, height), interpolation=cv2.INTER_NEAREST)
        maps.append(np.asarray(scaled, dtype=np.int32))
    check_truths(samples)
    return Objects(tuple(images), tuple(maps))


def _crops(size_hw: tuple[int, int], settings: CropSettings) -> Callable[..., Any]:
    """Transforms of a `tv_tensors.Image` (3, H, W) uint8 and a `tv_tensors.Mask` (1, H, W) of ids."""
    side = settings.size / (size_hw[0] * size_hw[1]) ** 0.5
    smallest, largest = ((side / zoom) ** 2 for zoom in reversed(settings.zoom))
    composed: Callable[..., Any] = v2.Compose(
        [
            v2.RandomResizedCrop(
                settings.size, scale=(smallest, min(1.0, largest)), ratio=(0.8, 1.25), antialias=True
            ),
            v2.RandomHorizontalFlip(0.5),
            v2.RandomVerticalFlip(0.5),
            v2.ColorJitter(settings.brightness, settings.contrast, settings.saturation),
            v2.RandomInvert(settings.invert_probability),
        ]
    )
    return composed


class DetectionDataset(Dataset[tuple[torch.Tensor, Target]]):
    """Crops as torchvision's detectors are trained on: image (3, h, w) float32 in 0..1 and its target.

    A target holds boxes (N, 4) float32 x0, y0, x1, y1, labels (N,) int64 of ones, and masks (N, h, w) uint8.

    Args:
        objects: whole images.
        size_hw: (height, width) in pixels that they were scaled to fit.
        settings: of the crops.
        seed: with the epoch and the index it decides the crop; an item is asked for by its index, or by
            (epoch, index).
    """

    def __init__(
        self, objects: Objects, size_hw: tuple[int, int], settings: CropSettings, seed: int = 0
    ) -> None:
        self.objects = objects
        self.settings = settings
        self.crops = _crops(size_hw, settings)
        self.seed = seed

    def __len__(self) -> int:
        return len(self.objects.images)

    def __getitem__(self, which: int | tuple[int, int]) -> tuple[torch.Tensor, Target]:
        epoch, index = which if isinstance(which, tuple) else (0, which)
        image = torch.from_numpy(self.objects.images[index]).permute(2, 0, 1)
        ids = torch.from_numpy(self.objects.labels[index])[None]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derived_seed(self.seed, epoch, index))
            crop, labels = self.crops(tv_tensors.Image(image), tv_tensors.Mask(ids))
            height, width = (self._side(), self._side())
        pixels = crop.as_subclass(torch.Tensor)[:, :height, :width].float() / 255.0
        return pixels, _target(labels.as_subclass(torch.Tensor)[0, :height, :width])

    def _side(self) -> int:
        """How much of a side of the crop is left, in pixels."""
        cut, part = torch.rand(2).tolist()
        settings = self.settings
        if cut >= settings.cut_probability:
            return settings.size
        return int(settings.size * (settings.shortest + (1 - settings.shortest) * part))


def _target(labels: torch.Tensor) -> Target:
    ids = torch.unique(labels)
    masks = labels[None] == ids[ids > 0][:, None, None]
    boxes = masks_to_boxes(masks) if len(masks) else torch.zeros(0, 4)
    boxes[:, 2:] += 1  # masks_to_boxes ends at the last pixel, a box at its outer edge.
    kept = ((boxes[:, 2:] - boxes[:, :2]) >= _SMALLEST_SIDE).all(dim=1)
    return {
        "boxes": boxes[kept].float(),
        "labels": torch.ones(int(kept.sum()), dtype=torch.int64),
        "masks": masks[kept].to(torch.uint8),
    }
