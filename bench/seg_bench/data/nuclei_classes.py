"""Nuclei as three classes: background, nucleus and border.

A network for pixels that knows nuclei as one class joins those that touch. One that knows their borders too
separates them: what it calls nucleus are single nuclei.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from seg_bench.data.class_names import BACKGROUND, CLASSES_FILE
from seg_bench.data.nuclei import InstanceSample
from seg_runtime.files.images import write_png

__all__ = ["BORDER_PX", "NUCLEI_CLASSES", "nuclei_classes", "write_nuclei_classes"]

NUCLEI_CLASSES = (BACKGROUND, "nucleus", "border")

BORDER_PX = 2


def nuclei_classes(labels: NDArray[np.int32]) -> NDArray[np.uint8]:
    """The class of each pixel, an index of `NUCLEI_CLASSES`.

    Border are the pixels of a nucleus from which the background or another nucleus is at most `BORDER_PX`
    rows and columns away, so that two nuclei less their borders never touch. Where the image ends is none.

    Args:
        labels: (H, W) int32, 0 is background and every other value a nucleus.

    Returns:
        (H, W) uint8.

    Example:
        >>> nuclei_classes(np.array([[1, 1, 1, 2, 2, 2, 2, 2, 0]], np.int32)).tolist()
        [[1, 2, 2, 2, 2, 1, 2, 2, 0]]
    """
    window = np.ones((2 * BORDER_PX + 1, 2 * BORDER_PX + 1), np.uint8)
    ids = labels.astype(np.float64)  # OpenCV filters no int32.
    inside = (cv2.erode(ids, window) == ids) & (cv2.dilate(ids, window) == ids)
    return np.where(ids == 0, np.uint8(0), np.where(inside, np.uint8(1), np.uint8(2)))


def write_nuclei_classes(
    samples: Sequence[InstanceSample], out: Path, on_step: Callable[[int, int], object] | None = None
) -> None:
    """Write `images/`, `classes/` and `classes.txt` into a folder, as `seg_bench.data.classes` reads them.

    Args:
        on_step: called with (done, total) after each image.

    Raises:
        BadImageError: a file cannot be read.
        BadInputError: an image and its map of ids differ in size.
        OSError: the folder cannot be written.
    """
    for folder in ("images", "classes"):
        (out / folder).mkdir(parents=True)
    (out / CLASSES_FILE).write_text("".join(f"{name}\n" for name in NUCLEI_CLASSES), encoding="utf-8")
    for done, sample in enumerate(samples, start=1):
        labels = sample.load_labels()
        sample.check_size(sample.size_hw(), labels.shape)
        write_png(out / "classes" / f"{sample.name}.png", nuclei_classes(labels))
        shutil.copyfile(sample.image_path, out / "images" / f"{sample.name}.png")
        if on_step:
            on_step(done, len(samples))
