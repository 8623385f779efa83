"""Finds where a graph leaves another one: the first node, and the types of operators that cause it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from seg_export.precision.half import element_types, rounded, to_half
from seg_export.verification.graph_runner import GraphRunner, Tensors
from seg_export.verification.tolerances import Tolerance

__all__ = ["Divergence", "first_divergence", "ops_to_keep"]

_OTHER = "other/"
_DIFFERENCE = "_difference"
_EXCESS = "_excess"
_MAGNITUDE = "_magnitude"
_RTOL = "bisect_rtol"


@dataclass(frozen=True)
class Divergence:
    """A node whose result differs from that of the same node in another graph.

    Attributes:
        node: its name.
        op: its type.
        value: the name of its output.
        difference: the largest absolute difference; infinite where a value is not finite.
        magnitude: the largest absolute value in the reference.
    """

    node: str
    op: str
    value: str
    difference: float
    magnitude: float


def first_divergence(
    reference: onnx.ModelProto, other: onnx.ModelProto, inputs: Iterable[Tensors], tolerance: Tolerance
) -> Divergence | None:
    """The first node, in the order of the reference, that strays from it.

    Both graphs run as one, which reduces each pair of values to three numbers.

    Args:
        reference: a graph in fp32 whose weights are inside it.
        other: one with the same names of values; half precision in it is rounded as a GPU rounds it.
        inputs: one mapping per run.
        tolerance: its rule for the outputs of a graph, here for all values; small ones have their own scale.

    Raises:
        ParityError: the graphs cannot be run.
    """
    joined, pairs = _joined(reference, rounded(other), tolerance.rtol)
    run = GraphRunner(joined, "the two graphs side by side")
    found: dict[str, Divergence] = {}
    for case in inputs:
        results = run(case)
        for node, value in pairs:
            difference = float(results[value + _DIFFERENCE])
            magnitude = float(results[value + _MAGNITUDE])
            difference = difference if math.isfinite(difference) else math.inf
            excess = float(results[value + _EXCESS]) if math.isfinite(difference) else math.inf
            if excess > tolerance.atol * max(magnitude, 1e-6):
                found.setdefault(node.name, Divergence(node.name, node.op_type, value, difference, magnitude))
    return next((found[node.name] for node, _ in pairs if node.name in found), None)


def ops_to_keep(
    graph: onnx.ModelProto, passes: Callable[[onnx.ModelProto], float], on_step: Callable[[str], None]
) -> tuple[str, ...]:
    """The smallest set of operator types, found greedily, that must stay in fp32 for a graph to pass.

    Types are tried alone in half precision, which tells how much harm each does; then as many of the
    most harmful stay in fp32 as it takes, found by halving.

    Args:
        graph: in fp32, its weights inside it.
        passes: how far a graph in half precision is from passing: at most 1 passes; infinite when
            something in it is not finite.
        on_step: told what is tried.

    Returns:
        The types, most harmful first; all of them when nothing else passes.
    """
    types = element_types(graph)
    nodes = graph.graph.node
    ops = sorted({n.op_type for n in nodes if any(types.get(o) == TensorProto.FLOAT for o in n.output)})

    def harm(half_ops: Sequence[str]) -> float:
        return passes(to_half(graph, [node.name for node in nodes if node.op_type not in half_ops]))

    harms = {}
    for op in ops:
        on_step(f"{op} alone")
        harms[op] = harm([op])
    order = sorted(ops, key=lambda op: -harms[op])
    low, high = 0, len(order)
    while low < high:
        middle = (low + high) // 2
        on_step(f"{middle} types in fp32")
        if harm(order[middle:]) <= 1:
            high = middle
        else:
            low = middle + 1
    return tuple(order[:low])


def _joined(
    reference: onnx.ModelProto, other: onnx.ModelProto, rtol: float
) -> tuple[onnx.ModelProto, list[tuple[onnx.NodeProto, str]]]:
    """One graph that runs both on the same inputs; the pairs of values that it compares, with their nodes."""
    joined = onnx.ModelProto()
    joined.CopyFrom(reference)
    body = joined.graph
    shared = {value.name for value in body.input}
    second = onnx.ModelProto()
    second.CopyFrom(other)
    for node in second.graph.node:
        for names in (node.input, node.output):
            names[:] = [name if name in shared or not name else _OTHER + name for name in names]
        node.name = ""
        body.node.append(node)
    for tensor in second.graph.initializer:
        tensor.name = _OTHER + tensor.name
        body.initializer.append(tensor)
    body.initializer.append(numpy_helper.from_array(np.array(rtol, np.float32), _RTOL))
    types, others = element_types(reference), element_types(other)
    del body.output[:], body.value_info[:]
    pairs = []
    for node in reference.graph.node:
        for value in node.output:
            counterpart = value if others.get(value) == TensorProto.FLOAT else f"{value}_rounded"
            if types.get(value) == TensorProto.FLOAT and others.get(counterpart) == TensorProto.FLOAT:
                _compare(body, value, _OTHER + counterpart)
                pairs.append((node, value))
    return joined, pairs


def _compare(body: onnx.GraphProto, value: str, other: str) -> None:
    """What |value - other| reaches, also beyond rtol * |value|, and what |value| does."""
    difference, excess, magnitude = value + _DIFFERENCE, value + _EXCESS, value + _MAGNITUDE
    body.node.extend(
        [
            helper.make_node("Sub", [value, other], [f"{value}_less"]),
            helper.make_node("Abs", [f"{value}_less"], [f"{value}_distance"]),
            helper.make_node("ReduceMax", [f"{value}_distance"], [difference], keepdims=0),
            helper.make_node("Abs", [value], [f"{value}_size"]),
            helper.make_node("ReduceMax", [f"{value}_size"], [magnitude], keepdims=0),
            helper.make_node("Mul", [f"{value}_size", _RTOL], [f"{value}_share"]),
            helper.make_node("Sub", [f"{value}_distance", f"{value}_share"], [f"{value}_beyond"]),
            helper.make_node("ReduceMax", [f"{value}_beyond"], [excess], keepdims=0),
        ]
    )
    for name in (difference, excess, magnitude):
        body.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, []))
