"""One ground truth out of the masks of several annotators."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seg_runtime.errors import MissingExtraError

__all__ = ["CONSENSUS", "check_staple", "majority", "staple", "union"]

Mask = NDArray[np.bool_]


def union(masks: Sequence[Mask]) -> Mask:
    """(H, W) bool: what any mask holds."""
    return np.asarray(np.any(masks, axis=0))


def majority(masks: Sequence[Mask]) -> Mask:
    """(H, W) bool: what more than half of the annotators marked; of two, what both did."""
    return np.asarray(2 * np.sum(masks, axis=0) > len(masks))


def staple(masks: Sequence[Mask]) -> Mask:
    """What is foreground with a probability of one half or more by STAPLE.

    Expectation maximisation finds the sensitivity and specificity of each annotator and the probability of
    each pixel together (Warfield, Zou and Wells, "Simultaneous truth and performance level estimation
    (STAPLE)", IEEE Transactions on Medical Imaging 23(7), 2004), as SimpleITK computes it: without
    neighbourhoods, the prior is the mean share of foreground.

    Args:
        masks: (H, W) bool of each annotator, all of one size.

    Returns:
        (H, W) bool.

    Raises:
        MissingExtraError: SimpleITK is not installed.
    """
    simpleitk = _simpleitk()
    # Where nobody disagrees there is nothing to estimate, and nothing to divide by.
    if all(np.array_equal(mask, masks[0]) for mask in masks):
        return masks[0].copy()
    images = [simpleitk.GetImageFromArray(mask.astype(np.uint8)) for mask in masks]
    return np.asarray(simpleitk.GetArrayFromImage(simpleitk.STAPLE(images, 1.0)) >= 0.5)


def check_staple() -> None:
    """Raises MissingExtraError when SimpleITK is not installed."""
    _simpleitk()


def _simpleitk() -> Any:
    try:
        import SimpleITK
    except ImportError as error:
        raise MissingExtraError("SimpleITK", "staple") from error
    return SimpleITK


CONSENSUS: dict[str, Callable[[Sequence[Mask]], Mask]] = {
    "union": union,
    "majority": majority,
    "staple": staple,
}
"""By what `--truth` and `Sample.consensus` call them."""
