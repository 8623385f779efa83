"""Maps of confidence: `confidence/NAME.png`, how much each pixel of an image counts in training."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from seg_runtime.errors import BadImageError, BadInputError
from seg_runtime.files.mask_pixels import read_mask_pixels

__all__ = ["FOLDER", "confidence_maps", "read_confidence"]

FOLDER = "confidence"


def confidence_maps(root: Path, names: Iterable[str]) -> dict[str, Path]:
    """The maps of a data set by the names of their images; an image without one counts wholly.

    Raises:
        BadInputError: a file of the folder is no PNG, or of no image.
    """
    folder, images = root / FOLDER, set(names)
    entries = sorted(folder.iterdir()) if folder.is_dir() else []
    files = [path for path in entries if not path.name.startswith(".")]
    for path in files:
        if path.suffix.lower() != ".png" or path.stem not in images:
            raise BadInputError(f"'{path}' belongs to no image: expected NAME.png for an image NAME")
    return {path.stem: path for path in files}


def read_confidence(path: Path, size_hw: tuple[int, ...]) -> NDArray[np.uint8]:
    """Read a gray PNG: 0 does not count, the highest value of its 8 or 16 bits counts wholly.

    Args:
        path: the file.
        size_hw: (height, width) in pixels of the image.

    Returns:
        (H, W) uint8; of 16 bits the nearest of 255 steps.

    Raises:
        BadImageError: it cannot be read, is not gray or of another size, or hardly a pixel of it counts.
    """
    try:
        pixels = read_mask_pixels(path)
    except BadImageError as error:
        raise BadImageError(f"cannot read map of confidence '{path}': {error}") from error
    values = pixels.values
    if pixels.source != "gray values" or values.dtype == np.bool_:
        raise BadImageError(f"'{path}' has {pixels.source}: save the confidence as gray of 8 or 16 bits")
    if values.shape != size_hw:
        raise BadImageError(
            f"'{path}' is {values.shape[1]}x{values.shape[0]}, its image {size_hw[1]}x{size_hw[0]}: both "
            "must have one size"
        )
    full = 255 if values.dtype == np.uint8 else 65535
    if values.max() <= 1:
        raise BadImageError(
            f"'{path}' has no value above {values.max()}, and {full} counts wholly: leave the image out, or "
            f"save 0 to {full}"
        )
    return np.asarray(np.rint(values * (255 / full)), np.uint8)
