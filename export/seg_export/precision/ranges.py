"""How large the values of a graph become, without holding more than one of them at a time."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from seg_export.precision.half import element_types
from seg_export.precision.probe import probed
from seg_export.verification.graph_runner import GraphRunner, Tensors

__all__ = ["largest_values"]

_MAGNITUDE = "_magnitude"
_LARGEST = "_largest"


def largest_values(
    graph: onnx.ModelProto, inputs: Iterable[Tensors], folder: Path | None = None
) -> dict[str, float]:
    """The largest magnitude that each value in fp32 reaches over some inputs.

    The graph itself reduces each value to one number.

    Args:
        graph: in fp32; is not changed.
        inputs: one mapping per run.
        folder: where its external weights lie, if it has some.

    Returns:
        By name, weights included; NaN counts as infinite.

    Raises:
        ParityError: the graph cannot be run.
    """
    types = element_types(graph)
    values = (*(value.name for value in graph.graph.input), *(o for n in graph.graph.node for o in n.output))
    names = [name for name in values if types.get(name) == TensorProto.FLOAT]
    probe = probed(graph, {name: _largest_of(name) for name in names})
    run = GraphRunner(probe, "the graph", folder, in_order=True)
    largest = {
        tensor.name: float(np.abs(numpy_helper.to_array(tensor, str(folder or ""))).max(initial=0))
        for tensor in graph.graph.initializer
        if tensor.data_type == TensorProto.FLOAT
    }
    for case in inputs:
        found = run(case)
        for name in names:
            value = float(found[name + _LARGEST])
            largest[name] = max(largest.get(name, 0.0), value if np.isfinite(value) else np.inf)
    return largest


def _largest_of(name: str) -> tuple[onnx.NodeProto, onnx.NodeProto]:
    return (
        helper.make_node("Abs", [name], [name + _MAGNITUDE]),
        helper.make_node("ReduceMax", [name + _MAGNITUDE], [name + _LARGEST], keepdims=0),
    )
