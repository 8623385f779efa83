"""A graph that reports on its own values, so that no run has to hold them all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import onnx
from onnx import TensorProto, helper

__all__ = ["probed"]


def probed(
    graph: onnx.ModelProto,
    probes: Mapping[str, Sequence[onnx.NodeProto]],
    weights: Sequence[onnx.TensorProto] = (),
) -> onnx.ModelProto:
    """A copy of a graph whose only outputs are those of probes.

    Run it with `GraphRunner(..., in_order=True)`: probes stand right behind the value that they look at, so
    that it need not live longer than without them.

    Args:
        graph: is not changed.
        probes: by name of an input or of a node's output, the nodes to run as soon as it is there. The
            output of the last one is an output of the graph, in fp32.
        weights: initializers that probes use.
    """
    result = onnx.ModelProto()
    result.CopyFrom(graph)
    body = result.graph
    nodes = [node for value in body.input for node in probes.get(value.name, ())]
    for node in body.node:
        nodes.append(node)
        nodes += [each for name in node.output for each in probes.get(name, ())]
    del body.node[:], body.output[:]
    body.node.extend(nodes)
    body.initializer.extend(weights)
    body.output.extend(
        helper.make_tensor_value_info(probe[-1].output[0], TensorProto.FLOAT, None)
        for probe in probes.values()
    )
    return result
