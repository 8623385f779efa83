"""Microscopy images with one mask per nucleus (Data Science Bowl 2018, BBBC038; Caicedo et al., 2019).

Two layouts are read: the official one, a folder per image with `images/ID.png` and one 8-bit mask per
nucleus under `masks/`, and the merged one, `images/NAME.png` with 16-bit maps of ids `labels/NAME.png`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from seg_bench.data.samples import Truth, check_size
from seg_runtime.errors import BadImageError, BadInputError
from seg_runtime.files.images import read_image
from seg_runtime.files.masks import LabelMap, read_objects, read_shape

__all__ = ["InstanceSample", "has_instances", "load_nuclei"]

_NAME_LENGTH = 12
"""The official ids are hashes of 64 characters; their first 12 tell them apart."""


@dataclass(frozen=True)
class InstanceSample:
    """One image and where its objects are.

    Attributes:
        name: as used in split files.
        image_path: image of 1, 3 or 4 channels.
        label_paths: one map of ids, or one mask per object.
    """

    name: str
    image_path: Path
    label_paths: tuple[Path, ...]

    def load_image(self) -> NDArray[np.uint8]:
        """(H, W, 3) uint8 RGB."""
        return read_image(self.image_path, 3, gray=True)

    def load_labels(self) -> NDArray[np.int32]:
        """(H, W) int32: 0 is background, every other value an object.

        Raises:
            BadImageError: a file cannot be read, or has another size than the image.
        """
        maps = self.label_maps()
        if self._has_ids():
            return maps[0].labels.clip(min=0)
        labels = np.zeros(maps[0].labels.shape, np.int32)
        for index, each in enumerate(maps, start=1):
            if each.labels.shape != labels.shape:
                raise BadImageError(f"{each.path} has another size than its sister masks: unpack it again")
            labels[each.foreground] = index
        return labels

    def load_mask(self) -> NDArray[np.bool_]:
        """(H, W) bool: where any object is. Raises as `load_labels`."""
        return self.load_labels() > 0

    def load_truth(self) -> Truth:
        """Where any object is; every pixel counts. Raises as `load_labels`."""
        mask = self.load_mask()
        return Truth(mask, np.zeros_like(mask))

    def label_maps(self) -> tuple[LabelMap, ...]:
        """The files as they were read. Raises BadImageError."""
        read = read_objects if self._has_ids() else read_shape
        return tuple(read(path) for path in self.label_paths)

    def _has_ids(self) -> bool:
        return len(self.label_paths) == 1 and self.label_paths[0].parent.name == "labels"

    def size_hw(self) -> tuple[int, int]:
        """(height, width) of the image."""
        height, width = self.load_image().shape[:2]
        return height, width

    def check_size(self, image_hw: tuple[int, ...], mask_hw: tuple[int, ...]) -> None:
        """Raises BadInputError unless image and mask, both (height, width), have one size."""
        check_size(self.name, image_hw, mask_hw)


def has_instances(root: Path) -> bool:
    """Whether a folder has one of the layouts, without looking at every file."""
    return (root / "labels").is_dir() or next(root.glob("*/masks"), None) is not None


def load_nuclei(root: Path) -> tuple[InstanceSample, ...]:
    """Find the images of either layout under `root`, sorted by name.

    Raises:
        BadInputError: neither layout is there, or an image has no masks.
    """
    if (root / "labels").is_dir():
        samples = [_merged(root, image) for image in sorted((root / "images").glob("*.png"))]
    else:
        samples = [_official(folder) for folder in sorted(root.glob("*")) if (folder / "masks").is_dir()]
    if not samples:
        raise BadInputError(
            f"{root} holds no images with objects: expected images/ and labels/ (maps of ids), or the Data "
            "Science Bowl's folders ID/images and ID/masks"
        )
    return tuple(samples)


def _merged(root: Path, image: Path) -> InstanceSample:
    labels = root / "labels" / image.name
    if not labels.is_file():
        raise BadInputError(f"{image} has no map of ids {labels}: every image needs one")
    return InstanceSample(image.stem, image, (labels,))


def _official(folder: Path) -> InstanceSample:
    images, masks = sorted((folder / "images").glob("*.png")), sorted((folder / "masks").glob("*.png"))
    if len(images) != 1 or not masks:
        raise BadInputError(
            f"{folder} holds {len(images)} images and {len(masks)} masks: expected one image and its masks"
        )
    return InstanceSample(folder.name[:_NAME_LENGTH], images[0], tuple(masks))
