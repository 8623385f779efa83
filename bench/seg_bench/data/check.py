"""Looks at images and masks before anything is measured on them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from seg_bench.data.find import AnySample
from seg_bench.data.nuclei import InstanceSample
from seg_runtime.errors import BadImageError, BadInputError
from seg_runtime.files.image_header import read_header
from seg_runtime.files.images import read_image

__all__ = ["check_masks", "check_sizes"]


def check_sizes(samples: Iterable[AnySample]) -> None:
    """Compare the sizes of images with those of their masks; of PNG files only the headers are read.

    Raises:
        BadInputError: a mask has another size than its image.
        BadImageError: a file cannot be read, or was cut off.
    """
    for sample in samples:
        image_hw = _size_hw(sample.image_path)
        masks = sample.label_paths if isinstance(sample, InstanceSample) else sample.mask_paths
        for mask_hw in map(_size_hw, masks):
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


def _size_hw(path: Path) -> tuple[int, ...]:
    try:
        header = read_header(path.read_bytes())
    except (OSError, BadImageError):
        header = None
    if header is None or header.kind != "png" or not header.complete:
        return read_image(path, 3, gray=True).shape[:2]  # tells what is wrong with the file
    return header.size_hw
