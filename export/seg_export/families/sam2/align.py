"""SAM2's choice of the single mask, compared where rounding decides it; needs no torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["align_single_masks"]

Tensors = Mapping[str, NDArray[Any]]

STABLE, DELTA = 0.98, 0.05
"""A single mask whose area changes by more than this share between two thresholds gives way to another."""


def align_single_masks(reference: Tensors, outputs: Tensors, tolerance: float) -> tuple[Tensors, Tensors]:
    """Give both sides the same choice of the single mask where the figures that decide it tie.

    sam2 replaces a single mask that is not stable by the one of the other three that it thinks best. Where
    two of them are as good, or the single mask is just about stable, both choices are right, and masks of
    another choice have nothing to do with one another. A choice that differs without a tie stays, and fails.

    Args:
        reference: outputs of a mask decoder, as they should be.
        outputs: as they are.
        tolerance: how far scores of both may be apart.
    """
    wanted, given = ({name: array.copy() for name, array in side.items()} for side in (reference, outputs))
    for row in range(len(wanted["iou_predictions"])):
        first, second = _choice(wanted, row), _choice(given, row)
        if first == second:
            continue
        if first and second:
            quality = wanted["iou_predictions"][row]
            if abs(quality[first] - quality[second]) <= tolerance:
                _choose(wanted, row, second)
        elif _nearly_stable(given if first else wanted, row, tolerance):
            _choose(given if first else wanted, row, first or second)
    return wanted, given


def _choice(outputs: Tensors, row: int) -> int:
    """Which of the four masks stands in the place of the first; 0 for the single mask itself."""
    masks = outputs["low_res_masks"][row]
    return next((index for index in (1, 2, 3) if np.array_equal(masks[0], masks[index])), 0)


def _choose(outputs: Tensors, row: int, index: int) -> None:
    for name in ("low_res_masks", "iou_predictions"):
        outputs[name][row, 0] = outputs[name][row, index]


def _nearly_stable(outputs: Tensors, row: int, tolerance: float) -> bool:
    """Whether logits that are off by so much could make a single mask just not stable enough."""
    logits = outputs["low_res_masks"][row, 0]
    margin = tolerance * max(1.0, float(np.abs(logits).max()))
    inner, outer = (np.count_nonzero(logits > bound) for bound in (DELTA + margin, -DELTA - margin))
    return inner < STABLE * outer
