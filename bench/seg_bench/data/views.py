"""A half of an image, or the image on its side, with the ground truth that belongs to it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seg_bench.data.classes import ClassSample
from seg_bench.data.nuclei import InstanceSample
from seg_bench.data.samples import Sample, Truth, check_size
from seg_runtime.files.images import read_image
from seg_runtime.files.masks import LabelMap

__all__ = ["VIEWS", "ViewSample"]

VIEWS: Mapping[str, Callable[[NDArray[Any]], NDArray[Any]]] = MappingProxyType(
    {
        "left half": lambda pixels: pixels[:, : pixels.shape[1] // 2],
        "right half": lambda pixels: pixels[:, pixels.shape[1] // 2 :],
        "turned 90": np.rot90,
    }
)
"""By the name of its condition: what becomes of pixels, (H, W) or (H, W, 3); turned anticlockwise."""


@dataclass(frozen=True)
class ViewSample:
    """A view of a sample: the file that shows it, and of whose ground truth it is.

    Attributes:
        view: a key of `VIEWS`.
        whole: the sample.
        image_path: the view of its image.
    """

    view: str
    whole: Sample | InstanceSample | ClassSample
    image_path: Path

    @property
    def name(self) -> str:
        """That of the sample."""
        return self.whole.name

    def load_image(self) -> NDArray[np.uint8]:
        """As that of the sample, with fewer pixels or turned."""
        channels = 1 if isinstance(self.whole, Sample) else 3
        return read_image(self.image_path, channels, gray=True)

    def size_hw(self) -> tuple[int, int]:
        """(height, width) of the image."""
        height, width = self.load_image().shape[:2]
        return height, width

    def load_mask(self) -> NDArray[np.bool_]:
        """(H, W) bool, the foreground. Raises as that of the sample."""
        return self.load_truth().mask

    def load_truth(self) -> Truth:
        """What is known about these pixels. Raises as that of the sample."""
        truth, seen = self.whole.load_truth(), VIEWS[self.view]
        return Truth(seen(truth.mask), seen(truth.ignored))

    def label_maps(self) -> tuple[LabelMap, ...]:
        """The files as they were read, of these pixels. Raises as that of the sample."""
        seen = VIEWS[self.view]
        return tuple(replace(each, labels=seen(each.labels)) for each in self.whole.label_maps())

    def check_size(self, image_hw: tuple[int, ...], mask_hw: tuple[int, ...]) -> None:
        """Raises BadInputError unless image and mask, both (height, width), have one size."""
        check_size(self.name, image_hw, mask_hw)
