"""What the rows are measured on: labelled images that were given, or drawn ones where there are none."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np

from seg_bench.data.find import AnySample, find_samples, shipped_split
from seg_bench.data.nuclei import InstanceSample
from seg_bench.reproduce.catalogue import Images
from seg_bench.run.suites import SUITES, Suite
from seg_runtime.errors import BadInputError

__all__ = ["DRAWN", "ImageFolder", "calibration_images", "find_images"]

DRAWN = "drawn"
"""Name of the data set of drawn images."""

_LABELS: dict[Images, str] = {"masks": "masks", "objects": "labels"}
"""Folder of the ground truth of a kind, next to `images`."""

_CALIBRATED = 16
_COUNT = 4
_SIZE_HW = (512, 512)


@dataclass(frozen=True)
class ImageFolder:
    """Images of one kind.

    Attributes:
        path: the folder.
        drawn: whether nobody labelled them: they give times, and masks to compare, but no Dice.
        suite: whose test part is measured, where the shipped networks were trained on others of these images.
        other: another data set of this kind, on which trained networks are scored too.
    """

    path: Path
    drawn: bool = False
    suite: Suite | None = None
    other: Path | None = None


def find_images(given: Sequence[Path], out: Path) -> dict[Images, ImageFolder]:
    """A folder for each kind of ground truth: the first given one, else drawn images in `out`.

    A second one of a kind is another data set.

    Args:
        given: folders, each in a layout that `seg-bench run --data` takes.
        out: where images are drawn.

    Raises:
        BadInputError: a folder without images, or a third one of a kind.
    """
    found: dict[Images, ImageFolder] = {}
    for path in given:
        samples = find_samples(path)
        kind: Images = "objects" if isinstance(samples[0], InstanceSample) else "masks"
        first = found.get(kind)
        found[kind] = _with_other(first, path) if first else ImageFolder(path, suite=_suite(samples))
    for kind, labels in _LABELS.items():
        if kind not in found:
            folder = out / kind / DRAWN
            _draw(folder, labels)
            found[kind] = ImageFolder(folder, drawn=True)
    return found


def calibration_images(images: ImageFolder, out: Path) -> Path:
    """A folder of a few images to calibrate int8 with: not those that are measured, where there are others.

    Args:
        images: that are measured.
        out: folder to fill.
    """
    samples = find_samples(images.path)
    if images.suite is not None:
        test = set(shipped_split(samples).test)
        samples = tuple(sample for sample in samples if sample.name not in test) or samples
    out.mkdir(parents=True, exist_ok=True)
    for sample in samples[:: max(1, len(samples) // _CALIBRATED)]:
        shutil.copy(sample.image_path, out)
    return out


def _with_other(folder: ImageFolder, path: Path) -> ImageFolder:
    if folder.other is not None:
        raise BadInputError(
            f"--data '{path}' is a third folder with {folder.path} and {folder.other}: give at most one to "
            "measure on and another data set of the same kind"
        )
    return replace(folder, other=path)


def _suite(samples: Sequence[AnySample]) -> Suite | None:
    """The data set that the shipped networks know, when any of these images is from it."""
    split = shipped_split(tuple(samples))
    known = {*split.train, *split.val, *split.test}
    return SUITES[split.data_set] if known & {sample.name for sample in samples} else None


def _draw(folder: Path, labels: str) -> None:
    """A few gray images of two bright ellipses each, the same ones every time."""
    generator = np.random.default_rng(0)
    for name in ("images", labels):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for number in range(_COUNT):
        ids = np.zeros(_SIZE_HW, np.uint8)
        for place, center_x in enumerate((150, 362), start=1):
            center = (center_x + int(generator.integers(-20, 20)), 256 + int(generator.integers(-30, 30)))
            axes = (int(generator.integers(60, 90)), int(generator.integers(130, 170)))
            cv2.ellipse(ids, center, axes, 0, 0, 360, (place,), -1)
        image = np.where(ids > 0, 150, 60) + generator.normal(0, 12, _SIZE_HW)
        truth = ids if labels == "labels" else (ids > 0).astype(np.uint8) * 255
        cv2.imwrite(str(folder / "images" / f"{number}.png"), image.clip(0, 255).astype(np.uint8))
        cv2.imwrite(str(folder / labels / f"{number}.png"), truth)
