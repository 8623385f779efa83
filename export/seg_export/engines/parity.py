"""Proves that an engine computes what the graph computes that it was built from; needs no torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

from numpy.typing import NDArray

from seg_export.families import family_named
from seg_export.families.family import Partner
from seg_export.verification.comparison import OutputComparison, Tensors, VerificationReport, compare
from seg_export.verification.graph_runner import GraphRunner
from seg_export.verification.tolerances import TOLERANCES
from seg_runtime.spec import ModelSpec

__all__ = ["EngineRunner", "engine_parity"]


class EngineRunner(Protocol):
    """An engine on its device."""

    def run(self, inputs: Tensors) -> dict[str, NDArray[Any]]:
        """Run once: arrays by name, batch axis first, in and out. Raises InferenceError."""


def engine_parity(
    spec: ModelSpec, graph: Path, engine: EngineRunner, partner: Partner | None = None
) -> VerificationReport:
    """Run an engine and its graph on the same seeded inputs and compare all outputs.

    Args:
        spec: the contract of both.
        graph: `model.onnx`; it runs in ONNX Runtime on the CPU.
        engine: runs the engine.
        partner: the other half of a SAM: an encoder's embeddings are judged by the masks that its decoder
            makes of them, and a decoder gets an embedding that its encoder made.

    Raises:
        ParityError: the graph cannot be run, or shapes differ.
        CheckpointError: a family that this version does not know.
        InferenceError: the engine cannot be run.
        MissingExtraError: ONNX Runtime is not installed.
    """
    run_graph = GraphRunner(graph, f"the graph of model '{spec.name}'")
    row = "fp32, TF32" if spec.precision == "fp32" else spec.precision
    check, tolerance = family_named(spec.family).engine_check(spec, partner), TOLERANCES[row]
    comparisons: list[OutputComparison] = []
    for case in check.cases:
        wanted: Tensors = run_graph(case.inputs)
        outputs: Tensors = engine.run(case.inputs)
        if check.align is not None:
            wanted, outputs = check.align(wanted, outputs, tolerance.atol)
        comparisons += compare(case, wanted, outputs, check.labels, tolerance)
    return VerificationReport(
        spec.name, row, tolerance, tuple(comparisons), subject="engine", reference="its graph"
    )
