"""Proves that a graph computes what its PyTorch model computes, in tensors and in masks."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray

from seg_export.allocator import memory_kept
from seg_export.cases import VerificationCase
from seg_export.comparison import (
    OutputComparison,
    VerificationError,
    VerificationReport,
    compare,
    require_parity,
)
from seg_export.graph_runner import GraphRunner, Tensors
from seg_export.precision.half import rounded
from seg_export.tolerances import TOLERANCES, tolerance_row
from seg_export.traceable import TraceableModel
from seg_runtime.spec import ModelSpec

__all__ = ["OutputComparison", "VerificationError", "VerificationReport", "require_parity", "verify"]


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
    wanted: Tensors
    outputs: Tensors
    for case, reference in references:
        wanted, outputs = reference, run_graph(case.inputs)
        if model.align is not None:
            wanted, outputs = model.align(reference, outputs, tolerance.atol)
        comparisons += compare(case, wanted, outputs, model.labels, tolerance)
    return VerificationReport(model.spec.name, row, tolerance, tuple(comparisons))


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
