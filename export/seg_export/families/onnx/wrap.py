"""Puts preprocessing before a graph and an activation behind it, in ONNX operators."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from seg_export.families.onnx.interface import Interface
from seg_export.families.onnx.tidy import tidied

if TYPE_CHECKING:
    from seg_export.checkpoints.types import Preprocessing

__all__ = ["wrapped"]

_OUTSIDE = "wrapper/"
_TO_NCHW = [0, 3, 1, 2]


def wrapped(
    graph: onnx.ModelProto, interface: Interface, preprocessing: Preprocessing, opset: int
) -> onnx.ModelProto:
    """The graph with the project's contract: `image` in, `probabilities` out.

    Args:
        graph: with its weights inside; is not changed.
        interface: what it takes and gives.
        preprocessing: of its input.
        opset: the lowest that the result may have; 13 or more.

    Raises:
        CheckpointError: its opset cannot be raised to one that has the operators that are added.
    """
    result, first, last = tidied(graph, interface.image.name, interface.output, opset)
    wrapper = _Wrapper(result.graph)
    wrapper.add_before(first, interface, preprocessing)
    wrapper.add_after(last, interface)
    channels, (height, width) = interface.image.channels, interface.image.size_hw
    image = helper.make_tensor_value_info("image", TensorProto.UINT8, ("batch", height, width, channels))
    maps = ("batch", interface.classes, height, width)
    probabilities = helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, maps)
    del result.graph.input[:], result.graph.output[:]
    result.graph.input.append(image)
    result.graph.output.append(probabilities)
    return result


class _Wrapper:
    """Adds chains of nodes to a graph."""

    def __init__(self, body: onnx.GraphProto) -> None:
        self.body = body
        self.nodes: list[onnx.NodeProto] = []

    def add_before(self, first: str, interface: Interface, preprocessing: Preprocessing) -> None:
        """From `image` to the graph's input."""
        consumers = [node for node in self.body.node if first in node.input]
        # TensorRT takes uint8 in a cast and nowhere else: the cast of the graph's own comes to be the second.
        as_float = not interface.image.takes_pixels or all(node.op_type == "Cast" for node in consumers)
        value = self._add("Cast", ["image"], to=TensorProto.FLOAT) if as_float else "image"
        if preprocessing.channel_order == "bgr":
            value = self._add("Gather", [value, self._constant("bgr", np.array([2, 1, 0]))], axis=3)
        if not interface.image.takes_pixels:
            means, deviations = np.array(preprocessing.mean), np.array(preprocessing.std)
            factor = self._constant("factor", (1 / (preprocessing.scale * deviations)).astype(np.float32))
            shift = self._constant("shift", (-means / deviations).astype(np.float32))
            value = self._add("Add", [self._add("Mul", [value, factor]), shift])
        if interface.image.layout == "nchw":
            value = self._add("Transpose", [value], perm=_TO_NCHW)
        if interface.image.element == "float16":
            value = self._add("Cast", [value], to=TensorProto.FLOAT16)
        if not self.nodes:
            self._add("Identity", [value])
        self._rename_last(first)
        own = list(self.body.node)
        del self.body.node[:]
        self.body.node.extend([*self.nodes, *own])
        self.nodes = []

    def add_after(self, last: str, interface: Interface) -> None:
        """From the graph's output to `probabilities`."""
        value = self._add("Cast", [last], to=TensorProto.FLOAT)
        if interface.output_layout == "nhwc":
            value = self._add("Transpose", [value], perm=_TO_NCHW)
        if interface.output_hw != interface.image.size_hw:
            value = self._resized(value, interface.image.size_hw)
        if interface.activation == "sigmoid":
            self._add("Sigmoid", [value])
        elif interface.activation == "softmax":
            self._add("Softmax", [value], axis=1)
        self._rename_last("probabilities")
        self.body.node.extend(self.nodes)
        self.nodes = []

    def _resized(self, value: str, size_hw: tuple[int, int]) -> str:
        ends = [self._constant(name, np.array([place])) for name, place in (("from", 0), ("to", 2))]
        outer = self._add("Slice", [self._add("Shape", [value]), *ends])
        sizes = self._add("Concat", [outer, self._constant("size_hw", np.array(size_hw))], axis=0)
        return self._add(
            "Resize", [value, "", "", sizes], mode="linear", coordinate_transformation_mode="half_pixel"
        )

    def _add(self, op: str, inputs: list[str], **attributes: Any) -> str:
        output = f"{_OUTSIDE}{op}_{len(self.body.node) + len(self.nodes)}"
        self.nodes.append(helper.make_node(op, inputs, [output], name=output, **attributes))
        return output

    def _rename_last(self, output: str) -> None:
        self.nodes[-1].output[0] = output

    def _constant(self, name: str, values: NDArray[Any]) -> str:
        name = _OUTSIDE + name
        self.body.initializer.append(numpy_helper.from_array(values, name))
        return name
