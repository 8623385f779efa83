"""The unit of distances: mm where every image says how large its pixels are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from seg_bench.data.find import AnySample
from seg_runtime.files.nifti import split_slice
from seg_runtime.files.spacing import read_spacing_hw

__all__ = ["Spacings", "find_spacings"]


@dataclass(frozen=True)
class Spacings:
    """Of the images of a run.

    Attributes:
        sizes_hw: (height, width) of a pixel of each image in mm; None where distances are in pixels.
        note: why they are in pixels although some images have a spacing; None otherwise.
    """

    sizes_hw: tuple[tuple[float, float], ...] | None = None
    note: str | None = None


def find_spacings(samples: Sequence[AnySample]) -> Spacings:
    """Read the spacing of every image. Raises as `read_spacing_hw`."""
    found = [_spacing_of_file(split_slice(sample.image_path)[0]) for sample in samples]
    sizes_hw = tuple(each for each in found if each)
    if len(sizes_hw) == len(samples):
        return Spacings(sizes_hw)
    if not sizes_hw:
        return Spacings()
    first = next(sample.name for sample, each in zip(samples, found, strict=True) if each is None)
    without = len(samples) - len(sizes_hw)
    return Spacings(
        note=f"HD95 is in pixels: {without} of {len(samples)} images have no pixel spacing, '{first}' first"
    )


@lru_cache(maxsize=1)
def _spacing_of_file(path: Path) -> tuple[float, float] | None:
    """All slices of a stack have one."""
    return read_spacing_hw(path)
