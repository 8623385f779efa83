"""Images with masks of several annotators: `images/NAME.png` and `masks/ANNOTATOR/NAME.png`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

from seg_bench.data.consensus import CONSENSUS, check_staple
from seg_bench.data.samples import Sample, image_files, mask_of
from seg_runtime.errors import BadInputError
from seg_runtime.files.listing import has_image_suffix, image_stem

__all__ = ["annotated_samples", "annotators", "weighted_samples"]


def annotators(root: Path) -> tuple[str, ...]:
    """Names of the folders with images under `masks/`, sorted; none in other layouts."""
    folders = sorted(path for path in (root / "masks").glob("*/") if path.is_dir())
    return tuple(folder.name for folder in folders if any(map(has_image_suffix, folder.iterdir())))


def annotated_samples(root: Path, truth: str) -> tuple[Sample, ...]:
    """The images with the ground truth that is asked for, sorted by name.

    Args:
        root: folder with `images/` and `masks/`.
        truth: a key of `CONSENSUS`, or an annotator.

    Raises:
        BadInputError: there are no annotators or not this one, too few for a consensus, or one has no mask
            of an image.
        MissingExtraError: STAPLE without SimpleITK.
    """
    names = _annotators(root, f"--truth {truth}")
    if truth not in (*CONSENSUS, *names):
        raise BadInputError(f"--truth is '{truth}'; choose from {', '.join((*CONSENSUS, *names))}")
    if truth in CONSENSUS and len(names) < 2:
        raise BadInputError(f"--truth {truth} needs two annotators or more, and {root} has {names[0]} only")
    if truth == "staple":
        check_staple()
    chosen = names if truth in CONSENSUS else (truth,)
    consensus = truth if truth in CONSENSUS else "union"
    return tuple(
        Sample(image_stem(image), image, tuple(_mask(root, name, image) for name in chosen), consensus)
        for image in image_files(root)
    )


def weighted_samples(root: Path, weights: Mapping[str, float]) -> tuple[Sample, ...]:
    """The images with the weighted majority of the annotators as ground truth, sorted by name.

    Args:
        root: folder with `images/` and `masks/`.
        weights: of each annotator; masks of those with 0 are not read.

    Raises:
        BadInputError: there are no annotators, the weights name others, are negative or all 0, or one has no
            mask of an image.
    """
    names = _annotators(root, "--annotator-weights")
    if set(weights) != set(names):
        raise BadInputError(
            f"--annotator-weights name {', '.join(weights)}, and {root / 'masks'} has {', '.join(names)}: "
            "give a weight to each, 0 to leave one out"
        )
    if not all(0 <= weight < math.inf for weight in weights.values()) or not any(weights.values()):
        given = ", ".join(f"{name}={weight:g}" for name, weight in weights.items())
        raise BadInputError(f"--annotator-weights are {given}: give numbers of at least 0, and one above it")
    chosen = {name: weight for name, weight in weights.items() if weight}
    return tuple(
        Sample(
            image_stem(image),
            image,
            tuple(_mask(root, name, image) for name in chosen),
            weights=tuple(chosen.values()),
        )
        for image in image_files(root)
    )


def _annotators(root: Path, option: str) -> tuple[str, ...]:
    """Their names, for an option that needs some."""
    if names := annotators(root):
        return names
    raise BadInputError(
        f"{option} needs masks of annotators and {root} has none: expected masks/ANNOTATOR/NAME.png"
    )


def _mask(root: Path, annotator: str, image: Path) -> Path:
    path = mask_of(image, root / "masks" / annotator)
    if path is None:
        expected = root / "masks" / annotator / f"{image_stem(image)}.png"
        raise BadInputError(f"annotator '{annotator}' has no mask of {image.name}: expected {expected}")
    return path
