"""Proves that a graph computes what its model computes, in tensors and in masks."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seg_export.precision.half import rounded
from seg_export.tracing.exportable import ExportableModel
from seg_export.verification.allocator import memory_kept
from seg_export.verification.cases import VerificationCase
from seg_export.verification.comparison import (
    OutputComparison,
    VerificationError,
    VerificationReport,
    compare,
    require_parity,
)
from seg_export.verification.graph_runner import GraphRunner, Tensors
from seg_export.verification.tolerances import TOLERANCES, tolerance_row, with_rounding
from seg_runtime.engines import check_engine, load_model
from seg_runtime.spec import ModelSpec

__all__ = ["OutputComparison", "VerificationError", "VerificationReport", "require_parity", "verify"]

Run = Callable[[Tensors], dict[str, NDArray[Any]]]


def verify(
    model: ExportableModel,
    graph_path: Path,
    cases: Iterable[VerificationCase],
    *,
    engine: str | None = None,
) -> VerificationReport:
    """Run a model and a graph on the same inputs and compare all outputs.

    Args:
        model: what the graph is compared with, and the contract of both.
        graph_path: the ONNX graph; it runs in ONNX Runtime on the CPU. Half precision in it is rounded
            after every operator, which ONNX Runtime's own CPU kernels do not do.
        cases: what to run.
        engine: one of `seg_runtime.engines.ENGINES`, which runs what lies in the graph's folder in the place
            of the graph; batches larger than the contract allows are left out then.

    Raises:
        ParityError: ONNX Runtime cannot load or run the graph.
        MissingExtraError: ONNX Runtime, or the engine, is not installed.
        EdgesegError: the engine does not exist, or cannot run the model; as `seg_runtime.engines.load_model`.
    """
    row, subject = tolerance_row(model.spec, model.tolerance), "graph"
    if engine is not None:
        run_engine, subject = _engine_runner(engine, model.spec, graph_path.parent)
        cases = [case for case in cases if case.batch <= (model.spec.max_batch_size or case.batch)]
        # A GPU multiplies fp32 as TF32.
        row = row if row != "fp32" or subject.endswith(", CPU") else "fp32, TF32"
    tolerance = TOLERANCES[row]
    if model.spec.precision == "fp32":
        tolerance = with_rounding(tolerance, model.rounding)
    # One after the other: both at work in one process would need twice the memory.
    with memory_kept():
        references = [(case, model.run_reference(case.inputs)) for case in cases]
    run_graph = _graph_runner(graph_path, model.spec) if engine is None else run_engine
    comparisons: list[OutputComparison] = []
    wanted: Tensors
    outputs: Tensors
    for case, reference in references:
        wanted, outputs = reference, run_graph(case.inputs)
        if model.align is not None:
            wanted, outputs = model.align(reference, outputs, tolerance.atol)
        comparisons += compare(case, wanted, outputs, model.labels, tolerance)
    return VerificationReport(
        model.spec.name, row, tolerance, tuple(comparisons), subject=subject, reference=model.reference_name
    )


def _engine_runner(engine: str, spec: ModelSpec, folder: Path) -> tuple[Run, str]:
    """An engine with the version in a folder, and what it says of itself."""
    check_engine(engine)
    loaded = load_model(engine, spec, folder, None)
    dtypes = {tensor.name: tensor.numpy_dtype for tensor in spec.inputs}

    def run(inputs: Tensors) -> dict[str, NDArray[Any]]:
        return loaded.run({name: np.ascontiguousarray(array, dtypes[name]) for name, array in inputs.items()})

    return run, loaded.about


def _graph_runner(path: Path, spec: ModelSpec) -> GraphRunner:
    """The graph as it is; with half precision in it, as a GPU computes it."""
    what = f"the graph of model '{spec.name}'"
    run = GraphRunner(path, what)
    if spec.precision != "fp16":
        return run
    import onnx

    del run
    return GraphRunner(rounded(onnx.load(path, load_external_data=False)), what, path.parent)
