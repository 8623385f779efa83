"""What a published model is worth on labelled images: the check that no comparison with PyTorch replaces."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from seg_runtime.connection import connect
from seg_runtime.errors import BadInputError
from seg_runtime.files.images import list_images, read_image
from seg_runtime.files.indexed import VOID, indexed_labels
from seg_runtime.semantic import SemanticSegmenter

__all__ = ["LabelledDice", "LabelledImage", "labelled_dice", "labelled_images"]

Image = NDArray[np.uint8]
Mask = NDArray[np.int16]

_JPEG = b"\xff\xd8\xff"


@dataclass(frozen=True)
class LabelledImage:
    """Files of an image and of its mask."""

    image: Path
    mask: Path


@dataclass(frozen=True)
class LabelledDice:
    """How well a published model finds what people drew.

    Attributes:
        images: how many there were.
        dice: of each class, the mean over the images that have it or where it was found; None where no image
            does.
    """

    images: int
    dice: Mapping[str, float | None]

    def summary(self) -> str:
        """One line, for example "Dice on 5 labelled images: lung 0.9731".

        Example:
            >>> LabelledDice(2, {"lung": 0.95, "heart": None}).summary()
            'Dice on 2 labelled images: lung 0.9500, heart in none'
        """
        found = ", ".join(
            f"{name} in none" if dice is None else f"{name} {dice:.4f}" for name, dice in self.dice.items()
        )
        return f"Dice on {self.images} labelled image{'' if self.images == 1 else 's'}: {found}"


def labelled_images(images: Path, masks: Path, *, channels: int, classes: int) -> tuple[LabelledImage, ...]:
    """Pairs of an image and a mask whose files are named alike but for the suffix.

    Args:
        images: a folder.
        masks: a folder of gray images or of indexed PNGs, whose indices count. Anything but 0 is foreground
            for a model of one class; for several, the values are class ids. 255 next to other indices marks
            pixels that belong to no class and are not counted, as in Pascal VOC.
        channels: that the model takes.
        classes: of the model.

    Raises:
        BadInputError: a folder without images, a file without the other one, or several of one name; a file
            that cannot be read, a mask of another size than its image or with a class that there is not.
    """
    image_of, mask_of = _by_name("--images", images), _by_name("--masks", masks)
    _check_alone(image_of, mask_of, masks)
    _check_alone(mask_of, image_of, images)
    labelled = tuple(LabelledImage(path, mask_of[name]) for name, path in image_of.items())
    for each in labelled:
        _read_mask(each, read_image(each.image, channels, gray=True), classes)
    return labelled


def labelled_dice(repo: Path, name: str, labelled: Sequence[LabelledImage]) -> LabelledDice:
    """Run the served version of a semantic model in process, as a client does, and compare.

    Args:
        repo: the model repository.
        name: of the model.
        labelled: of `labelled_images`.

    Raises:
        BadInputError: an image or mask that cannot be used, as from `labelled_images`.
    """
    with connect(repo) as session:
        segmenter = SemanticSegmenter(session, name)
        names = segmenter.spec.class_names
        scores = []
        for each in labelled:
            image = read_image(each.image, segmenter.spec.channels, gray=True)
            truth = _read_mask(each, image, len(names))
            scores.append(_scores(segmenter.segment(image).mask, truth))
    first = 1 if len(names) == 1 else 0
    dice = {
        title: _mean(score.get(class_id) for score in scores)
        for class_id, title in enumerate(names, start=first)
    }
    return LabelledDice(len(labelled), dice)


def _by_name(option: str, folder: Path) -> dict[str, Path]:
    if not folder.is_dir():
        raise BadInputError(f"{option} '{folder}': expected a folder of images")
    files: dict[str, Path] = {}
    for path in list_images([folder]):
        if path.stem in files:
            raise BadInputError(f"{option}: '{files[path.stem]}' and '{path.name}' have one name")
        files[path.stem] = path
    return files


def _check_alone(files: Mapping[str, Path], others: Mapping[str, Path], folder: Path) -> None:
    """Refuse files that have none of their name in the other folder."""
    if alone := [path.name for name, path in files.items() if name not in others]:
        more = f" and {len(alone) - 3} more" if len(alone) > 3 else ""
        raise BadInputError(
            f"--images and --masks: '{folder}' has no file named as {', '.join(alone[:3])}{more} "
            f"(of {len(files)}); an image and its mask may differ in their suffix alone"
        )


def _read_mask(pair: LabelledImage, image: Image, classes: int) -> Mask:
    """(H, W) int16 class ids, 0 and 1 for one class; -1 for pixels that belong to none."""
    mask = _labels(pair.mask)
    if mask.shape != image.shape[:2]:
        raise BadInputError(
            f"mask '{pair.mask}' is {mask.shape[0]}x{mask.shape[1]} and its image "
            f"{image.shape[0]}x{image.shape[1]}: both must have one size"
        )
    if classes == 1:
        return np.sign(mask)
    if mask.max() >= classes:
        raise BadInputError(
            f"mask '{pair.mask}' has the value {mask.max()}: expected class ids, 0 to {classes - 1}"
        )
    return mask


def _labels(path: Path) -> Mask:
    """(H, W) int16 values of a gray image or indices of a palette, as Pascal VOC has them; -1 for void."""
    with path.open("rb") as file:
        if file.read(3) == _JPEG:
            raise BadInputError(
                f"mask '{path}' is a JPEG, which changes values along every edge: save masks as PNG"
            )
    indexed = indexed_labels(path)
    if indexed is not None:
        # 255 is void next to labels, and the foreground where there are no others.
        void = (indexed == VOID) & ~np.isin(indexed, (0, VOID)).all()
        return np.where(void, np.int16(-1), indexed.astype(np.int16))
    pixels = read_image(path, 3, gray=True)
    if (pixels != pixels[..., :1]).any():
        raise BadInputError(
            f"mask '{path}' is in colour: save the number of each pixel's class as a gray or an indexed PNG"
        )
    return pixels[..., 0].astype(np.int16)


def _scores(found: Image, truth: Mask) -> dict[int, float]:
    """Dice of each class id that is in one of two masks, over the pixels that belong to a class."""
    found, truth = found[truth >= 0], truth[truth >= 0]
    scores = {}
    for class_id in np.union1d(found, truth):
        in_found, in_truth = found == class_id, truth == class_id
        total = np.count_nonzero(in_found) + np.count_nonzero(in_truth)
        scores[int(class_id)] = 2 * np.count_nonzero(in_found & in_truth) / total
    return scores


def _mean(values: Iterable[float | None]) -> float | None:
    there = [value for value in values if value is not None]
    return float(np.mean(there)) if there else None
