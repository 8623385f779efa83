"""Proves that a graph computes what its PyTorch model computes, in tensors and in masks."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from seg_export.allocator import memory_kept
from seg_export.cases import VerificationCase
from seg_export.graph_runner import GraphRunner, Tensors
from seg_export.precision.half import rounded
from seg_export.tolerances import TOLERANCES, Tolerance, tolerance_row
from seg_export.traceable import TraceableModel
from seg_runtime.errors import ParityError
from seg_runtime.spec import ModelSpec, Parity

__all__ = [
    "OutputComparison",
    "VerificationError",
    "VerificationReport",
    "compare",
    "mask_iou",
    "require_parity",
    "verify",
]

RELATIVE_FLOOR = 1e-6
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
    """

    model: str
    precision: str
    tolerance: Tolerance
    comparisons: tuple[OutputComparison, ...]

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
            mask_iou=math.floor(min(item.mask_iou for item in self.comparisons) * 1e4) / 1e4,
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
        }


class VerificationError(ParityError):
    """A graph over tolerance; `report` has all figures."""

    def __init__(self, report: VerificationReport) -> None:
        self.report = report
        worst, tolerance = report.worst, report.tolerance
        where = f"output '{worst.output}' of model '{report.model}' ({worst.case}, batch {worst.batch})"
        if not math.isfinite(worst.max_abs):
            super().__init__(
                f"{where} is not finite in the graph or in PyTorch: check the checkpoint's weights"
            )
            return
        super().__init__(
            f"{where} strays from PyTorch: it needs a tolerance of {worst.tolerance_needed:.1e} and "
            f"{report.precision} allows {tolerance.atol:.0e}; mask IoU {worst.mask_iou:.4f}, "
            f"wanted {tolerance.mask_iou}"
        )


def verify(model: TraceableModel, graph_path: Path, cases: Iterable[VerificationCase]) -> VerificationReport:
    """Run PyTorch and a graph on the same inputs and compare all outputs.

    Args:
        model: the loaded PyTorch model and its contract.
        graph_path: the ONNX graph; it runs in ONNX Runtime on the CPU. Half precision in it is rounded
            after every operator, which ONNX Runtime's own CPU kernels do not do.
        cases: what to run.

    Raises:
        ParityError: ONNX Runtime cannot load or run the graph.
        MissingExtraError: ONNX Runtime is not installed.
    """
    row = tolerance_row(model.spec)
    tolerance = TOLERANCES[row]
    # One after the other: both at work in one process would need twice the memory.
    with memory_kept():
        references = [(case, _run_torch(model, case.inputs)) for case in cases]
    run_graph = _graph_runner(graph_path, model.spec)
    comparisons: list[OutputComparison] = []
    for case, reference in references:
        outputs = run_graph(case.inputs)
        _check_shapes(reference, outputs)
        iou = mask_iou(model.labels(reference), model.labels(outputs))
        comparisons += [
            compare(case, name, reference[name], outputs[name], mask_iou=iou, tolerance=tolerance)
            for name in reference
        ]
    return VerificationReport(model.spec.name, row, tolerance, tuple(comparisons))


def require_parity(report: VerificationReport) -> None:
    """Raise VerificationError, a ParityError, unless everything is within tolerance."""
    if not report.passed:
        raise VerificationError(report)


def _run_torch(model: TraceableModel, inputs: Tensors) -> dict[str, NDArray[Any]]:
    tensors = [torch.from_numpy(inputs[tensor.name]) for tensor in model.spec.inputs]
    with torch.inference_mode():
        result = (model.reference or model.module)(*tensors)
    outputs = (result,) if isinstance(result, torch.Tensor) else result
    names = (tensor.name for tensor in model.spec.outputs)
    return {name: output.numpy() for name, output in zip(names, outputs, strict=True)}


def _graph_runner(path: Path, spec: ModelSpec) -> GraphRunner:
    """The graph as it is; with half precision in it, as a GPU computes it."""
    what = f"the graph of model '{spec.name}'"
    run = GraphRunner(path, what)
    if spec.precision != "fp16":
        return run
    import onnx

    del run
    return GraphRunner(rounded(onnx.load(path, load_external_data=False)), what, path.parent)


def _check_shapes(reference: Tensors, outputs: Tensors) -> None:
    for name, expected in reference.items():
        if outputs[name].shape != expected.shape:
            raise ParityError(
                f"output '{name}' has shape {outputs[name].shape} in the graph "
                f"and {expected.shape} in PyTorch"
            )


def compare(
    case: VerificationCase,
    name: str,
    reference: NDArray[Any],
    output: NDArray[Any],
    *,
    mask_iou: float,
    tolerance: Tolerance,
) -> OutputComparison:
    """Compare one output with PyTorch's of the same shape; `mask_iou` is that of the masks it leads to."""
    if not (np.isfinite(reference).all() and np.isfinite(output).all()):
        return OutputComparison(case.name, case.batch, name, math.inf, math.inf, math.inf, mask_iou, False)
    magnitude = np.abs(reference.astype(np.float64))
    difference = np.abs(output.astype(np.float64) - reference)
    scale = max(float(magnitude.max()), 1.0)
    needed = max(float((difference - tolerance.rtol * magnitude).max()), 0.0) / scale
    return OutputComparison(
        case=case.name,
        batch=case.batch,
        output=name,
        max_abs=float(difference.max()),
        max_rel=float((difference / np.maximum(magnitude, RELATIVE_FLOOR)).max()),
        tolerance_needed=needed,
        mask_iou=mask_iou,
        passed=needed <= tolerance.atol and mask_iou >= tolerance.mask_iou,
    )


def mask_iou(reference: NDArray[np.uint8], labels: NDArray[np.uint8]) -> float:
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
