"""How large the values of a graph become, without holding more than one of them at a time."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from seg_export.graph_runner import GraphRunner, Tensors
from seg_export.precision.half import element_types

__all__ = ["largest_values"]

_MAGNITUDE = "_magnitude"
_LARGEST = "_largest"


def largest_values(
    graph: onnx.ModelProto, inputs: Iterable[Tensors], folder: Path | None = None
) -> dict[str, float]:
    """The largest magnitude that each value in fp32 reaches over some inputs.

    The graph itself reduces each value to one number, so that a run needs hardly more memory than one
    without looking.

    Args:
        graph: in fp32; is not changed.
        inputs: one mapping per run.
        folder: where its external weights lie, if it has some.

    Returns:
        By name, weights included; NaN counts as infinite.

    Raises:
        ParityError: the graph cannot be run.
    """
    probe, names = _with_largest(graph)
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


def _with_largest(graph: onnx.ModelProto) -> tuple[onnx.ModelProto, list[str]]:
    """A copy whose only outputs are the largest magnitudes of all values in fp32, and their names."""
    probe = onnx.ModelProto()
    probe.CopyFrom(graph)
    body, types = probe.graph, element_types(graph)
    made = [name for node in body.node for name in node.output]
    names = [
        name
        for name in (*(value.name for value in body.input), *made)
        if types.get(name) == TensorProto.FLOAT
    ]
    wanted = set(names)
    nodes: list[onnx.NodeProto] = []
    del body.output[:]
    for name in (value.name for value in body.input if value.name in wanted):
        nodes += _largest_of(name)
    for node in body.node:
        nodes.append(node)
        # Right behind its maker, so that a value need not live longer than without looking.
        nodes += [each for name in node.output if name in wanted for each in _largest_of(name)]
    del body.node[:]
    body.node.extend(nodes)
    body.output.extend(
        helper.make_tensor_value_info(name + _LARGEST, TensorProto.FLOAT, []) for name in names
    )
    return probe, names


def _largest_of(name: str) -> tuple[onnx.NodeProto, onnx.NodeProto]:
    return (
        helper.make_node("Abs", [name], [name + _MAGNITUDE]),
        helper.make_node("ReduceMax", [name + _MAGNITUDE], [name + _LARGEST], keepdims=0),
    )
