"""Images whose ground truth names a class for each pixel: `images/NAME.png` and `classes/NAME.png`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from seg_bench.data.samples import check_size, image_files
from seg_runtime.errors import BadImageError, BadInputError
from seg_runtime.files.images import read_image
from seg_runtime.files.indexed import indexed_labels

__all__ = ["ClassSample", "class_samples", "has_classes"]


@dataclass(frozen=True)
class ClassSample:
    """One image and the class of each of its pixels.

    Attributes:
        name: file name without its suffix, as used in split files.
        image_path: image of 1, 3 or 4 channels.
        class_path: gray or indexed PNG of the image's size; its values are the model's classes, 0 the
            background.
    """

    name: str
    image_path: Path
    class_path: Path

    def load_image(self) -> NDArray[np.uint8]:
        """(H, W, 3) uint8 RGB."""
        return read_image(self.image_path, 3, gray=True)

    def load_classes(self) -> NDArray[np.int32]:
        """(H, W) int32, 0 is background.

        Raises:
            BadImageError: the file cannot be read, or is in colour.
        """
        import cv2

        if (indexed := indexed_labels(self.class_path)) is not None:
            return indexed.astype(np.int32)
        pixels = cv2.imread(str(self.class_path), cv2.IMREAD_UNCHANGED)
        if pixels is None:
            raise BadImageError(f"cannot read image '{self.class_path}': it is missing, empty or damaged")
        if pixels.ndim != 2:
            raise BadImageError(
                f"'{self.class_path}' is in colour: save the number of each pixel's class as a gray or an "
                "indexed PNG"
            )
        return np.asarray(pixels, np.int32)

    def load_mask(self) -> NDArray[np.bool_]:
        """(H, W) bool: every class but the background. Raises as `load_classes`."""
        return self.load_classes() > 0

    def size_hw(self) -> tuple[int, int]:
        """(height, width) of the image."""
        height, width = self.load_image().shape[:2]
        return height, width

    def check_size(self, image_hw: tuple[int, ...], mask_hw: tuple[int, ...]) -> None:
        """Raises BadInputError unless image and mask, both (height, width), have one size."""
        check_size(self.name, image_hw, mask_hw)


def has_classes(root: Path) -> bool:
    """Whether a folder has this layout, without looking at its files."""
    return (root / "classes").is_dir()


def class_samples(root: Path) -> tuple[ClassSample, ...]:
    """Find the pairs of this layout, sorted by name.

    Raises:
        BadInputError: there are no images, or one has no map of classes.
    """
    return tuple(_sample(root, image) for image in image_files(root))


def _sample(root: Path, image: Path) -> ClassSample:
    classes = root / "classes" / image.name
    if not classes.is_file():
        raise BadInputError(f"{image} has no map of classes {classes}: every image needs one")
    return ClassSample(image.stem, image, classes)
