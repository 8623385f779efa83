"""One ground truth out of the masks of several annotators."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seg_runtime.errors import MissingExtraError

__all__ = ["CONSENSUS", "check_staple", "majority", "soft_majority", "staple", "union"]

Mask = NDArray[np.bool_]


def union(masks: Sequence[Mask]) -> Mask:
    """(H, W) bool: what any mask holds."""
    return np.asarray(np.any(masks, axis=0))


def majority(masks: Sequence[Mask]) -> Mask:
    """(H, W) bool: what more than half of the annotators marked; of two, what both did."""
    return np.asarray(2 * np.sum(masks, axis=0) > len(masks))


def soft_majority(masks: Sequence[Mask], weights: Sequence[float]) -> tuple[Mask, NDArray[np.uint8]]:
    """The weighted majority, and how sure of it the annotators are.

    Soft majority voting (Sheng, "Simple multiple noisy label utilization strategies", ICDM 2011): a network
    learns what most say, and each pixel weighs as much as they agree. Of a weighted mean p the weight is
    |2 p - 1|: that of the majority's cross entropy in -p log q - (1 - p) log(1 - q), the cross entropy with p
    as a soft label, next to a part that sees no difference between foreground and background.

    Args:
        masks: (H, W) of each annotator.
        weights: of each annotator, not negative and not all 0.

    Returns:
        (H, W) bool, what has a weighted mean above one half, and (H, W) uint8, 0 for a tie and 255 where all
        agree.

    Example:
        >>> masks = [np.array([[True, True]]), np.array([[True, False]])]
        >>> [each.tolist() for each in soft_majority(masks, (3, 1))]
        [[[True, True]], [[255, 128]]]
    """
    share = np.average(np.stack(masks), axis=0, weights=np.asarray(weights))
    return share > 0.5, np.rint(255 * np.abs(2 * share - 1)).astype(np.uint8)


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
