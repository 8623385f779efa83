"""Proves that a graph computes what its PyTorch model computes, in tensors and in masks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
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
from seg_export.tolerances import TOLERANCES, tolerance_row
from seg_export.traceable import TraceableModel
from seg_runtime.errors import MissingExtraError, ParityError
from seg_runtime.spec import ModelSpec

__all__ = ["OutputComparison", "VerificationError", "VerificationReport", "require_parity", "verify"]

Tensors = Mapping[str, NDArray[Any]]


def verify(model: TraceableModel, graph_path: Path, cases: Iterable[VerificationCase]) -> VerificationReport:
    """Run PyTorch and a graph on the same inputs and compare all outputs.

    Args:
        model: the loaded PyTorch model and its contract.
        graph_path: the ONNX graph; it runs in ONNX Runtime on the CPU.
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
        comparisons += compare(case, reference, run_graph(case.inputs), model.labels, tolerance)
    return VerificationReport(model.spec.name, row, tolerance, tuple(comparisons))


def _run_torch(model: TraceableModel, inputs: Tensors) -> dict[str, NDArray[Any]]:
    tensors = [torch.from_numpy(inputs[tensor.name]) for tensor in model.spec.inputs]
    with torch.inference_mode():
        result = (model.reference or model.module)(*tensors)
    outputs = (result,) if isinstance(result, torch.Tensor) else result
    names = (tensor.name for tensor in model.spec.outputs)
    return {name: output.numpy() for name, output in zip(names, outputs, strict=True)}


def _graph_runner(path: Path, spec: ModelSpec) -> Callable[[Tensors], dict[str, NDArray[Any]]]:
    try:
        import onnxruntime as ort
        from onnxruntime.capi import onnxruntime_pybind11_state as state
    except ImportError as error:
        raise MissingExtraError("ONNX Runtime", "export") from error
    failures = (
        state.Fail,
        state.InvalidArgument,
        state.InvalidGraph,
        state.InvalidProtobuf,
        state.NoSuchFile,
        state.NotImplemented,
        state.RuntimeException,
    )
    names = [tensor.name for tensor in spec.outputs]
    dtypes = {tensor.name: tensor.numpy_dtype for tensor in spec.inputs}
    options = ort.SessionOptions()
    options.log_severity_level = 3
    try:
        session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except failures as error:
        raise ParityError(f"ONNX Runtime cannot load the graph of model '{spec.name}': {error}") from error

    def run(inputs: Tensors) -> dict[str, NDArray[Any]]:
        try:
            # PyTorch gets an embedding as it was made, the graph as it travels.
            feed = {name: array.astype(dtypes[name], copy=False) for name, array in inputs.items()}
            return dict(zip(names, session.run(names, feed), strict=True))
        except (*failures, ValueError) as error:
            raise ParityError(f"ONNX Runtime cannot run the graph of model '{spec.name}': {error}") from error

    return run
