"""Two ways to compute the same model, compared in tensors and in masks; needs no torch."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seg_export.verification.cases import VerificationCase
from seg_export.verification.tolerances import Tolerance
from seg_runtime.errors import ParityError
from seg_runtime.spec import Parity

__all__ = [
    "Align",
    "Labels",
    "OutputComparison",
    "VerificationError",
    "VerificationReport",
    "compare",
    "require_parity",
    "shown_iou",
]

Tensors = Mapping[str, NDArray[Any]]

Labels = Callable[[Tensors], NDArray[np.uint8]]
"""From a model's outputs to the masks they lead to, as uint8 class ids of any shape."""

Align = Callable[[Tensors, Tensors, float], tuple[Tensors, Tensors]]
"""Brings reference and outputs, whose scores may differ by so much, into one order where they are lists."""

RELATIVE_FLOOR = 1e-6

ROUNDING = 1e-6
"""Where outputs agree to so much of their largest value, to a few steps of float32, what a mask differs in
are ties: pixels of which two classes are equally likely. Networks that were never trained have them, and one
pixel is more than a small picture's mask may lose."""
"""Relative differences are taken of values no smaller than this."""


@dataclass(frozen=True)
class OutputComparison:
    """One output of one case, the graph against PyTorch.

    Attributes:
        case: what the inputs were.
        batch: how many at once.
        output: name of the output.
        max_abs: largest absolute difference; infinite when either side is not finite.
        max_rel: largest difference relative to PyTorch's value, or to 1e-6 where that is smaller.
        tolerance_needed: the smallest atol, beside the table's rtol, with which it would pass; in
            units of PyTorch's largest value where that is above 1, as that of logits is.
        mask_iou: intersection over union of the masks, the lowest of all classes.
        passed: within the tolerance.
    """

    case: str
    batch: int
    output: str
    max_abs: float
    max_rel: float
    tolerance_needed: float
    mask_iou: float
    passed: bool


@dataclass(frozen=True)
class VerificationReport:
    """Every comparison of one verification.

    Attributes:
        model: name of the model.
        precision: row of the tolerance table that was applied.
        tolerance: that row.
        comparisons: in the order they were made.
        subject: what was compared, for people.
        reference: with what.
        note: what to know about the comparison; "" for nothing.
    """

    model: str
    precision: str
    tolerance: Tolerance
    comparisons: tuple[OutputComparison, ...]
    subject: str = "graph"
    reference: str = "PyTorch"
    note: str = ""

    @property
    def passed(self) -> bool:
        return all(comparison.passed for comparison in self.comparisons)

    @property
    def worst(self) -> OutputComparison:
        """The comparison that is furthest from passing."""
        return max(
            self.comparisons, key=lambda item: (not item.passed, item.tolerance_needed, -item.mask_iou)
        )

    def parity(self) -> Parity:
        """Bounds over all comparisons, rounded so that machines agree on them."""
        return Parity(
            max_abs=_power_of_ten_above(max(item.max_abs for item in self.comparisons)),
            max_rel=_power_of_ten_above(max(item.max_rel for item in self.comparisons)),
            mask_iou=float(shown_iou(min(item.mask_iou for item in self.comparisons))),
        )

    def as_dict(self) -> dict[str, Any]:
        """For JSON: numbers that are not finite become null."""
        rows = [
            {key: _finite_or_none(value) for key, value in asdict(item).items()} for item in self.comparisons
        ]
        return {
            "model": self.model,
            "precision": self.precision,
            "tolerance": asdict(self.tolerance),
            "passed": self.passed,
            "comparisons": rows,
            "note": self.note,
        }


