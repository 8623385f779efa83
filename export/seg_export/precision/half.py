"""Half precision written into a graph, operator by operator, and a CPU's way to see what it does.

Every value has its type in the graph, as a strongly typed TensorRT network wants it (10.3 and 11): no
builder flag decides anything. Inputs and outputs keep the types of the contract.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

__all__ = ["element_types", "rounded", "to_half"]

_HALF = "_fp16"
_FULL = "_fp32"
_EXACT = "_before_rounding"
_ROUNDED = "_rounded"


def element_types(graph: onnx.ModelProto) -> dict[str, int]:
    """ONNX element type (`TensorProto.FLOAT` and so on) of every value of a graph, weights included."""
    inferred = onnx.shape_inference.infer_shapes(graph).graph
    values = (*inferred.value_info, *inferred.input, *inferred.output)
    types = {value.name: value.type.tensor_type.elem_type for value in values}
    return types | {tensor.name: tensor.data_type for tensor in graph.graph.initializer}


def to_half(graph: onnx.ModelProto, kept: Collection[str], folder: Path | None = None) -> onnx.ModelProto:
    """Write half precision into a graph in fp32.

    Args:
        graph: of opset 13 or later, without branches or loops; is not changed.
        kept: names of nodes that stay in fp32.
        folder: where the file with its external weights lies, if it has one.

    Returns:
        The graph, whose nodes compute in half precision where the operator can and `kept` does not say no.
    """
    writer = _HalfWriter(graph, frozenset(kept))
    result = writer.written()
    _half_weights(result.graph, writer.half_weights, folder)
    return result


class _HalfWriter:
    """Goes through the nodes in their order and knows in which type each value is at hand."""

    def __init__(self, graph: onnx.ModelProto, kept: frozenset[str]) -> None:
        self.kept = kept
        self.result = onnx.ModelProto()
        self.result.CopyFrom(graph)
        self.opset = next(item.version for item in graph.opset_import if item.domain == "")
        self.float_values = {name for name, kind in element_types(graph).items() if kind == TensorProto.FLOAT}
        self.at_hand: dict[str, int] = dict.fromkeys(self.float_values, TensorProto.FLOAT)
        self.weights = {tensor.name for tensor in graph.graph.initializer} & self.float_values
        self.outputs = {value.name for value in graph.graph.output} & self.float_values
        self.nodes: list[onnx.NodeProto] = []
        self.cast: set[str] = set()
        self.half_weights: dict[str, str] = {}

    def written(self) -> onnx.ModelProto:
        body = self.result.graph
        for node in body.node:
            self._add(node)
        del body.node[:], body.value_info[:]
        body.node.extend(self.nodes)
        return self.result

    def _add(self, node: onnx.NodeProto) -> None:
        inputs, outputs = self._half_places(node)
        half = node.name not in self.kept and bool(inputs or outputs)
        new = onnx.NodeProto()
        new.CopyFrom(node)
        for index, name in enumerate(node.input):
            if name in self.float_values:
                wanted = TensorProto.FLOAT16 if half and index in inputs else TensorProto.FLOAT
                new.input[index] = self._in_type(name, wanted)
        if half and node.op_type == "Cast" and outputs:
            new.attribute[0].i = TensorProto.FLOAT16
        self.nodes.append(new)
        if half:
            for index in outputs:
                self._made_in_half(new, index)

    def _half_places(self, node: onnx.NodeProto) -> tuple[set[int], set[int]]:
        """Indices of float inputs and outputs that may be in half precision; none when one output may not."""
        schema = onnx.defs.get_schema(node.op_type, self.opset, node.domain)
        inputs = {index for index, name in enumerate(node.input) if self._may(schema.inputs, index, name)}
        floats = {index for index, name in enumerate(node.output) if name in self.float_values}
        outputs = {index for index in floats if self._may(schema.outputs, index, node.output[index])}
        # The type of a filled tensor is that of its attribute.
        if outputs != floats or (node.op_type in ("Constant", "ConstantOfShape")):
            return set(), set()
        return inputs, outputs

    def _may(self, formal: Any, index: int, name: str) -> bool:
        return name in self.float_values and "tensor(float16)" in formal[min(index, len(formal) - 1)].types

    def _in_type(self, name: str, wanted: int) -> str:
        """The value's name in that type, cast once, right before its first use."""
        if self.at_hand[name] == wanted:
            return name
        if name in self.weights:
            self.half_weights[name] = name + _HALF
            return name + _HALF
        other = name + (_HALF if wanted == TensorProto.FLOAT16 else _FULL)
        if other not in self.cast:
            self.cast.add(other)
            self.nodes.append(helper.make_node("Cast", [name], [other], name=f"cast_{other}", to=wanted))
        return other

    def _made_in_half(self, node: onnx.NodeProto, index: int) -> None:
        name = node.output[index]
        if name not in self.outputs:
            self.at_hand[name] = TensorProto.FLOAT16
            return
        # An output has its contract's type; other nodes still read it in half precision.
        half = name + _HALF
        node.output[index] = half
        self.cast.add(half)
        cast = helper.make_node("Cast", [half], [name], name=f"cast_{name}", to=TensorProto.FLOAT)
        self.nodes.append(cast)


def _half_weights(graph: onnx.GraphProto, names: Mapping[str, str], folder: Path | None) -> None:
    """Give weights their half precision under new names; one that is wanted in both types is there twice."""
    read = {name for node in graph.node for name in node.input}
    weights = []
    for tensor in graph.initializer:
        if tensor.name in names:
            values = numpy_helper.to_array(tensor, str(folder or ""))
            # What overflows was not kept in fp32; verification finds it.
            with np.errstate(over="ignore"):
                values = values.astype(np.float16)
            weights.append(numpy_helper.from_array(values, names[tensor.name]))
        if tensor.name in read:
            weights.append(tensor)
    del graph.initializer[:]
    graph.initializer.extend(weights)


def rounded(graph: onnx.ModelProto) -> onnx.ModelProto:
    """A graph in fp32 that rounds wherever a graph in half precision stores a value.

    ONNX Runtime's CPU kernels run chains of half precision operators in fp32 and round only at the
    ends, so that a value that overflows on a GPU does not overflow there. This one does.

    Args:
        graph: with half precision in it; is not changed.
    """
    result = onnx.ModelProto()
    result.CopyFrom(graph)
    body = result.graph
    half = {name for name, kind in element_types(graph).items() if kind == TensorProto.FLOAT16}
    nodes = []
    for name in (*(value.name for value in body.input), *(tensor.name for tensor in body.initializer)):
        if name in half:
            nodes.append(helper.make_node("Cast", [name], [name + _ROUNDED], to=TensorProto.FLOAT))
    for node in body.node:
        for index, name in enumerate(node.input):
            if name in half:
                node.input[index] = name + _ROUNDED
        nodes.append(node)
        for index, name in enumerate(node.output):
            if name in half:
                nodes += _rounding(node, index, name)
    del body.node[:], body.value_info[:]
    body.node.extend(nodes)
    return result


def _rounding(node: onnx.NodeProto, index: int, name: str) -> list[onnx.NodeProto]:
    """Let a node write fp32; nodes that make of it the value in half precision and what others read."""
    full = helper.make_node("Cast", [name], [name + _ROUNDED], to=TensorProto.FLOAT)
    if node.op_type == "Cast":
        return [full]
    node.output[index] = name + _EXACT
    return [helper.make_node("Cast", [name + _EXACT], [name], to=TensorProto.FLOAT16), full]
