"""Looks at images and masks before anything is measured on them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from seg_bench.data.class_names import BACKGROUND, FOREGROUND
from seg_bench.data.classes import ClassSample
from seg_bench.data.find import AnySample
from seg_bench.data.nuclei import InstanceSample
from seg_runtime.errors import BadImageError, BadInputError
from seg_runtime.files import masks
from seg_runtime.files.image_header import read_header
from seg_runtime.files.images import read_image

__all__ = ["check_class_names", "check_classes", "check_masks", "check_sizes", "check_truths"]


def check_sizes(samples: Iterable[AnySample]) -> None:
    """Compare the sizes of images with those of their masks; of PNG files only the headers are read.

    Raises:
        BadInputError: a mask has another size than its image.
        BadImageError: a file cannot be read, or was cut off.
    """
    for sample in samples:
        image_hw = _size_hw(sample.image_path)
        for mask_hw in map(_size_hw, _masks(sample)):
            sample.check_size(image_hw, mask_hw)


def check_masks(samples: Iterable[AnySample]) -> None:
    """Refuse an empty ground truth, of which a SAM gets no box.

    Raises:
        BadInputError: a mask has no foreground.
        BadImageError: a file cannot be read.
    """
    for sample in samples:
        if not sample.load_mask().any():
            raise BadInputError(
                f"the mask of '{sample.name}' is empty: a SAM is measured with a box around each object"
            )


def check_truths(samples: Iterable[AnySample]) -> None:
    """Refuse a ground truth with nothing in it, against which an empty answer would be perfect.

    Raises:
        BadInputError: no mask has foreground, or the masks are written in two ways.
        BadImageError: a file cannot be read.
    """
    masks.check_truths(found for sample in samples for found in sample.label_maps())


def check_classes(samples: Iterable[AnySample], count: int, model: str) -> None:
    """Refuse classes in a ground truth that a model does not have.

    Args:
        samples: those without a map of classes are not looked at.
        count: the model has the classes 0 to `count` - 1.
        model: its name.

    Raises:
        BadInputError: there is a higher one.
        BadImageError: a file cannot be read.
    """
    for sample in samples:
        if not isinstance(sample, ClassSample):
            continue
        (found,) = sample.label_maps()
        if found.reading in ("0 and white", "soft edges") and count > 2:
            raise BadInputError(
                f"the ground truth of '{sample.name}' is black and white, and '{model}' has {count} classes: "
                "save the number of each pixel's class"
            )
        if (highest := int(found.labels.max())) >= count:
            raise BadInputError(
                f"the ground truth of '{sample.name}' has class {highest}, and '{model}' 0 to {count - 1}: "
                "give maps of the model's own classes, or name other models with --models"
            )


def check_class_names(found: Sequence[str], of_model: Sequence[str], model: str) -> None:
    """Refuse to score a model by other classes than its own.

    Args:
        found: names of the data's classes, from 0 on; none where it names none.
        of_model: names of the model's; one of a model for one kind of thing.
        model: its name.

    Raises:
        BadInputError: the names differ.

    Example:
        >>> check_class_names(("background", "lung"), ("lung",), "unet_lung")
    """
    things = [name for name in found if name != BACKGROUND]
    wanted = things if len(of_model) == 1 else list(found)
    if found and of_model and list(of_model) not in (wanted, [FOREGROUND]):
        raise BadInputError(
            f"'{model}' finds {', '.join(of_model)}, and the data has the classes {', '.join(found)}: their "
            "score would mean nothing; give masks of the model's own classes, or name another model"
        )


def _masks(sample: AnySample) -> tuple[Path, ...]:
    if isinstance(sample, InstanceSample):
        return sample.label_paths
    if isinstance(sample, ClassSample):
        return sample.truth.files()
    return sample.mask_paths


def _size_hw(path: Path) -> tuple[int, ...]:
    try:
        header = read_header(path.read_bytes())
    except (OSError, BadImageError):
        header = None
    if header is None or header.kind != "png" or not header.complete:
        return read_image(path, 3, gray=True).shape[:2]  # tells what is wrong with the file
    return header.size_hw
