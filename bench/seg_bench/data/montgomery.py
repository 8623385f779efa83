"""Montgomery County chest X-rays with lung masks (Jaeger et al., 2014; Candemir et al., 2014).

Two layouts are read: the official one, with 12-bit `CXR_png/` at 4020x4892 or 4892x4020 and one
mask per lung under `ManualMask/`, and the merged one, with `images/` and `masks/` of equal size.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from seg_bench.data.samples import Sample, paired_samples
from seg_runtime.errors import BadInputError
from seg_runtime.files.images import write_png
from seg_runtime.preprocess import resize_image

__all__ = ["finding", "load_montgomery", "prepare_merged"]


def load_montgomery(root: Path) -> tuple[Sample, ...]:
    """Find the X-rays of either layout under `root`, sorted by name.

    Args:
        root: folder with `CXR_png/` and `ManualMask/` (also in subfolders, as
            the archive unpacks into `MontgomerySet/`), or with `images/` and `masks/`.

    Raises:
        BadInputError: neither layout is there, or a mask is missing.
    """
    if not root.is_dir():
        raise BadInputError(f"no data folder {root}: get it with  seg-bench data montgomery --out {root}")
    official = next((path.parent for path in _candidates(root) if path.is_dir()), None)
    if official is not None:
        return tuple(_official_sample(official, image) for image in _images(official / "CXR_png"))
    if (root / "images").is_dir():
        return paired_samples(root)
    raise BadInputError(
        f"{root} holds no Montgomery X-rays: expected CXR_png/ and ManualMask/, or images/ and masks/"
    )


def finding(name: str) -> str:
    """Read "normal" or "tuberculosis" off the name's `_0` or `_1` ending.

    Raises:
        BadInputError: the name has another ending.
    """
    findings = {"0": "normal", "1": "tuberculosis"}
    ending = name.rpartition("_")[2]
    if ending not in findings:
        raise BadInputError(f"X-ray name '{name}' ends in neither _0 (normal) nor _1 (tuberculosis)")
    return findings[ending]


def prepare_merged(
    samples: tuple[Sample, ...],
    out: Path,
    size_hw: tuple[int, int] = (512, 512),
    on_step: Callable[[int, int], None] | None = None,
) -> None:
    """Write the merged layout: 8-bit `images/` and 0/255 `masks/`, squashed to `size_hw`.

    Both are resized by area averaging; masks keep their interpolated edges, which the threshold of
    127 cuts at the middle. Existing files are replaced.

    Args:
        on_step: called with (done, total) after each pair.
    """
    for folder in ("images", "masks"):
        (out / folder).mkdir(parents=True, exist_ok=True)
    for done, sample in enumerate(samples, start=1):
        mask = sample.load_mask().astype(np.uint8) * np.uint8(255)
        write_png(out / "images" / f"{sample.name}.png", resize_image(sample.load_image(), size_hw))
        write_png(out / "masks" / f"{sample.name}.png", resize_image(mask, size_hw))
        if on_step:
            on_step(done, len(samples))


def _candidates(root: Path) -> list[Path]:
    found = [root / "CXR_png", *sorted(root.glob("*/CXR_png")), *sorted(root.glob("*/*/CXR_png"))]
    return [folder for folder in found if "__MACOSX" not in folder.parts]


def _images(folder: Path) -> list[Path]:
    # macOS archives carry "._NAME.png" beside each file.
    images = sorted(path for path in folder.glob("*.png") if not path.name.startswith("."))
    if not images:
        raise BadInputError(f"{folder} holds no PNG files: unpack the archive again")
    return images


def _official_sample(root: Path, image: Path) -> Sample:
    masks = tuple(root / "ManualMask" / side / image.name for side in ("leftMask", "rightMask"))
    for mask in masks:
        if not mask.is_file():
            raise BadInputError(f"X-ray {image.name} has no {mask.parent.name}: expected {mask}")
    return Sample(image.stem, image, masks)
