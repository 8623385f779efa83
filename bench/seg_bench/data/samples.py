"""An image with its mask, read from disk when asked for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from seg_bench.data.consensus import CONSENSUS, soft_majority
from seg_runtime.errors import BadImageError, BadInputError
from seg_runtime.files.images import read_bytes, read_image
from seg_runtime.files.listing import has_image_suffix, image_stem
from seg_runtime.files.masks import LabelMap, read_shape
from seg_runtime.files.nifti import is_nifti_name, nifti_affine, split_slice
from seg_runtime.files.nifti_header import nifti_slices

__all__ = ["Sample", "Truth", "check_size", "image_files", "mask_of", "paired_samples"]


@dataclass(frozen=True)
class Truth:
    """What is known about the pixels of an image.

    Attributes:
        mask: (H, W) bool, the foreground.
        ignored: (H, W) bool, pixels that do not count.
        confidence: (H, W) uint8, how much each pixel counts in training, 255 wholly; None for all wholly.
    """

    mask: NDArray[np.bool_]
    ignored: NDArray[np.bool_]
    confidence: NDArray[np.uint8] | None = None

    def judged(self, predicted: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """A predicted mask without what does not count, as `mask` is without it."""
        return predicted & ~self.ignored


@dataclass(frozen=True)
class Sample:
    """One image and the mask files that are merged into its ground truth.

    Attributes:
        name: file name without its suffix, as used in split files.
        image_path: gray image of 8, 12 or 16 bits; 12-bit values lose their 4 lowest bits, 16-bit
            values their 8 lowest.
        mask_paths: one or more masks of the image's size, see `seg_runtime.files.masks`.
        consensus: how they are merged, a key of `seg_bench.data.consensus.CONSENSUS`.
        weights: of the masks, which are merged by `seg_bench.data.consensus.soft_majority` instead.
    """

    name: str
    image_path: Path
    mask_paths: tuple[Path, ...]
    consensus: str = "union"
    weights: tuple[float, ...] = ()

    def load_image(self) -> NDArray[np.uint8]:
        """Read the image as the client does: (H, W) uint8, see `seg_runtime.files.images.to_uint8`."""
        return read_image(self.image_path, 1, gray=True)

    def size_hw(self) -> tuple[int, int]:
        """(height, width) of the image."""
        height, width = self.load_image().shape
        return height, width

    def load_mask(self) -> NDArray[np.bool_]:
        """(H, W) bool, the foreground of `load_truth`; raises as it does."""
        return self.load_truth().mask

    def load_truth(self) -> Truth:
        """Read the ground truth, the consensus of the masks; what one ignores does not count, unless it is
        foreground.

        Raises:
            BadImageError: a mask cannot be read or is ambiguous, or the masks differ in size.
            MissingExtraError: STAPLE without SimpleITK.
        """
        maps = self.label_maps()
        size_hw = maps[0].labels.shape
        for each in maps:
            if each.labels.shape != size_hw:
                raise BadImageError(
                    f"{each.path} is {each.labels.shape[1]}x{each.labels.shape[0]}, its sister mask is "
                    f"{size_hw[1]}x{size_hw[0]}: both must have the size of the X-ray"
                )
        masks, confidence = [each.foreground for each in maps], None
        if self.weights:
            mask, confidence = soft_majority(masks, self.weights)
        else:
            mask = CONSENSUS[self.consensus](masks)
        return Truth(mask, ~mask & np.any([each.ignored for each in maps], axis=0), confidence)

    def label_maps(self) -> tuple[LabelMap, ...]:
        """The masks as they were read. Raises BadImageError."""
        return tuple(read_shape(path) for path in self.mask_paths)

    def check_size(self, image_hw: tuple[int, ...], mask_hw: tuple[int, ...]) -> None:
        """Raises BadInputError unless image and mask, both (height, width), have one size."""
        check_size(self.name, image_hw, mask_hw)


def check_size(name: str, image_hw: tuple[int, ...], mask_hw: tuple[int, ...]) -> None:
    """Raises BadInputError unless image and mask, both (height, width), have one size."""
    if image_hw != mask_hw:
        raise BadInputError(
            f"the mask of '{name}' is {mask_hw[1]}x{mask_hw[0]} and its image "
            f"{image_hw[1]}x{image_hw[0]}: both must have one size"
        )


def paired_samples(root: Path) -> tuple[Sample, ...]:
    """Find the pairs of the merged layout: `images/NAME.png` with `masks/NAME.png`, sorted by name.

    Raises:
        BadInputError: the layout is not there, or an image has no mask.
    """
    return tuple(_pairs(root, image_files(root)))


def image_files(root: Path) -> list[Path]:
    """Files of `images/` with a suffix of an image, sorted; of a stack each slice, as `split_slice` names it.

    Raises:
        BadInputError: there is none, or two differ in their suffix only.
        BadImageError: a NIfTI file is damaged, or no stack of slices.
    """
    folder = root / "images"
    entries = sorted(folder.iterdir()) if folder.is_dir() else []
    images = [path for path in entries if has_image_suffix(path) and not path.name.startswith(".")]
    if not images:
        raise BadInputError(f"no images in {folder}: expected the folders images/ and masks/ (or classes/)")
    for first, second in pairwise(sorted(images, key=image_stem)):
        if image_stem(first) == image_stem(second):
            raise BadInputError(f"'{first}' and '{second.name}' have one name: rename one of them")
    return [image for path in images for image in _slices(path)]


def mask_of(image: Path, folder: Path) -> Path | None:
    """The mask of an image in a folder: of the same file name, else NAME.png; None when there is none.

    That of a slice is the same slice of NAME.nii.gz or NAME.nii.

    Raises:
        BadInputError: a NIfTI mask has another number of slices than its image, or lies elsewhere.
        BadImageError: one of them is damaged.
    """
    file, number = split_slice(image)
    suffixes = (".png", ".nii.gz", ".nii") if number is None else (".nii.gz", ".nii")
    names = (file.name, *(image_stem(file) + suffix for suffix in suffixes))
    mask = next((path for name in names if (path := folder / name).is_file()), None)
    if mask is None:
        return None
    if not number and is_nifti_name(file) and is_nifti_name(mask):
        _check_space(file, mask)
    return mask / str(number) if number is not None else mask


def _check_space(image: Path, mask: Path) -> None:
    """Raises BadInputError unless both NIfTI files have as many slices, in the same place."""
    try:
        ours, theirs = read_bytes(image), read_bytes(mask)
        counts = nifti_slices(ours), nifti_slices(theirs)
        same_place = np.allclose(nifti_affine(ours), nifti_affine(theirs), rtol=1e-3, atol=1e-3)
    except BadImageError as error:
        raise BadImageError(f"cannot compare '{mask}' with '{image}': {error}") from error
    if counts[0] != counts[1]:
        raise BadInputError(
            f"'{mask}' has {counts[1]} slices and its image {counts[0]}: both must have as many"
        )
    if not same_place:
        raise BadInputError(
            f"'{mask}' lies elsewhere in space than its image (their affines differ): resample the mask to it"
        )


def _slices(path: Path) -> list[Path]:
    """The slices of a stack, else the file alone."""
    if not is_nifti_name(path):
        return [path]
    try:
        count = nifti_slices(read_bytes(path))
    except BadImageError as error:
        raise BadImageError(f"cannot read image '{path}': {error}") from error
    return [path / str(number) for number in range(count)] if count > 1 else [path]


def _pairs(root: Path, images: list[Path]) -> Iterator[Sample]:
    for image in images:
        mask = mask_of(image, root / "masks")
        if mask is None:
            file, number = split_slice(image)
            expected = root / "masks" / (image_stem(file) + (".png" if number is None else ".nii.gz"))
            raise BadInputError(f"{image} has no mask {expected}: every image needs one")
        yield Sample(image_stem(image), image, (mask,))
