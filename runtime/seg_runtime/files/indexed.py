"""Indexed images, whose pixels are numbers of a palette: labels, and not the colours that a viewer shows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

__all__ = ["VOID", "indexed_labels"]

VOID = 255
"""What DAVIS and Pascal VOC put on the pixels that belong to nothing, next to other labels."""


def indexed_labels(path: Path) -> NDArray[np.uint8] | None:
    """(H, W) uint8 labels of an indexed PNG; None for all other files, also what cannot be read.

    Example:
        >>> indexed_labels(Path("gone.png")) is None
        True
    """
    from PIL import Image

    try:
        with Image.open(path) as image:
            return np.array(image, dtype=np.uint8) if image.mode == "P" else None
    except (OSError, ValueError, Image.DecompressionBombError):
        # The reader of images says what is wrong.
        return None
