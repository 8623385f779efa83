"""How much each layer loses by computing in int8, all of them measured in one run."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import onnx
from onnx import helper, numpy_helper

from seg_export.precision.int8 import layers
from seg_export.precision.probe import probed
from seg_export.verification.graph_runner import GraphRunner, Tensors

__all__ = ["layer_errors"]

_ERROR = "_error"
_PAIR = ("QuantizeLinear", "DequantizeLinear")


def layer_errors(
    graph: onnx.ModelProto, quantised: onnx.ModelProto, inputs: Iterable[Tensors]
) -> dict[str, float]:
    """The error of each layer alone: values in fp32 come in; they, its weights and its result are rounded.

    Channels count alike: a large one would hide what the others lose, and the next layer may live on those.

    Args:
        graph: in fp32, its weights inside it.
        quantised: the same with all layers in int8.
        inputs: one mapping per run.

    Returns:
        By name of the layer, the error's sum of squares over that of the result, mean of its channels; the
        largest of all runs.

    Raises:
        ParityError: the graph cannot be run.
    """
    sides = {tensor.name: len(tensor.dims) for tensor in graph.graph.initializer}
    pairs = _Pairs(quantised)
    in_int8 = {node.name: node for node in quantised.graph.node}
    probes, axes = {}, {}
    for node in layers(graph):
        value, rank = node.output[0], sides[node.input[1]]
        probes[value] = [*_in_int8(in_int8[node.name], value, pairs), *_error_of(value, rank)]
        # Channels come second, those of a product with a matrix last.
        axes[f"axes_{rank}"] = np.array([0, *range(2, rank)]) if rank > 2 else np.array([0])
    known = {tensor.name for tensor in graph.graph.initializer}
    weights = [tensor for tensor in quantised.graph.initializer if tensor.name not in known]
    weights += [numpy_helper.from_array(value, name) for name, value in axes.items()]
    run = GraphRunner(probed(graph, probes, weights), "the graph beside its layers in int8", in_order=True)
    errors = {node.name: 0.0 for node in layers(graph)}
    for case in inputs:
        found = run(case)
        for node in layers(graph):
            # 0 / 0 is a channel of zeros.
            error = np.nan_to_num(found[node.output[0] + _ERROR], nan=0.0, posinf=np.inf)
            errors[node.name] = max(errors[node.name], float(error.mean()))
    return errors


class _Pairs:
    """The QuantizeLinear / DequantizeLinear pairs before and behind the values of a graph."""

    def __init__(self, graph: onnx.ModelProto) -> None:
        pair = [node for node in graph.graph.node if node.op_type in _PAIR]
        self._makers = {node.output[0]: node for node in pair}
        self._readers = {node.input[0]: node for node in pair}

    def before(self, value: str) -> list[onnx.NodeProto]:
        found: list[onnx.NodeProto] = []
        while node := self._makers.get(value):
            found.insert(0, node)
            value = node.input[0]
        return found

    def behind(self, value: str) -> list[onnx.NodeProto]:
        found: list[onnx.NodeProto] = []
        while node := self._readers.get(value):
            found.append(node)
            value = node.output[0]
        return found


def _in_int8(layer: onnx.NodeProto, expected: str, pairs: _Pairs) -> list[onnx.NodeProto]:
    """A copy of a layer in int8 with the pairs at its ends; its result is named EXPECTED:int8."""
    nodes: list[onnx.NodeProto] = []
    inputs: list[str] = []
    for index, source in enumerate(layer.input):
        steps = pairs.before(source)
        start = steps[0].input[0] if steps else source
        nodes += _renamed(steps, start, f"{expected}:input_{index}")
        inputs.append(nodes[-1].output[0] if steps else source)
    alone = onnx.NodeProto()
    alone.CopyFrom(layer)
    alone.name, alone.input[:], alone.output[:] = "", inputs, [f"{expected}:whole"]
    nodes += [alone, *_renamed(pairs.behind(layer.output[0]), alone.output[0], f"{expected}:result")]
    nodes.append(helper.make_node("Identity", [nodes[-1].output[0]], [f"{expected}:int8"]))
    return nodes


def _renamed(steps: Iterable[onnx.NodeProto], value: str, prefix: str) -> list[onnx.NodeProto]:
    """Copies of a chain of nodes that begins at another value."""
    nodes = []
    for step in steps:
        copy = onnx.NodeProto()
        copy.CopyFrom(step)
        copy.name, copy.input[0], copy.output[0] = "", value, f"{prefix}:{step.op_type}"
        nodes.append(copy)
        value = copy.output[0]
    return nodes


def _error_of(value: str, rank: int) -> list[onnx.NodeProto]:
    """VALUE:int8 against VALUE, per channel."""
    want, got = value, f"{value}:int8"
    nodes = []
    if rank == 2:
        nodes = [helper.make_node("Flatten", [name], [f"{name}:rows"], axis=-1) for name in (want, got)]
        want, got = (node.output[0] for node in nodes)
    less, lost, size = (f"{value}:{what}" for what in ("less", "lost", "size"))
    return [
        *nodes,
        helper.make_node("Sub", [want, got], [less]),
        helper.make_node("ReduceSumSquare", [less, f"axes_{rank}"], [lost], keepdims=0),
        helper.make_node("ReduceSumSquare", [want, f"axes_{rank}"], [size], keepdims=0),
        helper.make_node("Div", [lost, size], [value + _ERROR]),
    ]
