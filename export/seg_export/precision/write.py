"""The step of an export that writes its precision into a graph."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import onnx

from seg_export.cases import VerificationCase
from seg_export.external_weights import write_weights
from seg_export.precision.half import to_half
from seg_export.precision.kept import KEPT, kept_nodes
from seg_export.precision.ranges import largest_values
from seg_export.traceable import TraceableModel

__all__ = ["PrecisionReport", "in_precision"]


@dataclass(frozen=True)
class PrecisionReport:
    """What a graph computes in.

    Attributes:
        precision: "fp32" or "fp16".
        nodes: how many nodes the graph had in fp32.
        kept: names of those that stayed in fp32 against the precision's will, each with the reason.
    """

    precision: str
    nodes: int
    kept: Mapping[str, str] = field(default_factory=dict)

    def summary(self) -> str:
        """One line: how many nodes stayed in fp32, and why."""
        reasons = ", ".join(f"{count} {reason}" for reason, count in Counter(self.kept.values()).items())
        return f"{self.precision}: {len(self.kept)} of {self.nodes} nodes in fp32 ({reasons or 'none'})"


def in_precision(
    graph: onnx.ModelProto, model: TraceableModel, cases: Sequence[VerificationCase], weights_file: Path
) -> tuple[onnx.ModelProto, PrecisionReport]:
    """Write the precision of a model's contract into its graph.

    Args:
        graph: in fp32.
        model: its spec names the precision.
        cases: inputs that show how large values become.
        weights_file: beside the graph to be saved; exists if the graph refers to it, and is written anew.

    Raises:
        ParityError: the graph cannot be run.
        OSError: the disk is full or not writable.
    """
    nodes = len(graph.graph.node)
    if model.spec.precision == "fp32":
        return graph, PrecisionReport("fp32", nodes)
    folder = weights_file.parent
    largest = largest_values(graph, [case.inputs for case in cases], folder)
    kept = kept_nodes(graph, KEPT[model.spec.task], largest)
    graph = to_half(graph, kept, folder)
    if weights_file.exists():
        write_weights(graph, weights_file)
    return graph, PrecisionReport("fp16", nodes, kept)
