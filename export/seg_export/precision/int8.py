"""Eight-bit integers written into a graph as static QuantizeLinear / DequantizeLinear pairs.

Symmetric, weights per output channel, biases left in fp32: the form that a strongly typed TensorRT
network takes. ONNX Runtime's own quantizer writes it (onnxruntime.ai/docs/performance/model-optimizations/
quantization.html); here is what it is told, and where its ranges come from.
"""

from __future__ import annotations

import contextlib
import io
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from seg_export.precision.probe import probed
from seg_export.verification.graph_runner import GraphRunner, Tensors

__all__ = ["METHODS", "Method", "layers", "quantised", "ranges_of", "sampled_values"]

Method = Literal["percentile", "entropy"]
METHODS: tuple[Method, ...] = ("percentile", "entropy")
"""How a range is found: the 99.99 % that lie closest to zero, or the cut that keeps the most information
(Migacz, 8-bit inference with TensorRT, GTC 2017)."""

_OPS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
_MATRICES = ("Gemm", "MatMul")
_PERCENTILE = 99.99
_SAMPLES = 20_000
_BINS, _LEVELS = 512, 128
_SAMPLE = "_sample"

Ranges = Mapping[str, tuple[np.float32, np.float32]]
"""The lowest and the highest value to be represented, by name of a value."""


def layers(graph: onnx.ModelProto) -> list[onnx.NodeProto]:
    """The nodes that can compute in int8: convolutions, and products with a matrix of weights."""
    sides = {tensor.name: len(tensor.dims) for tensor in graph.graph.initializer}
    return [
        node
        for node in graph.graph.node
        if node.op_type in _OPS and (sides.get(node.input[1]) == 2 or node.op_type not in _MATRICES)
    ]


def sampled_values(graph: onnx.ModelProto, inputs: Iterable[Tensors]) -> dict[str, NDArray[np.float32]]:
    """Up to 20,000 values per run of all that is to be quantised, taken at equal distances.

    Args:
        graph: in fp32, its weights inside it.
        inputs: one mapping per run.

    Returns:
        By name of the value, those of all runs in one array.

    Raises:
        ParityError: the graph cannot be run.
    """
    lengths = _lengths(graph)
    # A convolution's result is quantised as well; that of a matrix product stays in fp32.
    names = {
        name
        for node in layers(graph)
        for name in (node.input[0], *([] if node.op_type in _MATRICES else node.output))
    }
    steps = {f"{name}_step": max(1, lengths.get(name, 1) // _SAMPLES) | 1 for name in names}
    weights = [helper.make_tensor(name, TensorProto.INT64, [1], [step]) for name, step in steps.items()]
    weights += [
        helper.make_tensor(f"sample_{name}", TensorProto.INT64, [1], [value])
        for name, value in (("flat", -1), ("first", 0), ("last", np.iinfo(np.int64).max))
    ]
    run = GraphRunner(
        probed(graph, {name: _sample_of(name) for name in names}, weights), "the graph", in_order=True
    )
    found: dict[str, list[NDArray[np.float32]]] = {name: [] for name in names}
    for case in inputs:
        for name, values in run(case).items():
            found[name.removesuffix(_SAMPLE)].append(values)
    return {name: np.concatenate(values) for name, values in found.items()}


def ranges_of(samples: Mapping[str, NDArray[np.float32]], method: Method) -> Ranges:
    """The range of each value, symmetric about zero once it is written."""
    from onnxruntime.quantization.calibrate import HistogramCollector

    collector: Any = HistogramCollector(method, True, _BINS, _LEVELS, _PERCENTILE, "same")
    # It prints as it goes.
    with contextlib.redirect_stdout(io.StringIO()):
        collector.collect(dict(samples))
        found = collector.compute_collection_result()
    return {name: (np.float32(values[0]), np.float32(values[1])) for name, values in found.items()}


def quantised(graph: onnx.ModelProto, ranges: Ranges, left_out: Collection[str] = ()) -> onnx.ModelProto:
    """Write int8 into a graph in fp32.

    Args:
        graph: of opset 13 or later, its weights inside it; is not changed.
        ranges: from `ranges_of`.
        left_out: names of layers that stay in fp32.
    """
    from onnxruntime.quantization import CalibrationMethod, QDQQuantizer, QuantType
    from onnxruntime.quantization.calibrate import TensorData, TensorsData

    result = onnx.ModelProto()
    result.CopyFrom(graph)
    data = {name: TensorData(lowest=low, highest=high) for name, (low, high) in ranges.items()}
    writer: Any = QDQQuantizer(
        result,
        per_channel=True,
        reduce_range=False,
        weight_qType=QuantType.QInt8,
        activation_qType=QuantType.QInt8,
        tensors_range=TensorsData(CalibrationMethod.MinMax, data),
        nodes_to_quantize=[node.name for node in layers(graph) if node.name not in left_out],
        nodes_to_exclude=[],
        op_types_to_quantize=list(_OPS),
        extra_options={
            "ActivationSymmetric": True,
            "WeightSymmetric": True,
            # TensorRT takes no bias in int32.
            "QuantizeBias": False,
            "OpTypesToExcludeOutputQuantization": list(_MATRICES),
        },
    )
    writer.quantize_model()
    writer.model.topological_sort()
    written: onnx.ModelProto = writer.model.model
    return written


def _lengths(graph: onnx.ModelProto) -> dict[str, int]:
    """How many numbers each value holds; axes of unknown length count once."""
    body = onnx.shape_inference.infer_shapes(graph).graph
    return {
        value.name: math.prod(max(axis.dim_value, 1) for axis in value.type.tensor_type.shape.dim)
        for value in (*body.value_info, *body.input, *body.output)
    }


def _sample_of(name: str) -> Sequence[onnx.NodeProto]:
    flat = f"{name}_flat"
    ends = ["sample_first", "sample_last", "sample_first", f"{name}_step"]
    return (
        helper.make_node("Reshape", [name, "sample_flat"], [flat]),
        helper.make_node("Slice", [flat, *ends], [name + _SAMPLE]),
    )
