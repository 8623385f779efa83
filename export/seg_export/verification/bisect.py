"""Finds why a published graph strays: its first node that leaves a fresh trace, and what fp16 cannot hold."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seg_export.precision.divergence import Divergence, first_divergence, ops_to_keep
from seg_export.precision.half import rounded, to_half
from seg_export.tracing.exportable import ExportableModel
from seg_export.tracing.trace import optimise, trace
from seg_export.verification.cases import VerificationCase
from seg_export.verification.comparison import compare
from seg_export.verification.graph_runner import GraphRunner, Tensors
from seg_export.verification.published import load_published
from seg_export.verification.tolerances import TOLERANCES, tolerance_row, with_rounding
from seg_runtime.errors import BadInputError

if TYPE_CHECKING:
    import onnx

    from seg_export.checkpoints.checkpoint import Checkpoint

__all__ = ["BisectReport", "bisect_published"]


@dataclass(frozen=True)
class BisectReport:
    """Where a graph leaves its checkpoint.

    Attributes:
        model: its name.
        precision: what it computes in.
        first: its first node that strays from the same node of a fresh trace in fp32, or None.
        first_all_half: for fp16, the first node that would stray if no node were kept in fp32.
        ops_to_keep: for fp16, the types of operators that must stay in fp32 for the masks to hold,
            found greedily, most harmful first.
    """

    model: str
    precision: str
    first: Divergence | None
    first_all_half: Divergence | None
    ops_to_keep: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """For JSON: a difference that is not finite becomes null."""
        values = asdict(self)
        for found in (values["first"], values["first_all_half"]):
            if found and not math.isfinite(found["difference"]):
                found["difference"] = None
        return values


def bisect_published(
    repo: Path,
    name: str,
    checkpoint: Checkpoint | Path,
    *,
    images: Path | None = None,
    on_step: Callable[[str], None] | None = None,
) -> BisectReport:
    """Compare the served version of a model with a fresh trace of a checkpoint, node by node.

    Args:
        repo: the model repository.
        name: of the model.
        checkpoint: what it was, or should have been, made of.
        images: a folder of real images to run, instead of synthetic ones.
        on_step: told what is tried.

    Raises:
        BadInputError: a graph whose weights lie beside it; also what `verify_published` raises.
    """
    import onnx

    step = on_step or (lambda what: None)
    model, path, cases = load_published(repo, name, checkpoint, images)
    published = onnx.load(path, load_external_data=False)
    if any(onnx.external_data_helper.uses_external_data(item) for item in published.graph.initializer):
        raise BadInputError(f"model '{name}' has over 1 GB of weights: --bisect takes smaller models only")
    step("trace")
    reference = optimise(trace(replace(model, spec=replace(model.spec, precision="fp32"))), model)
    inputs = [case.inputs for case in cases]
    tolerance = with_rounding(TOLERANCES[tolerance_row(model.spec, model.tolerance)], model.rounding)
    step("compare node by node")
    first = first_divergence(reference, published, inputs, tolerance)
    if model.spec.precision != "fp16":
        return BisectReport(name, model.spec.precision, first, None, ())
    all_half = first_divergence(reference, to_half(reference, ()), inputs, tolerance)
    passes = _distance(model, reference, cases)
    return BisectReport(name, "fp16", first, all_half, ops_to_keep(reference, passes, step))


def _distance(
    model: ExportableModel, reference: onnx.ModelProto, cases: Sequence[VerificationCase]
) -> Callable[[onnx.ModelProto], float]:
    """How far graphs are from passing: the worst of tensors and masks, in units of what is allowed."""
    run = GraphRunner(reference, "the graph in fp32")
    expected = [(case, run(case.inputs)) for case in cases]

    def distance(graph: onnx.ModelProto) -> float:
        run_half = GraphRunner(rounded(graph), "the graph in half precision")
        return max(_worst(model, case, want, run_half(case.inputs)) for case, want in expected)

    return distance


def _worst(model: ExportableModel, case: VerificationCase, want: Tensors, got: Tensors) -> float:
    tolerance = TOLERANCES["fp16"]
    rows = compare(case, want, got, model.labels, tolerance)
    if not all(math.isfinite(row.max_abs) for row in rows):
        return math.inf
    lost = (1 - min(row.mask_iou for row in rows)) / (1 - tolerance.mask_iou)
    return max(lost, *(row.tolerance_needed / tolerance.atol for row in rows))
