"""Images with masks of several annotators: `images/NAME.png` and `masks/ANNOTATOR/NAME.png`."""

from __future__ import annotations

from pathlib import Path

from seg_bench.data.consensus import CONSENSUS, check_staple
from seg_bench.data.samples import Sample, image_files, mask_of
from seg_runtime.errors import BadInputError
from seg_runtime.files.listing import image_stem

__all__ = ["annotated_samples", "annotators"]


def annotators(root: Path) -> tuple[str, ...]:
    """Names of the folders with PNG files under `masks/`, sorted; none in other layouts."""
    folders = sorted(path for path in (root / "masks").glob("*/") if path.is_dir())
    return tuple(folder.name for folder in folders if any(folder.glob("*.png")))


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
    names = annotators(root)
    if not names:
        raise BadInputError(
            f"--truth {truth} needs masks of annotators and {root} has none: "
            "expected masks/ANNOTATOR/NAME.png"
        )
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


def _mask(root: Path, annotator: str, image: Path) -> Path:
    path = mask_of(image, root / "masks" / annotator)
    if path is None:
        expected = root / "masks" / annotator / f"{image_stem(image)}.png"
        raise BadInputError(f"annotator '{annotator}' has no mask of {image.name}: expected {expected}")
    return path