class VerificationError(ParityError):
    """A graph over tolerance; `report` has all figures."""

    def __init__(self, report: VerificationReport) -> None:
        self.report = report
        worst, tolerance = report.worst, report.tolerance
        where = f"output '{worst.output}' of model '{report.model}' ({worst.case}, batch {worst.batch})"
        if not math.isfinite(worst.max_abs):
            super().__init__(
                f"{where} is not finite in the {report.subject} or in {report.reference}: check the "
                "checkpoint's weights"
            )
            return
        masks = f"mask IoU {shown_iou(worst.mask_iou)}, wanted {tolerance.mask_iou}"
        if worst.tolerance_needed <= tolerance.atol:
            super().__init__(
                f"masks of {where} differ from {report.reference} in {report.precision}: {masks}"
            )
            return
        super().__init__(
            f"{where} strays from {report.reference}: it needs a tolerance of {worst.tolerance_needed:.1e} "
            f"and {report.precision} allows {tolerance.atol:.0e}; {masks}"
        )


def shown_iou(value: float) -> str:
    """Rounded down to four places, so that what is below a limit never reads as the limit."""
    return f"{math.floor(value * 1e4) / 1e4:.4f}"


def require_parity(report: VerificationReport) -> None:
    """Raise VerificationError, a ParityError, unless everything is within tolerance."""
    if not report.passed:
        raise VerificationError(report)


def compare(
    case: VerificationCase,
    reference: Tensors,
    outputs: Tensors,
    labels: Labels,
    tolerance: Tolerance,
) -> list[OutputComparison]:
    """Compare all outputs of one call.

    Args:
        case: what was run.
        reference: what the outputs should be.
        outputs: what they are.
        labels: the masks that outputs lead to.
        tolerance: how far they may be apart.

    Raises:
        ParityError: an output has another shape.
    """
    _check_shapes(reference, outputs)
    rows = [_compare(case, name, reference[name], outputs[name], tolerance) for name in reference]
    mask_iou = _mask_iou(labels(reference), labels(outputs))
    masks_pass = mask_iou >= tolerance.mask_iou or _differ_by_rounding(reference, outputs)
    return [replace(row, mask_iou=mask_iou, passed=row.passed and masks_pass) for row in rows]


def _check_shapes(reference: Tensors, outputs: Tensors) -> None:
    for name, expected in reference.items():
        if outputs[name].shape != expected.shape:
            raise ParityError(
                f"output '{name}' has shape {outputs[name].shape} and should have {expected.shape}"
            )


def _compare(
    case: VerificationCase, name: str, reference: NDArray[Any], output: NDArray[Any], tolerance: Tolerance
) -> OutputComparison:
    """One output by its values alone."""
    if not (np.isfinite(reference).all() and np.isfinite(output).all()):
        return OutputComparison(case.name, case.batch, name, math.inf, math.inf, math.inf, 0.0, False)
    magnitude = np.abs(reference.astype(np.float64))
    difference = np.abs(output.astype(np.float64) - reference)
    needed = max(float((difference - tolerance.rtol * magnitude).max()), 0.0) / _scale(reference)
    return OutputComparison(
        case=case.name,
        batch=case.batch,
        output=name,
        max_abs=float(difference.max()),
        max_rel=float((difference / np.maximum(magnitude, RELATIVE_FLOOR)).max()),
        tolerance_needed=needed,
        mask_iou=0.0,
        passed=needed <= tolerance.atol,
    )


def _differ_by_rounding(reference: Tensors, outputs: Tensors) -> bool:
    """Whether every output is what it should be but for `ROUNDING`."""
    return all(
        np.allclose(outputs[name], wanted, rtol=0, atol=ROUNDING * _scale(wanted))
        for name, wanted in reference.items()
    )


def _scale(values: NDArray[Any]) -> float:
    """The largest value, or 1 where that is smaller: see `Tolerance`."""
    return max(float(np.abs(values.astype(np.float64)).max(initial=0.0)), 1.0)


def _mask_iou(reference: NDArray[np.uint8], labels: NDArray[np.uint8]) -> float:
    """Intersection over union per class id present in either, the lowest of all."""
    lowest = 1.0
    for label in np.union1d(reference, labels):
        first, second = reference == label, labels == label
        lowest = min(lowest, np.count_nonzero(first & second) / np.count_nonzero(first | second))
    return lowest


def _power_of_ten_above(value: float) -> float:
    """The smallest power of ten that is not below a value; 0 stays 0."""
    return float(f"1e{math.ceil(math.log10(value))}") if value > 0 else 0.0


def _finite_or_none(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
