"""From a PyTorch module to one ONNX graph with fixed names, a dynamic batch and no trace of its builder.

Batch normalisation is folded into the convolutions by the exporter's own optimiser.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from seg_export.precision.tensor_types import cast_half_tensors
from seg_export.tracing.external_weights import (
    EXTERNAL_DATA_ABOVE,
    hide_external_weights,
    move_weights,
    show_weights,
    weight_bytes,
)
from seg_export.tracing.traceable import TraceableModel
from seg_runtime.errors import BadInputError, CheckpointError, MissingExtraError
from seg_runtime.spec import TensorSpec

if TYPE_CHECKING:
    import onnx

__all__ = ["DEFAULT_OPSET", "OPSETS", "optimise", "save_graph", "trace"]

# torch.export's exporter begins at 18. The older one writes paddings as a reversed Slice, which onnxslim
# folds to wrong values, and every server that matters knows 18.
OPSETS = (18, 19, 20)
DEFAULT_OPSET = 18


def trace(
    model: TraceableModel,
    opset: int = DEFAULT_OPSET,
    weights_file: Path | None = None,
    external_data_above: int = EXTERNAL_DATA_ABOVE,
) -> onnx.ModelProto:
    """Trace a module into an ONNX graph.

    Args:
        model: its spec names the graph's inputs and outputs and their shapes.
        opset: 18 to 20.
        weights_file: beside the graph to be saved, written when there are more weights than one file may
            hold, straight from PyTorch's memory; the graph then only refers to it. None keeps them all.
        external_data_above: bytes of weights that one file may hold.

    Raises:
        BadInputError: another opset.
        CheckpointError: the exporter cannot follow what the module computes.
        MissingExtraError: onnx or onnxscript is not installed.
        OSError: the disk is full or not writable.
    """
    if opset not in OPSETS:
        raise BadInputError(f"opset {opset}: expected one of {', '.join(map(str, OPSETS))}")
    try:
        import onnx  # noqa: F401 - the exporter's own message would not name our extra
        import onnxscript  # noqa: F401 - likewise
    except ImportError as error:
        raise MissingExtraError("the ONNX exporter", "export") from error
    shapes = [model.graph_shape(tensor) for tensor in model.spec.inputs]
    example = tuple(_example(tensor, shape) for tensor, shape in zip(model.spec.inputs, shapes, strict=True))
    program = _exported(
        model,
        example,
        dynamic_shapes=tuple(
            {index: torch.export.Dim.DYNAMIC for index, axis in enumerate(shape) if isinstance(axis, str)}
            for shape in shapes
        ),
        opset=opset,
    )
    if weights_file is not None and weight_bytes(program.model) > external_data_above:
        move_weights(program.model, weights_file)
    graph: onnx.ModelProto = program.model_proto
    return graph


def optimise(graph: onnx.ModelProto, model: TraceableModel) -> onnx.ModelProto:
    """Simplify a traced graph once, give it its contract's types and axes, drop all about its builder.

    Weights that lie in a file of their own are not looked at; the exporter has folded them already.

    Raises:
        MissingExtraError: onnxslim is not installed.
    """
    try:
        import onnxslim
    except ImportError as error:
        raise MissingExtraError("onnxslim", "export") from error
    weights = hide_external_weights(graph)
    slim: onnx.ModelProto = onnxslim.slim(graph)
    show_weights(slim, weights)
    _strip(slim)
    _fix_shapes(slim, model)
    cast_half_tensors(slim, model.spec)
    return slim


def save_graph(graph: onnx.ModelProto, path: Path) -> None:
    """Write and check a graph.

    Args:
        graph: the file that it refers to for large weights, if any, lies where `path` goes.
        path: the graph's file; its folder exists.

    Raises:
        OSError: the disk is full or not writable.
        ValueError: the graph is not valid ONNX.
    """
    import onnx

    path.write_bytes(graph.SerializeToString(deterministic=True))
    try:
        onnx.checker.check_model(path, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ValueError(f"the traced graph is not valid ONNX: {error}") from error


def _exported(
    model: TraceableModel,
    example: tuple[torch.Tensor, ...],
    dynamic_shapes: tuple[dict[int, Any], ...],
    opset: int,
) -> Any:
    try:
        return torch.onnx.export(
            model.module,
            example,
            input_names=[tensor.name for tensor in model.spec.inputs],
            output_names=[tensor.name for tensor in model.spec.outputs],
            dynamic_shapes=dynamic_shapes,
            opset_version=opset,
            dynamo=True,
            external_data=False,
            verbose=False,
        )
    except torch.onnx.OnnxExporterError as error:
        raise CheckpointError(
            f"model '{model.spec.name}' cannot be traced: {_reason(error)}; a network may not branch on the "
            "values of its input, nor count on a batch of one size"
        ) from error


def _reason(error: BaseException) -> str:
    """The first line of the error that the exporter's own was raised from."""
    while error.__cause__ is not None:
        error = error.__cause__
    first = next((line for line in str(error).splitlines() if line.strip()), "").strip()
    return f"{type(error).__name__}: {first}"


def _example(tensor: TensorSpec, shape: tuple[int | str, ...]) -> torch.Tensor:
    """Zeros; dynamic axes are longer than one, because tracers take such an axis for a constant."""
    # The modules are in fp32, whatever a tensor travels as.
    dtype: torch.dtype = getattr(torch, tensor.dtype.replace("float16", "float32"))
    return torch.zeros([2 if isinstance(axis, str) else axis for axis in shape], dtype=dtype)


def _strip(graph: onnx.ModelProto) -> None:
    """Remove what tells about the builder: stack traces, source paths, intermediate shapes."""
    body = graph.graph
    graph.doc_string = body.doc_string = ""
    body.name = "graph"
    del graph.metadata_props[:], body.metadata_props[:], body.value_info[:]
    items: list[Any] = [*body.node, *body.input, *body.output, *body.initializer]
    for item in items:
        item.doc_string = ""
        del item.metadata_props[:]


def _fix_shapes(graph: onnx.ModelProto, model: TraceableModel) -> None:
    """Give inputs and outputs the shapes of the contract and the names of their dynamic axes."""
    values = {value.name: value for value in (*graph.graph.input, *graph.graph.output)}
    for tensor in (*model.spec.inputs, *model.spec.outputs):
        shape = values[tensor.name].type.tensor_type.shape
        del shape.dim[:]
        for index, axis in enumerate(model.graph_shape(tensor)):
            if index == 0 and model.spec.max_batch_size:
                # Triton wants this axis open, even where it may only ever be 1.
                shape.dim.add(dim_param="batch")
            elif isinstance(axis, str):
                shape.dim.add(dim_param=axis)
            else:
                shape.dim.add(dim_value=axis)
