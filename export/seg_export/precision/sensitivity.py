"""How much each layer loses by computing in int8, all of them measured in one run."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import onnx
from onnx import helper

from seg_export.graph_runner import GraphRunner, Tensors
from seg_export.precision.int8 import layers
from seg_export.precision.probe import probed

__all__ = ["layer_errors"]

_ERROR = "_error"


def layer_errors(
    graph: onnx.ModelProto, quantised: onnx.ModelProto, inputs: Iterable[Tensors]
) -> dict[str, float]:
    """The error of each layer alone: its values in fp32 come in, its weights and they are rounded.

    Args:
        graph: in fp32, its weights inside it.
        quantised: the same with all layers in int8.
        inputs: one mapping per run.

    Returns:
        By name of the layer, the largest over all runs of the error's mean square over that of the result.

    Raises:
        ParityError: the graph cannot be run.
    """
    maker = {name: node for node in quantised.graph.node for name in node.output}
    in_int8 = {node.name: node for node in quantised.graph.node}
    probes = {node.output[0]: _error_of(in_int8[node.name], node.output[0], maker) for node in layers(graph)}
    known = {tensor.name for tensor in graph.graph.initializer}
    weights = [tensor for tensor in quantised.graph.initializer if tensor.name not in known]
    run = GraphRunner(probed(graph, probes, weights), "the graph beside its layers in int8", in_order=True)
    errors = {node.name: 0.0 for node in layers(graph)}
    for case in inputs:
        found = run(case)
        for node in layers(graph):
            # 0 / 0 is a layer that gives zeros only.
            error = float(np.nan_to_num(found[node.output[0] + _ERROR], nan=0.0, posinf=np.inf))
            errors[node.name] = max(errors[node.name], error)
    return errors


def _error_of(layer: onnx.NodeProto, expected: str, maker: dict[str, onnx.NodeProto]) -> list[onnx.NodeProto]:
    """A layer in int8 with the pairs that lead to it, and its error."""
    nodes: list[onnx.NodeProto] = []
    alone = onnx.NodeProto()
    alone.CopyFrom(layer)
    alone.name = ""
    alone.output[0] = f"{expected}_int8"
    for index, source in enumerate(layer.input):
        value, pair = source, list[onnx.NodeProto]()
        while value in maker and maker[value].op_type in ("QuantizeLinear", "DequantizeLinear"):
            pair.insert(0, maker[value])
            value = maker[value].input[0]
        for step in pair:
            copy = onnx.NodeProto()
            copy.CopyFrom(step)
            copy.name = ""
            copy.input[0] = value
            value = copy.output[0] = f"{expected}_{index}_{step.op_type}"
            nodes.append(copy)
        alone.input[index] = value
    less, squares, size = (f"{expected}_{what}" for what in ("less", "squares", "size"))
    return [
        *nodes,
        alone,
        helper.make_node("Sub", [expected, alone.output[0]], [less]),
        helper.make_node("ReduceSumSquare", [less], [squares], keepdims=0),
        helper.make_node("ReduceSumSquare", [expected], [size], keepdims=0),
        helper.make_node("Div", [squares, size], [expected + _ERROR]),
    ]
