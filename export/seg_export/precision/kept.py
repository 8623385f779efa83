"""What stays in fp32 when a graph is written in half precision: one table, and what its values demand.

The rows were found with `seg-export verify --bisect` and are held by tests; they agree with what users of
other tools report: norms, the channel-first LayerNorm2d of SAM and softmax lose their sums in half
precision (segment-anything issues 540 and 696). A norm's sum of squares overflows inside one operator
from inputs of about 256 on, where no comparison of stored values on a CPU can see it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import onnx

__all__ = ["KEPT", "LARGEST_IN_HALF", "KeptInFp32", "kept_nodes"]

LARGEST_IN_HALF = 2.0**14
"""Values of nodes in half precision stay below it over all verified inputs: a quarter of what half
precision can hold, since users' images are not those that were verified."""

_NORMS = frozenset({"InstanceNormalization", "LayerNormalization", "ReduceMean", "Pow", "Sqrt"})
_SOFTMAX = frozenset({"Exp", "ReduceMax", "ReduceSum", "Softmax"})
_ELEMENTWISE = frozenset({"Add", "Div", "Mul", "Sub"})


@dataclass(frozen=True)
class KeptInFp32:
    """A row of the table.

    Attributes:
        ops: types of operators.
        leading_to: types of operators that need all that leads to them in fp32, from the inputs on.
        only: types of operators that are halved at all; None for every one.
        between: types that are halved as well, where everything they take was made by halved nodes.
    """

    ops: frozenset[str]
    leading_to: frozenset[str] = frozenset()
    only: frozenset[str] | None = None
    between: frozenset[str] = frozenset()


KEPT: Mapping[str, KeptInFp32] = {
    "semantic": KeptInFp32(_NORMS | _SOFTMAX),
    # Its stem's projections are normalised per channel: on a flat image a map's deviation is next to nothing,
    # and dividing by it makes what half precision rounds off in the layers before it the signal.
    "transunet": KeptInFp32(_NORMS | _SOFTMAX, leading_to=frozenset({"InstanceNormalization"})),
    "sam-encoder": KeptInFp32(_NORMS | _SOFTMAX),
    # Half precision holds coordinates near 1024 to half a pixel, and a sine of them to nothing.
    "sam-decoder": KeptInFp32(_NORMS | _SOFTMAX, leading_to=frozenset({"Sin", "Cos"})),
    "sam2-image-encoder": KeptInFp32(_NORMS | _SOFTMAX),
    # The choice of a mask by its stability divides counts of pixels, up to 65536.
    "sam2-mask-decoder": KeptInFp32(
        _NORMS | _SOFTMAX | {"Clip", "GreaterOrEqual", "Where"}, leading_to=frozenset({"Sin", "Cos"})
    ),
    # Three small convolutions of a mask, of which nothing is gained.
    "sam2-mask-prompt": KeptInFp32(frozenset(), only=frozenset()),
    "sam2-memory-attention": KeptInFp32(_NORMS | _SOFTMAX, leading_to=frozenset({"Sin", "Cos"})),
    # Its last step rounds to bfloat16, which has a wider range than half precision.
    "sam2-memory-encoder": KeptInFp32(_NORMS | _SOFTMAX | {"Abs", "Clip", "Floor", "Log", "Round"}),
    # Layers with weights are in half precision; boxes, scores and where to sample never are. Suppression
    # counts up to 1000 overlaps in products, which half precision holds exactly.
    "instances": KeptInFp32(
        frozenset(),
        only=frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"}),
        between=frozenset({"Add", "MaxPool", "Relu", "Resize"}),
    ),
}
"""Per task of a model, or per family where that has a row of its own."""


def kept_nodes(
    graph: onnx.ModelProto, row: KeptInFp32, largest: Mapping[str, float] | None = None
) -> dict[str, str]:
    """Names of the nodes that stay in fp32, each with the reason.

    Args:
        graph: in fp32.
        row: of the table.
        largest: the largest magnitude of each value, from `largest_values`; None asks only the row.
    """
    nodes = graph.graph.node
    if row.only is not None:
        halved = _halved(graph, row.only, row.between)
        return {node.name: "geometry or scores" for node in nodes if node.name not in halved}
    kept = {node.name: "norm or softmax" for node in nodes if node.op_type in row.ops}
    kept |= dict.fromkeys(_leading_to(graph, row.leading_to), f"leads to {' or '.join(row.leading_to)}")
    for node in nodes:
        reached = max(((largest or {}).get(name, 0.0) for name in (*node.input, *node.output)), default=0.0)
        if reached > LARGEST_IN_HALF:
            kept.setdefault(node.name, f"values up to {reached:.2g}")
    return kept | dict.fromkeys(_between(graph, kept), "inside of a norm")


def _halved(graph: onnx.ModelProto, only: frozenset[str], between: frozenset[str]) -> set[str]:
    """Names of the nodes of some types, and of others that take nothing but what those made."""
    weights = {tensor.name for tensor in graph.graph.initializer} | {""}
    made: set[str] = set()
    names: set[str] = set()
    for node in graph.graph.node:
        inside = node.op_type in between and all(name in made | weights for name in node.input)
        if node.op_type in only or inside:
            names.add(node.name)
            made.update(node.output)
    return names


def _leading_to(graph: onnx.ModelProto, ops: frozenset[str]) -> list[str]:
    maker = {name: node for node in graph.graph.node for name in node.output}
    found: dict[str, None] = {}
    waiting = [node for node in graph.graph.node if node.op_type in ops]
    while waiting:
        node = waiting.pop()
        if node.name not in found:
            found[node.name] = None
            waiting += [maker[name] for name in node.input if name in maker]
    return list(found)


def _between(graph: onnx.ModelProto, kept: Mapping[str, str]) -> list[str]:
    """The arithmetic inside a norm or softmax that is written out.

    It takes a value in fp32 and is read in fp32 (the centred value, the variance with its epsilon), or
    it divides by a root or sum in fp32.
    """
    nodes = graph.graph.node
    full = {name for node in nodes if node.name in kept for name in node.output}
    read_in_full = {name for node in nodes if node.name in kept for name in node.input}
    return [
        node.name
        for node in nodes
        if node.op_type in _ELEMENTWISE
        and node.name not in kept
        and any(name in full for name in node.input)
        and (read_in_full & set(node.output) or (node.op_type == "Div" and node.input[1] in full))
    ]
