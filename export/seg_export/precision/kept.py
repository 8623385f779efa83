"""What stays in fp32 when a graph is written in half precision: what its family says, and its values demand.

What families say was found with `seg-export verify --bisect` and is held by tests; it agrees with what users
of other tools report: norms, the channel-first LayerNorm2d of SAM and softmax lose their sums in half
precision (segment-anything issues 540 and 696). A norm's sum of squares overflows inside one operator
from inputs of about 256 on, where no comparison of stored values on a CPU can see it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx

__all__ = ["KEPT_BY_DEFAULT", "LARGEST_IN_HALF", "NORMS", "SOFTMAX", "KeptInFp32", "kept_nodes"]

LARGEST_IN_HALF = 2.0**14
"""Values of nodes in half precision stay below it over all verified inputs: a quarter of what half
precision can hold, since users' images are not those that were verified."""

NORMS = frozenset({"InstanceNormalization", "LayerNormalization", "ReduceMean", "Pow", "Sqrt"})
SOFTMAX = frozenset({"Exp", "ReduceMax", "ReduceSum", "Softmax"})
_ELEMENTWISE = frozenset({"Add", "Div", "Mul", "Sub"})


@dataclass(frozen=True)
class KeptInFp32:
    """What stays in fp32, by types of operators.

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


KEPT_BY_DEFAULT = KeptInFp32(NORMS | SOFTMAX)
"""Of models of which their family says nothing else."""


def kept_nodes(
    graph: onnx.ModelProto, row: KeptInFp32, largest: Mapping[str, float] | None = None
) -> dict[str, str]:
    """Names of the nodes that stay in fp32, each with the reason.

    Args:
        graph: in fp32.
        row: what the family says.
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
