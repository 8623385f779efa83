"""Brings a graph into the form that the steps of an export take: names, opset, no leftovers."""

from __future__ import annotations

from collections.abc import Iterator

import onnx

from seg_runtime.errors import CheckpointError

__all__ = ["tidied"]

_IR_VERSION = 8
_INSIDE = "original/"


def tidied(graph: onnx.ModelProto, first: str, last: str, opset: int) -> tuple[onnx.ModelProto, str, str]:
    """A copy of what leads from an input to an output of a graph.

    Functions are inlined, constants become weights, every node has a name, and all names begin alike, so that
    those of the contract are free.

    Args:
        graph: with its weights inside; is not changed.
        first: its input.
        last: its output.
        opset: the lowest that the result may have.

    Returns:
        The graph, and the new names of its input and output.

    Raises:
        CheckpointError: its opset is too old, and cannot be raised.
    """
    from onnx import compose, inliner

    graph = _raised(inliner.inline_local_functions(graph), opset)
    graph.ir_version = max(graph.ir_version, _IR_VERSION)
    body = graph.graph
    inputs = [value for value in body.input if value.name == first]
    outputs = [value for value in body.output if value.name == last]
    del body.input[:], body.output[:], body.value_info[:]
    body.input.extend(inputs)
    body.output.extend(outputs)
    _lift_constants(body)
    _remove_unused(body)
    _name_nodes(body)
    return compose.add_prefix(graph, _INSIDE), _INSIDE + first, _INSIDE + last


def _raised(graph: onnx.ModelProto, wanted: int) -> onnx.ModelProto:
    opset = next(item.version for item in graph.opset_import if item.domain in ("", "ai.onnx"))
    if opset >= wanted:
        return graph
    from onnx import version_converter

    try:
        return version_converter.convert_version(graph, wanted)
    except Exception as error:  # of its C++ code: RuntimeError, or one that has no name in Python
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise CheckpointError(
            f"the graph has opset {opset} and cannot be raised to {wanted} ({reason}): export it "
            "again with "
            f"opset {wanted} or later"
        ) from error


def _lift_constants(body: onnx.GraphProto) -> None:
    """Half precision and int8 look for weights among the initializers."""
    kept = []
    for node in body.node:
        value = next((each for each in node.attribute if each.name == "value"), None)
        if node.op_type == "Constant" and value is not None:
            body.initializer.add().CopyFrom(value.t)
            body.initializer[-1].name = node.output[0]
        else:
            kept.append(node)
    del body.node[:]
    body.node.extend(kept)


def _remove_unused(body: onnx.GraphProto) -> None:
    """Drop what no output needs, such as the heads of a deep supervision."""
    needed = {value.name for value in body.output}
    kept = []
    for node in reversed(body.node):
        if needed & set(node.output):
            kept.append(node)
            needed.update(_reads(node))
    weights = [tensor for tensor in body.initializer if tensor.name in needed]
    del body.node[:], body.initializer[:]
    body.node.extend(reversed(kept))
    body.initializer.extend(weights)


def _reads(node: onnx.NodeProto) -> Iterator[str]:
    """Names that a node takes, in its branches and loops as well."""
    yield from node.input
    for attribute in node.attribute:
        if attribute.HasField("g"):
            for inner in attribute.g.node:
                yield from _reads(inner)
            yield from (value.name for value in attribute.g.output)


def _name_nodes(body: onnx.GraphProto) -> None:
    seen: set[str] = set()
    for index, node in enumerate(body.node):
        if not node.name or node.name in seen:
            node.name = f"{node.op_type}_{index}"
        seen.add(node.name)
