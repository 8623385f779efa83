"""Images whose ground truth names a class for each pixel, in the layouts that data of several classes have.

| next to `images/` | what it is |
|---|---|
| `classes/NAME.png` | a map of each image: gray values or palette indices are the classes |
| `classes/CLASS/NAME.png` | a mask for each class; a class that an image has not needs none |
| `annotations.json` | polygons or run lengths in COCO's format |

`classes.txt` names the classes, one in a line, from 0 on.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from seg_bench.data.class_names import BACKGROUND, CLASSES_FILE, check_names, read_class_names
from seg_bench.data.class_truths import ClassMap, ClassMasks, ClassTruth
from seg_bench.data.coco import COCO_FILE, coco_classes, coco_truths
from seg_bench.data.samples import Truth, check_size, image_files, mask_of
from seg_runtime.errors import BadInputError
from seg_runtime.files.images import read_image
from seg_runtime.files.listing import image_stem
from seg_runtime.files.masks import LabelMap

__all__ = ["ClassSample", "class_names", "class_samples", "has_classes"]


@dataclass(frozen=True)
class ClassSample:
    """One image and the class of each of its pixels.

    Attributes:
        name: file name without its suffix, as used in split files.
        image_path: image of 1, 3 or 4 channels.
        truth: where the classes are written; 0 is the background.
    """

    name: str
    image_path: Path
    truth: ClassTruth

    def load_image(self) -> NDArray[np.uint8]:
        """(H, W, 3) uint8 RGB."""
        return read_image(self.image_path, 3, gray=True)

    def load_classes(self) -> NDArray[np.int32]:
        """(H, W) int32, 0 is background and `seg_runtime.files.masks.IGNORED` what does not count.

        Raises:
            BadImageError: the file cannot be read, is in colour, or its values can mean two things.
        """
        return self.truth.read().labels

    def load_mask(self) -> NDArray[np.bool_]:
        """(H, W) bool: every class but the background. Raises as `load_classes`."""
        return self.load_truth().mask

    def load_truth(self) -> Truth:
        """Every class but the background, and what does not count. Raises as `load_classes`."""
        found = self.truth.read()
        return Truth(found.foreground, found.ignored)

    def label_maps(self) -> tuple[LabelMap, ...]:
        """The map as it was read. Raises BadImageError."""
        return (self.truth.read(),)

    def size_hw(self) -> tuple[int, int]:
        """(height, width) of the image."""
        height, width = self.load_image().shape[:2]
        return height, width

    def check_size(self, image_hw: tuple[int, ...], mask_hw: tuple[int, ...]) -> None:
        """Raises BadInputError unless image and mask, both (height, width), have one size."""
        check_size(self.name, image_hw, mask_hw)


def has_classes(root: Path) -> bool:
    """Whether a folder has one of these layouts, without looking at its files."""
    return (root / "classes").is_dir() or (root / COCO_FILE).is_file()


def class_names(root: Path) -> tuple[str, ...]:
    """Names of the classes of a folder, from 0 on: of `classes.txt`, COCO's categories, or the folders.

    Returns:
        None of maps without `classes.txt`, whose values have no names.

    Raises:
        BadInputError: `classes.txt` or the annotations cannot be used.
    """
    if not (root / "classes").is_dir():
        return coco_classes(root) if (root / COCO_FILE).is_file() else ()
    return read_class_names(root) or (_names_of_folders(root) if _folders(root) else ())


def class_samples(root: Path) -> tuple[ClassSample, ...]:
    """Find the images of these layouts with their ground truth, sorted by name.

    Raises:
        BadInputError: there are no images, one has no map of classes, or a folder is no class.
    """
    images = image_files(root)
    if not (root / "classes").is_dir():
        truths = coco_truths(root, images)
        return tuple(ClassSample(image_stem(image), image, truths[image]) for image in images)
    if folders := _folders(root):
        numbers = _numbers(root, folders)
        return tuple(_masked(root, image, numbers) for image in images)
    return tuple(_mapped(root, image) for image in images)


def _mapped(root: Path, image: Path) -> ClassSample:
    classes = mask_of(image, root / "classes")
    if classes is None:
        expected = root / "classes" / f"{image_stem(image)}.png"
        raise BadInputError(f"{image} has no map of classes {expected}: every image needs one")
    return ClassSample(image_stem(image), image, ClassMap(classes))


def _masked(root: Path, image: Path, numbers: dict[str, int]) -> ClassSample:
    found = ((number, mask_of(image, root / "classes" / name)) for name, number in numbers.items())
    masks = tuple((number, path) for number, path in found if path is not None)
    return ClassSample(image_stem(image), image, ClassMasks(masks, image))


def _folders(root: Path) -> list[str]:
    return sorted(entry.name for entry in (root / "classes").iterdir() if entry.is_dir())


def _names_of_folders(root: Path) -> tuple[str, ...]:
    others = [name for name in _folders(root) if name != BACKGROUND]
    return check_names([BACKGROUND, *others], f"'{root / 'classes'}'")


def _numbers(root: Path, folders: list[str]) -> dict[str, int]:
    """The class of each folder, in the order of the classes."""
    names = read_class_names(root) or _names_of_folders(root)
    unknown = [folder for folder in folders if folder not in names]
    if unknown:
        raise BadInputError(
            f"'{root / 'classes' / unknown[0]}' is no class of {CLASSES_FILE}, which has {', '.join(names)}: "
            "name it there, or take the folder away"
        )
    return {name: number for number, name in enumerate(names) if name in folders}
