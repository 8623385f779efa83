"""The step of an export that writes its precision into a graph."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import onnx

from seg_export.families import family_named
from seg_export.precision.calibration import CalibrationImages, calibrate
from seg_export.precision.half import to_half
from seg_export.precision.kept import KEPT_BY_DEFAULT, kept_nodes
from seg_export.precision.ranges import largest_values
from seg_export.tracing.exportable import ExportableModel
from seg_export.tracing.external_weights import write_weights
from seg_export.verification.cases import VerificationCase
from seg_runtime.errors import BadInputError

__all__ = ["CalibrationReport", "PrecisionReport", "in_precision"]


@dataclass(frozen=True)
class CalibrationReport:
    """How a graph in int8 was found.

    Attributes:
        method: of the ranges, "percentile" or "entropy".
        mask_iou: with fp32, the mean over the images it was judged on.
        images: how many decided the ranges.
        judged_on: how many others it was judged on.
    """

    method: str
    mask_iou: float
    images: int
    judged_on: int


@dataclass(frozen=True)
class PrecisionReport:
    """What a graph computes in.

    Attributes:
        precision: "fp32", "fp16" or "int8".
        nodes: how many nodes could have been in that precision: all of them, or the layers for int8.
        kept: names of those that stayed in fp32 against the precision's will, each with the reason.
        calibration: how int8 was found; None for the other precisions.
    """

    precision: str
    nodes: int
    kept: Mapping[str, str] = field(default_factory=dict)
    calibration: CalibrationReport | None = None

    def summary(self) -> str:
        """What stayed in fp32, and why."""
        if self.calibration:
            return self._calibrated(self.calibration)
        reasons = ", ".join(f"{count} {reason}" for reason, count in Counter(self.kept.values()).items())
        return f"{self.precision}: {len(self.kept)} of {self.nodes} nodes in fp32 ({reasons or 'none'})"

    def _calibrated(self, found: CalibrationReport) -> str:
        lines = [
            f"int8: {self.nodes - len(self.kept)} of {self.nodes} layers, ranges by {found.method} of "
            f"{found.images} images; mask IoU with fp32 {found.mask_iou:.4f} on {found.judged_on} others"
        ]
        return "\n".join([*lines, *(f"  in fp32: {name}, {reason}" for name, reason in self.kept.items())])


def in_precision(
    graph: onnx.ModelProto,
    model: ExportableModel,
    cases: Sequence[VerificationCase],
    weights_file: Path,
    calibration: CalibrationImages | None = None,
    on_step: Callable[[str], None] = lambda what: None,
) -> tuple[onnx.ModelProto, PrecisionReport]:
    """Write the precision of a model's contract into its graph.

    Args:
        graph: in fp32, or in half precision already, which stays.
        model: its spec names the precision.
        cases: inputs that show how large values become.
        weights_file: beside the graph to be saved; exists if the graph refers to it, and is written anew.
        calibration: images for int8.
        on_step: told what is tried for int8.

    Raises:
        BadInputError: int8 for a graph whose weights lie beside it.
        ParityError: the graph cannot be run, or its masks do not hold in int8.
        OSError: the disk is full or not writable.
    """
    nodes, precision = len(graph.graph.node), model.spec.precision
    if model.in_half:
        return graph, PrecisionReport("fp16", nodes)
    if precision == "fp32":
        return graph, PrecisionReport("fp32", nodes)
    if calibration:
        if weights_file.exists():
            raise BadInputError(
                f"model '{model.spec.name}' has over 1 GB of weights: int8 takes smaller models"
            )
        found = calibrate(graph, model, calibration, on_step)
        how = CalibrationReport(found.method, found.mask_iou, *found.images)
        return found.graph, PrecisionReport("int8", found.layers, found.left_out, how)
    folder = weights_file.parent
    largest = largest_values(graph, [case.inputs for case in cases], folder)
    row = family_named(model.spec.family).kept.get(model.spec.task, KEPT_BY_DEFAULT)
    kept = kept_nodes(graph, row, largest)
    graph = to_half(graph, kept, folder)
    if weights_file.exists():
        write_weights(graph, weights_file)
    return graph, PrecisionReport("fp16", nodes, kept)
